"""`r1-serve replay`: decides again, from the inputs in a decision log."""

import argparse
from pathlib import Path


def add_replay(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.description = (
        "Reads a decision log, of a gateway or of `simulate --log`, decides everything again from "
        "the inputs in its lines, and compares. Prints what differs; exits with 1 if anything does."
    )
    parser.add_argument("log", type=Path, metavar="LOG", help="JSON lines, plain or gzip")
    parser.set_defaults(run=_replay, spec_error_code=2)


def _replay(options: argparse.Namespace) -> int:
    from orchestrator.cli.replay_run import replay_log  # the gateway

    return replay_log(options.log)
