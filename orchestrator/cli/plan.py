"""`r1-serve plan`: which layout, on which nodes, why, how fast, at what cost, and how wrong."""

import argparse
import json
import shlex
import sys
from pathlib import Path

from orchestrator.core import SpecError
from orchestrator.core.arguments import count


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.description = (
        "Finds the layout of a model on the GPUs there are: the best for an objective among all "
        "that keep the SLO, with its bytes, its predicted speed and cost, how wrong these may be, "
        "and why others are not it. SLO bounds are compared with predicted means."
    )
    add = parser.add_argument
    add("--gpus", metavar="NxGPU", help="for example 32xH200; beside --inventory a choice from it")
    add("--inventory", type=Path, metavar="FILE", help="named nodes with leaf and domains; YAML")
    add("--model", default="DeepSeek-R1-0528", metavar="NAME", help="default DeepSeek-R1-0528")
    add(
        "--workload",
        default="chat",
        metavar="W",
        help="chat, reasoning, agent, batch; a trace or YAML file; input=4000,output=1000; then "
        "perhaps ,rate=20,prefix_hit=0.5 (default chat)",
    )
    add("--slo", metavar="BOUNDS", help="for example ttft=2s,itl=50ms (default none)")
    add("--objective", default="cost", choices=("cost", "throughput", "latency", "gpus"))
    add("--fabric", choices=("rdma", "tcp"), help="between nodes (default rdma)")
    add("--weights", choices=("fp8", "nvfp4", "bf16"), help="default as released")
    add("--context", type=count, metavar="TOKENS", help="of the longest request (default 131072)")
    add("--price", type=float, metavar="USD", help="of a GPU-hour")
    add(
        "--allow",
        action="append",
        metavar="REASON",
        help="tensor-across-nodes, stages-with-rdma, fp8-kv",
    )
    add("--factors", type=Path, metavar="FILE", help="what `r1-serve fit` wrote (default shipped)")
    add("--explain", action="store_true", help="every layout, and why it is not the plan")
    add("--engine", default="vllm", choices=("vllm", "sglang"), help="sglang: you start it")
    add("--format", default="table", choices=("table", "json", "values", "html", "commands"))
    add("-o", "--out", type=Path, metavar="FILE", help="default standard output")
    parser.set_defaults(run=_plan, spec_error_code=2)


def _plan(options: argparse.Namespace) -> int:
    # These import numpy, which other commands do not need.
    from orchestrator.cli import plan_commands, plan_html, plan_json, plan_table, plan_values
    from orchestrator.cli.plan_inputs import asked_for
    from orchestrator.cli.plan_report import report_on
    from orchestrator.placement import NoPlan, plan

    found = plan(asked_for(options))
    if isinstance(found, NoPlan):
        raise SpecError(f"{found.violation.why}: {found.nearest}", _cure(options))
    report = report_on(found, _command(options), explain=options.explain)
    match options.format:
        case "table":
            text = plan_table.table(report)
        case "json":
            text = json.dumps(plan_json.tree(report), indent=2) + "\n"
        case "commands":
            text = plan_commands.commands(report)
        case "values":
            text = plan_values.values(report)
        case _:
            text = plan_html.page(report)
    _write(text, options.out)
    return 0


def _cure(options: argparse.Namespace) -> str:
    if options.slo or "rate=" in options.workload:
        return "ask for no more than that, or give more GPUs"
    return "give more or larger GPUs, or a shorter --context"


def _write(text: str, out: Path | None) -> None:
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"cannot write {out}: {error.strerror}", "name another file") from error


def _command(options: argparse.Namespace) -> str:
    """The command that makes this plan again; where it is written to is left out."""
    words = ["r1-serve", "plan"]
    flags = ("gpus", "inventory", "model", "workload", "slo", "objective", "fabric", "weights")
    for name in (*flags, "context", "price", "factors"):
        if (value := getattr(options, name)) is not None:
            words += [f"--{name}", str(value)]
    if options.engine != "vllm":
        words += ["--engine", options.engine]
    for reason in options.allow or ():
        words += ["--allow", reason]
    return shlex.join(words)
