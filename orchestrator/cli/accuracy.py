"""`r1-serve accuracy`: what the model predicts of published measurements, and how far off it is."""

import argparse
from pathlib import Path

from orchestrator.cli.figures_text import PUBLISHED, published_text, read_text

VALIDATE, CALIBRATE = "validate", "calibrate"  # what a row may be used for


def add_accuracy(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.description = (
        "Predicts every row of a file of measurements and prints prediction, measurement, signed "
        "error and statistics by hardware, engine and mode. A row without a prediction is listed "
        "with the reason. Without FILE these are the published figures that r1-serve ships with."
    )
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE", help="YAML, as published")
    parser.add_argument(
        "--model",
        default="step",
        choices=("step", "simulator"),
        help="what predicts: the closed-form step-time model, or the simulator, which plays the "
        "validate rows and takes minutes",
    )
    parser.add_argument("--format", default="table", choices=("table", "json"))
    parser.add_argument("--factors", type=Path, metavar="FACTORS", help="what `fit` wrote")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the accuracy page")
    parser.add_argument("--seed", type=int, default=0, help="of the simulator")
    parser.add_argument(
        "--rows",
        default=VALIDATE,
        choices=(VALIDATE, CALIBRATE),
        help="that the simulator plays: those that were not fitted, or those that were",
    )
    parser.add_argument(
        "--in-flight-max", type=float, metavar="N", help="the simulator leaves larger loads out"
    )
    parser.add_argument("--groups", type=Path, metavar="FILE", help="write plans' error bands")
    parser.set_defaults(run=_run, spec_error_code=2)


def _run(options: argparse.Namespace) -> int:
    from orchestrator.cli.accuracy_report import Report  # numpy: not for other commands
    from orchestrator.perf import read_factors, shipped_factors

    text = read_text(options.file) if options.file else published_text()
    name = options.file.name if options.file else PUBLISHED
    factors = read_factors(read_text(options.factors)) if options.factors else shipped_factors()
    if options.model == "simulator":
        from orchestrator.cli import accuracy_simulator  # the gateway

        accuracy_simulator.run(
            text,
            name,
            factors,
            options.seed,
            options.in_flight_max,
            options.write or options.format,
            options.rows,
        )
        return 0
    report = Report(name, text, factors)
    if options.write:
        report.write_page(options.write)
    if options.groups:
        report.write_groups(options.groups)
    if options.format == "json":
        report.print_json()
    elif not (options.write or options.groups):
        report.print_table()
    return 0
