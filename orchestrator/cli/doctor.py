"""`r1-serve doctor`: proves that what is configured is on, or says what is not, and the cure."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import cast
from uuid import uuid4

from orchestrator.cli.operator_client import LOCAL_URL, Asked, add_asking, ask_each
from orchestrator.core import R1ServeError
from orchestrator.core.arguments import positive

_WIDTH = 100
_MARKS = {"ok": "ok", "off": "off", "unknown": "?", "fault": "FAULT"}
FAULT, INCOMPLETE = 1, 3  # exit codes


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.description = (
        "Asks each gateway to examine its ranks with small requests of its own, which no bill, no "
        "SLO and no metric of requests counts, and prints what was expected, what was seen and "
        "the cure. Ends with 0 if nothing is wrong, 1 if something is, 3 if not all gateways "
        "answered."
    )
    add_asking(parser, 180.0, "a round")
    add = parser.add_argument
    add("--all", action="store_true", help="a line for each rank, not only for what is wrong")
    add("--every", type=positive, metavar="S", help="again and again, until Ctrl-C")
    together = parser.add_argument_group("of the network between nodes, and of no gateway")
    together.add_argument(
        "--collective",
        action="store_true",
        help="an all-reduce by torch.distributed: of two processes here, or with --address of all "
        "nodes; with nccl it wants GPUs that no engine has",
    )
    together.add_argument("--address", metavar="HOST:PORT", help="of the cluster's GCS")
    together.add_argument("--backend", choices=("gloo", "nccl"), default="gloo")
    together.add_argument(
        "--floor", type=positive, default=0.6, metavar="GB/S", help="below it is wrong (0.6)"
    )
    parser.set_defaults(run=_doctor, spec_error_code=2)


def _doctor(options: argparse.Namespace) -> int:
    if options.collective:
        from orchestrator.cli.doctor_collective import collective

        return collective(options)
    if options.every is None:
        return _examined(options)
    return again(lambda: _examined(options), lambda: time.sleep(options.every))


def again(round_: Callable[[], int], wait: Callable[[], None]) -> int:
    """Rounds until Ctrl-C; the exit code of the last one that ended. A round that could not be
    says why, and the next one is tried all the same.
    """
    code = INCOMPLETE
    try:
        while True:
            try:
                code = round_()
            except R1ServeError as error:
                code = INCOMPLETE
                print(f"r1-serve: {error.cause}", file=sys.stderr, flush=True)
            wait()
    except KeyboardInterrupt:
        return code


def _examined(options: argparse.Namespace) -> int:
    asked = _round(options)
    print(_document(asked) if options.json else table(asked, whole=options.all), flush=True)
    return _code(asked)


def _round(options: argparse.Namespace) -> Asked:
    path = f"/operator/doctor?run={uuid4().hex}"
    urls = options.url or [LOCAL_URL]
    asked = ask_each(urls, "POST", path, options.key, options.timeout)
    for answer in asked.answers:
        if answer.status != 200:
            raise R1ServeError(
                f"gateway {answer.gateway} cannot examine: {answer.status} {answer.message}",
                "read its log",
            )
    return asked


def _code(asked: Asked) -> int:
    if any(answer.body.get("state") == "fault" for answer in asked.answers):
        return FAULT
    return INCOMPLETE if asked.missing else 0


def _document(asked: Asked) -> str:
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "gateways": asked.gateways,
        "gateways_answered": len(asked.answers),
        "rounds": [answer.body for answer in asked.answers],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


Finding = Mapping[str, str]


def table(asked: Asked, *, whole: bool) -> str:
    """What people read of all rounds."""
    lines: list[str] = []
    for answer in asked.answers:
        took_s = float(str(answer.body.get("took_s", 0)))
        lines.append(f"gateway {answer.gateway}, {answer.body.get('at')}, {took_s:.1f} s")
        for model in cast("Sequence[Mapping[str, object]]", answer.body.get("models", ())):
            findings = cast("Sequence[Finding]", model["findings"])
            lines += [f"  model {model['model']}", *_findings(findings, whole=whole), ""]
    lines += _summary(asked)
    return "\n".join(lines)


def _findings(findings: Sequence[Finding], *, whole: bool) -> list[str]:
    lines = []
    for probe in dict.fromkeys(finding["probe"] for finding in findings):
        own = [finding for finding in findings if finding["probe"] == probe]
        states = [finding["state"] for finding in own]
        worst = max(states, key=list(_MARKS).index)
        said = f"{states.count(worst)} of {len(states)}" if len(own) > 1 else ""
        if not whole and worst != "fault":
            first = next(finding["seen"] for finding in own if finding["state"] == worst)
            said = f"{said}: {first}" if said else first
        lines.append(_cut(f"  {_MARKS[worst]:<6}{probe:<18}{said}".rstrip()))
        if whole:
            lines += [f"          expected  {own[0]['expected']}"]
            lines += [f"      {_MARKS[f['state']]:<6}{f['subject']}: {f['seen']}" for f in own]
        if worst == "fault":
            lines += [line for f in own if f["state"] == "fault" for line in _fault(f)]
    return lines


def _fault(finding: Finding) -> list[str]:
    name = f" ({finding['fault']})" if finding.get("fault") else ""
    return [
        f"        {finding['subject']}{name}",
        f"          expected  {finding['expected']}",
        f"          seen      {finding['seen']}",
        f"          do        {finding['cure']}",
    ]


def _summary(asked: Asked) -> list[str]:
    count = {"ok": 0, "off": 0, "unknown": 0, "fault": 0}
    for answer in asked.answers:
        for model in cast("Sequence[Mapping[str, object]]", answer.body.get("models", ())):
            for finding in cast("Sequence[Finding]", model["findings"]):
                count[finding["state"]] += 1
    said = (
        f"{count['fault']} wrong, {count['ok']} right, {count['off']} not configured, "
        f"{count['unknown']} not available"
    )
    lines = [f"{len(asked.answers)} of {asked.gateways} gateways: {said}"]
    if asked.missing:
        lines.append("  give --url of the others too: this one did not lead to them")
    return lines


def _cut(line: str) -> str:
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"
