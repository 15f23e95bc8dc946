"""`r1-serve bench run` and `find-capacity`: the load test, in a process of its own.

It patches the standard library for gevent, which nothing of ours may share a process with.
"""

import argparse
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from loadtest.options import add_find_capacity, add_run
from orchestrator.core import SpecError

_OURS = {"run", "spec_error_code", "slo", "what"}  # not for the load test


def add_load_run(parser: argparse.ArgumentParser) -> None:
    """The arguments of `run`."""
    add_run(parser)
    _add_ours(parser, "run")


def add_load_capacity(parser: argparse.ArgumentParser) -> None:
    """The arguments of `find-capacity`."""
    add_find_capacity(parser)
    _add_ours(parser, "find-capacity")


def _add_ours(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--slo", metavar="BOUNDS", help="such as ttft=2s,itl=50ms: instead of --ttft-s and --itl-s"
    )
    parser.set_defaults(run=_run, what=what, spec_error_code=2)


def _run(options: argparse.Namespace) -> int:
    if find_spec("locust") is None:
        raise SpecError("the load test is not installed", "pip install 'r1-serve[loadtest]'")
    command = [sys.executable, "-m", "loadtest", options.what, *arguments_of(options)]
    with subprocess.Popen(command) as process:
        code = _waited(process)
    if options.what == "find-capacity" and code == 0:
        return _report(options.out)
    return code


def _waited(process: "subprocess.Popen[bytes]") -> int:
    """Its exit code. Ctrl-C is for it, and it writes what it has."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def _report(out: Path) -> int:
    from loadtest.reading import read_result  # msgspec and numpy: not for other commands
    from orchestrator.cli.bench_report import write_report

    report = write_report(read_result(out / "result.json"), out / "report.html")
    print(report.answer)
    print(f"{out / 'report.html'}; with a plan: r1-serve bench report {out / 'result.json'} --plan")
    return 0


def arguments_of(options: argparse.Namespace) -> list[str]:
    """The options again, as the load test reads them."""
    given = {name: value for name, value in vars(options).items() if name not in _OURS}
    if options.slo is not None:
        from orchestrator.cli.plan_inputs import read_slo

        if options.ttft_s is not None or options.itl_s is not None:
            raise SpecError("--slo and --ttft-s or --itl-s bound the same", "give one of them")
        slo = read_slo(options.slo)
        given |= {"ttft_s": slo.ttft_s, "itl_s": slo.itl_s}
    arguments = []
    for name, value in given.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            arguments.append(flag)
        elif value is not None and value is not False:
            arguments.append(f"{flag}={value}")
    return arguments
