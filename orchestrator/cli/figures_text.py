"""Texts of measurements and factors: the operator's files, and the figures in the package."""

from importlib.resources import files
from pathlib import Path

from orchestrator.core import SpecError

PUBLISHED = "published_figures.yaml"  # what the shipped factors are fitted to


def read_text(path: Path) -> str:
    """A text file's content; `SpecError` if there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise SpecError(f"cannot read {path}: {why}", "name a readable text file") from error


def published_text() -> str:
    """The published figures of this package."""
    path = files("orchestrator").joinpath("perf", "data", PUBLISHED)
    return path.read_text(encoding="utf-8")
