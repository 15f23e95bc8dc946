"""`r1-serve bench report`: what a load test means, as a page and as JSON beside it."""

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core import SpecError
from orchestrator.core.arguments import count, positive

if TYPE_CHECKING:
    from loadtest.result import Result
    from orchestrator.cli.load_report import Asked, LoadReport


LOAD_REPORT = "r1-serve load report"  # `kind` of its JSON, by which `r1-serve fit` knows it


def add_report(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.description = (
        "Reads a result of `r1-serve bench run` or `bench find-capacity` and writes a page that "
        "says what the deployment takes within its SLO, what limits it and how many nodes a target "
        "needs; the same as JSON beside it, which `r1-serve fit --from` reads. With the plan's "
        "values it compares measurement and prediction."
    )
    add = parser.add_argument
    add("result", type=Path, metavar="RESULT", help="JSON of a run")
    add("--plan", type=Path, metavar="VALUES", help="of `r1-serve plan --format values`")
    add("--factors", type=Path, metavar="FILE", help="of `r1-serve fit` (default the shipped ones)")
    add("--target", type=positive, metavar="R", help="requests/s that are to be served")
    add(
        "--nodes",
        type=count,
        metavar="N",
        help="of the fleet that was tested (default: the plan's)",
    )
    add("--price", type=positive, metavar="USD", help="of a GPU-hour (default: the plan's)")
    add("--gpus", type=count, metavar="N", help="of the fleet (default: the plan's, or as it says)")
    add("--out", type=Path, required=True, metavar="HTML", help="the page; JSON goes beside it")
    parser.set_defaults(run=_run, spec_error_code=2)


def _run(options: argparse.Namespace) -> int:
    from loadtest.reading import read_result  # msgspec and numpy: not for other commands
    from orchestrator.cli.load_report import Asked

    asked = Asked(
        plan=options.plan,
        factors=options.factors,
        target_per_s=options.target,
        nodes=options.nodes,
        price=options.price,
        gpus=options.gpus,
        command=_command(options),
    )
    report = write_report(read_result(options.result), options.out, asked)
    print(report.answer)
    print(f"{options.out}, {_beside(options.out)}")
    return 0


def write_report(result: "Result", out: Path, asked: "Asked | None" = None) -> "LoadReport":
    """Writes the page, and the JSON beside it. Raises SpecError."""
    from orchestrator.cli.load_html import page
    from orchestrator.cli.load_json import tree
    from orchestrator.cli.load_report import Asked, load_report

    report = load_report(result, asked or Asked())
    try:
        out.write_text(page(report), encoding="utf-8")
        text = json.dumps(tree(report), indent=1) + "\n"
        _beside(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"cannot write {out}: {error.strerror}", "name another file") from error
    return report


def _beside(out: Path) -> Path:
    return out.with_suffix(".json")


def _command(options: argparse.Namespace) -> str:
    words = ["r1-serve", "bench", "report", str(options.result)]
    for name in ("plan", "factors", "target", "nodes", "price", "gpus"):
        if (value := getattr(options, name)) is not None:
            words += [f"--{name}", str(value)]
    return shlex.join([*words, "--out", str(options.out)])
