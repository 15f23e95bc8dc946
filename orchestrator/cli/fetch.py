"""`r1-serve fetch`: a checkpoint from the hub into a folder, before anything needs it."""

import argparse
from pathlib import Path

from orchestrator.core import SpecError
from orchestrator.spec import SourceKind, source_of


def add_fetch(parser: argparse.ArgumentParser) -> None:
    """The arguments of `r1-serve fetch`."""
    parser.description = (
        "Downloads a checkpoint as engines do when they start: looks for room first, goes on where "
        "it broke off, compares checksums, and does nothing if all of it is there."
    )
    parser.add_argument("source", help="hf://OWNER/NAME[@REVISION]")
    parser.add_argument("--cache", type=Path, required=True, metavar="FOLDER")
    parser.set_defaults(run=_fetch, spec_error_code=2)


def _fetch(options: argparse.Namespace) -> int:
    source = source_of(options.source)
    if source.kind is not SourceKind.HUB:
        raise SpecError(
            f"{options.source} is nothing to download", "give hf://OWNER/NAME[@REVISION]"
        )
    from orchestrator.engines.hub import fetch  # imports an HTTP client

    folder = fetch(source, options.cache, lambda phase: print(phase, flush=True))
    print(folder)
    return 0
