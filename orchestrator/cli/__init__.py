"""The command line: puts the rooms together."""

from orchestrator.cli.main import main

__all__ = ["main"]
