"""`r1-serve fit`: efficiency factors from measurements, with their provenance."""

import argparse
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from orchestrator import __version__
from orchestrator.cli.bench_report import LOAD_REPORT
from orchestrator.cli.figures_text import PUBLISHED, published_text, read_text
from orchestrator.core import SpecError

if TYPE_CHECKING:  # loads numpy, which other commands have no use for
    from orchestrator.perf.fit import Fit


def add_fit(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Fits the efficiency factors of step times to measurements and writes them with their\n"
        "provenance. Without --figures and --from these are the published figures, and what is\n"
        "written is the file that r1-serve ships with. Only rows marked `calibrate` are fitted.\n\n"
        "--from takes your own measurements, CSV with a header or JSON lines, and moves the\n"
        "shipped factors as far as they tell:\n"
        "  phase     serve | decode | prefill: a load test of one unified gang at a fixed\n"
        "            concurrency, or one engine step\n"
        "  all       hardware, engine, precision (fp8), tp, pp, dp, ep (1), mtp_drafts,\n"
        "            accept_len, redundant_experts\n"
        "  serve     concurrency (of one gang), isl, osl, and ttft_ms, tpot_ms, output_tok_s_gpu\n"
        "  decode    batch_per_rank, context_tokens, step_ms\n"
        "  prefill   tokens_per_rank, isl, step_ms\n"
        "or the JSON of a load test's report that was made with its plan: each load that was\n"
        "steady becomes a row.\n"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--figures", type=Path, metavar="FILE", help="rows as the published ones")
    source.add_argument(
        "--from", dest="own", type=Path, metavar="FILE", help="your own measurements"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FACTORS", help="YAML to write")
    parser.set_defaults(run=_run, spec_error_code=2)


def factors_text(found: "Fit", source: str, text: str, *, own: bool) -> str:
    """The factors file: what was fitted, to what, by which version, and how well."""
    tree = {
        "provenance": {
            "tool": f"r1-serve {__version__}",
            "source": source,
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "started_from": "the shipped factors" if own else "physical priors",
            "seed": "none: the fit draws no chance",
            "rows": len(found.row_ids),
            "row_ids_sha256": hashlib.sha256("\n".join(found.row_ids).encode()).hexdigest(),
            "mean_error_before": {name: round(e, 4) for name, e in found.error_before.items()},
            "mean_error_after": {name: round(e, 4) for name, e in found.error_after.items()},
        },
        "values": dict(found.factors.values),
        "multipliers": {name: dict(by) for name, by in found.factors.multipliers.items()},
    }
    head = "# Written by `r1-serve fit`; what each factor means stands in perf/factors.py.\n"
    return head + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _lines(text: str, source: str) -> str:
    """The rows of a load test's report as JSON lines; other texts as they are."""
    try:
        tree = json.loads(text)
    except ValueError:
        return text
    if not isinstance(tree, dict) or tree.get("kind") != LOAD_REPORT:
        return text
    rows = tree.get("fit_rows")
    if not isinstance(rows, list) or not rows:
        raise SpecError(
            f"{source} is a report without rows to fit: it has no plan, or no load was steady",
            "make it anew with `r1-serve bench report RESULT --plan VALUES`",
        )
    return "\n".join(json.dumps(row) for row in rows)


def _run(options: argparse.Namespace) -> int:
    from orchestrator.perf import shipped_factors
    from orchestrator.perf.cases import cases_of
    from orchestrator.perf.figures import read_figures
    from orchestrator.perf.fit import fit
    from orchestrator.perf.own_rows import own_rows

    own = options.own is not None
    path = options.own if own else options.figures
    text, source = (read_text(path), path.name) if path else (published_text(), PUBLISHED)
    rows = yaml.safe_dump({"measurements": own_rows(_lines(text, source), source)}) if own else text
    found = fit(list(cases_of(read_figures(rows))), shipped_factors() if own else None)
    try:
        options.out.write_text(factors_text(found, source, text, own=own), encoding="utf-8")
    except OSError as error:
        raise SpecError(f"cannot write {options.out}: {error.strerror}", "name another") from error
    print(f"{options.out}: {len(found.factors.values)} factors from {len(found.row_ids)} rows")
    print(f"{'mean error':<14} {'before':>8} {'after':>8}")
    for name, before in found.error_before.items():
        print(f"{name:<14} {before:>8.1%} {found.error_after[name]:>8.1%}")
    return 0
