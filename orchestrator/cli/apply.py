"""`r1-serve apply`: a changed spec for what runs, without cutting a stream."""

import argparse
from pathlib import Path

from orchestrator.cli.up import with_absolute_paths
from orchestrator.spec import load_spec


def add_apply(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.description = (
        "Applies a changed spec to a running `r1-serve up`: what depends on it is replaced, "
        "gangs one after another, each drained when its successor is ready or, where there are no "
        "GPUs for both, before. If the spec is wrong, or what it asks for does not start, what ran "
        "before stays in force."
    )
    parser.add_argument("spec", type=Path, metavar="FILE", help="what to serve; YAML")
    parser.add_argument(
        "--address",
        default="auto",
        help="of the cluster's GCS, HOST:PORT (default: on this machine)",
    )
    parser.set_defaults(run=_apply)


def _apply(options: argparse.Namespace) -> int:
    spec = with_absolute_paths(load_spec(options.spec))
    from orchestrator.runtime.attach import attached  # imports Ray
    from orchestrator.runtime.upgrade import upgrade

    with attached(options.address):
        upgrade(spec, say=lambda line: print(line, flush=True))
    print("all of it is as the spec says")
    return 0
