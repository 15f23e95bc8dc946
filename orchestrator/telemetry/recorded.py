"""Plays a recording of GPUs, for tests and for a fleet without any; its source is `recorded`.

A recording is lines of JSON: first where it comes from, then one `HostReading` for each second.
"""

from pathlib import Path

import msgspec

from orchestrator.core import SpecError
from orchestrator.telemetry.gpu import HostReading
from orchestrator.telemetry.metrics.labels import Source


class Head(msgspec.Struct, frozen=True):
    """A recording's first line: of which GPUs it is, or that it is of none and was made."""

    taken_from: str


class RecordedReader:
    """Each look is the recording's next second, round and round; counters begin anew with it."""

    source = Source.RECORDED
    cause = ""

    def __init__(self, path: Path) -> None:
        """Raises SpecError for a file that is no recording."""
        try:
            first, *lines = path.read_bytes().splitlines()
            self.head = msgspec.json.decode(first, type=Head)
            self._seconds = [msgspec.json.decode(line, type=HostReading) for line in lines]
        except (OSError, ValueError, msgspec.DecodeError) as error:
            raise SpecError(
                f"{path} is no recording of GPUs: {error}",
                "make one with `r1-serve telemetry --record FILE` on a host that has some",
            ) from error
        if not self._seconds:
            raise SpecError(f"{path} has no second in it", "record for longer")
        self._at = 0

    def read(self) -> HostReading:
        """The next second."""
        seen = self._seconds[self._at % len(self._seconds)]
        self._at += 1
        return seen


def head_line(taken_from: str) -> bytes:
    """How a recording begins."""
    return msgspec.json.encode(Head(taken_from)) + b"\n"


def line_of(seen: HostReading) -> bytes:
    """A second of it."""
    return msgspec.json.encode(seen) + b"\n"
