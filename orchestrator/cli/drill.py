"""`r1-serve drill`: breaks something on purpose, and says whether the clients were spared."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.operator_client import LOCAL_URL
from orchestrator.core import R1ServeError
from orchestrator.core.arguments import count, positive
from orchestrator.fleet.drill import Drill, Verdict

if TYPE_CHECKING:
    from orchestrator.cli.drill_html import Told

CODES = {Verdict.PASSED: 0, Verdict.FAILED: 1, Verdict.ABORTED: 3}


def add_drill(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.description = (
        "Breaks one thing while requests come, and judges what their clients saw: no accepted "
        "request may be lost, everything must be back in time, and the SLO must hold afterwards. "
        "Ends with 0 if passed, 1 if failed, 3 if aborted because the SLO burned, and a page. "
        "Without --simulate it strikes the fleet that `r1-serve up` runs on this machine."
    )
    add = parser.add_argument
    add("name", type=Drill, choices=list(Drill), metavar="NAME", help=", ".join(Drill))
    add("--simulate", type=Path, metavar="PLAN", help="in virtual time: values of `r1-serve plan`")
    add("--report", type=Path, metavar="HTML", help="default drill-NAME.html")
    add("--slo", metavar="BOUNDS", help="for example ttft=2s,itl=50ms (default: the plan's)")
    add("--back", type=positive, metavar="S", help="until all must be there again")
    add("--before", type=positive, default=None, metavar="S", help="undisturbed, to compare with")
    add("--lasts", type=positive, default=None, metavar="S", help="of what heals by itself")
    add("--after", type=positive, default=None, metavar="S", help="behind it, to compare with")
    simulated = parser.add_argument_group("with --simulate")
    simulated.add_argument("--rate", type=positive, metavar="R", help="requests/s (the plan's)")
    simulated.add_argument("--workload", metavar="W", help="as of `plan` (default: the plan's own)")
    simulated.add_argument("--gateways", type=count, default=2, metavar="N")
    simulated.add_argument("--seed", type=int, default=0)
    live = parser.add_argument_group("on a fleet")
    live.add_argument("--url", default=LOCAL_URL, help=f"of the API (default {LOCAL_URL})")
    live.add_argument("--streams", type=count, default=8, metavar="N", help="at a time (default 8)")
    live.add_argument("--model", metavar="NAME", help="that is asked (the first that is served)")
    live.add_argument("--tokens", type=count, default=512, metavar="N", help="an answer's most")
    live.add_argument("--key", default="any", help="of the API")
    live.add_argument("--yes-this-is", metavar="NAME", help="the host of a --url that is not local")
    parser.set_defaults(run=_drill, spec_error_code=2)


def _drill(options: argparse.Namespace) -> int:
    from orchestrator.cli import drill_html

    told = _held(options)
    print(f"{told.drill}: {told.judgement.verdict}")
    print(f"  struck: {told.struck}")
    for finding in told.judgement.findings:
        print(f"  {'ok ' if finding.right else 'NOT'} {finding.text}")
    report = options.report or Path(f"drill-{told.drill}.html")
    command = shlex.join(["r1-serve", *sys.argv[1:]])
    try:
        report.write_text(drill_html.page(told, command), encoding="utf-8")
    except OSError as error:
        raise R1ServeError(f"cannot write {report}: {error.strerror}", "name another") from error
    print(f"  report: {report}")
    return CODES[told.judgement.verdict]


def _held(options: argparse.Namespace) -> "Told":
    if options.simulate is not None:
        from orchestrator.cli.drill_simulated import simulated  # numpy, and the gateway

        return simulated(options)
    from orchestrator.cli.drill_live import live

    return live(options)
