"""Reads an engine's flags, as they are passed through."""

from collections.abc import Sequence


def flag_value(flags: Sequence[str], name: str) -> str:
    """What follows a flag, the last time that it is given, or ""."""
    found = ""
    for at, word in enumerate(flags):
        if word == name and at + 1 < len(flags):
            found = flags[at + 1]
        elif word.startswith(f"{name}="):
            found = word.partition("=")[2]
    return found
