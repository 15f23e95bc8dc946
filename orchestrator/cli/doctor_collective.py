"""`r1-serve doctor --collective`: how fast the nodes exchange, against what the fabric gives."""

import argparse
import json

from orchestrator.fleet.doctor import State, links, worst
from orchestrator.runtime.collective import on_all_nodes, on_this_machine
from orchestrator.runtime.ports import PortClaims
from orchestrator.spec import LOOPBACK


def collective(options: argparse.Namespace) -> int:
    """Measures and prints; 1 if a link is too slow."""
    if options.address is None:
        (port,) = PortClaims(LOOPBACK).take(1)
        speeds = on_this_machine(port, options.backend)
    else:
        from orchestrator.runtime.attach import attached  # imports Ray

        with attached(options.address):
            speeds = on_all_nodes(options.backend)
    findings = links(speeds, options.floor * 1e9)
    if options.json:
        told = [{"subject": f.subject, "state": f.state, "seen": f.seen} for f in findings]
        print(json.dumps({"backend": options.backend, "findings": told}, indent=2))
    for finding in () if options.json else findings:
        mark = "FAULT" if finding.state is State.FAULT else "ok"
        print(f"  {mark:<6}{finding.subject}: {finding.seen} by {options.backend}")
        if finding.state is State.FAULT:
            print(f"          expected  {finding.expected}")
            print(f"          do        {finding.cure}")
    return int(worst(findings) is State.FAULT)
