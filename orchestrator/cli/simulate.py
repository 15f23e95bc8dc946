"""`r1-serve simulate`: what would have happened, by the code that would have decided."""

import argparse
import shlex
from pathlib import Path

from orchestrator.core.arguments import count, not_negative, positive, share


def add_simulate(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.description = (
        "Plays a trace or a workload through a plan's fleet in virtual time. Gateways, admission, "
        "handoff and routing are production's own code; engines are the step-time model of `plan`. "
        "Seconds are predictions. The same arguments give the same log, to the byte."
    )
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--plan", type=Path, metavar="FILE", help="values of `r1-serve plan`")
    which.add_argument(
        "--compare",
        type=Path,
        nargs=2,
        metavar="FILE",
        help="two such files, side by side on the same arrivals",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--trace", type=Path, metavar="FILE", help="Mooncake's, ServeGen's, or CSV")
    what.add_argument(
        "--workload",
        metavar="W",
        help="as of `plan`: chat, reasoning, input=4000,output=1000 ... (default: the plan's own)",
    )
    add("--seed", type=int, default=0, help="of everything that chance decides (default 0)")
    add("--rate", type=positive, metavar="R", help="requests/s; of a trace: a factor of its own")
    add("--duration", type=positive, metavar="S", help="of arrivals (default: the trace's, or 600)")
    add("--requests", type=count, metavar="N", help="at most so many")
    add("--concurrency", type=count, metavar="N", help="closed loop: so many at a time")
    add("--thinking", type=share, default=0.6, help="share of outputs before the answer")
    add("--gateways", type=count, default=2, metavar="N", help="replicas (default 2)")
    add("--faults", default="none", metavar="KINDS", help="none, all, or names with commas")
    add("--slo", metavar="BOUNDS", help="for example ttft=2s,itl=50ms (default: the plan's)")
    add("--class-slo", action="append", metavar="CLASS:BOUNDS", help="of one class of a trace")
    add("--event-delay-s", type=not_negative, default=0.05, help="age of KV events at a gateway")
    add("--event-loss", type=share, default=0.0, help="share of event batches that get lost")
    add("--cold", action="store_true", help="gangs start at 0, instead of being ready then")
    add("--report", type=Path, metavar="HTML", help="write a page, and its decisions beside it")
    add("--log", type=Path, metavar="FILE", help="write every decision with its inputs")
    add("--format", default="table", choices=("table", "json"))
    parser.set_defaults(run=_simulate, spec_error_code=2)


def _simulate(options: argparse.Namespace) -> int:
    from orchestrator.cli.simulate_run import run  # numpy, and the gateway

    run(options, _command(options))
    return 0


def _command(options: argparse.Namespace) -> str:
    words = ["r1-serve", "simulate"]
    for name in ("plan", "compare", "trace", "workload", "seed", "rate", "duration", "requests"):
        value = getattr(options, name)
        if value is not None:
            values = value if isinstance(value, list) else [value]
            words += [f"--{name}", *(str(each) for each in values)]
    for name in ("concurrency", "gateways", "faults", "slo"):
        if (value := getattr(options, name)) is not None:
            words += [f"--{name}", str(value)]
    return shlex.join(words)
