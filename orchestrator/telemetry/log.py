"""Structured lines: a constant event name and fields, one JSON object a line.

A request is five lines and more on the gateway's event loop, so a line is no `LogRecord`: of
`logging` only the rotation of files is used.
"""

import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

import msgspec

_encode = msgspec.json.Encoder(enc_hook=str).encode
_FILE_BYTES = 16 << 20
_FILES_KEPT = 3


class Log:
    """Writes events of one process; prompts and outputs never belong in the fields.

    A line ends up in the file before the call returns. Threads may share a log.
    """

    def __init__(self, source: str, file: "_File | None" = None) -> None:
        """Without a file lines go to stderr."""
        self._source = source
        self._file = file

    @property
    def whole(self) -> bool:
        """Whether anybody reads all fields; without it costly ones may be left out."""
        return True

    def info(self, event: str, **fields: object) -> None:
        """A change of state that an operator may want to know of."""
        self._write("INFO", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something went wrong and was dealt with."""
        self._write("WARNING", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Something went wrong that costs users."""
        self._write("ERROR", event, fields)

    def close(self) -> None:
        """Closes the file; nothing may be logged after."""
        if self._file is not None:
            self._file.close()

    def _write(self, level: str, event: str, fields: dict[str, object]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")  # the only use of the wall clock
        head = {"time": now, "event": event, "source": self._source, "level": level}
        line = _encode(head | fields).decode() + "\n"
        if self._file is not None:
            self._file.put(line)
        else:
            sys.stderr.write(line)
            sys.stderr.flush()


class _File(RotatingFileHandler):
    """Counts what it writes: the library's own way asks the file system before each line."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, backupCount=_FILES_KEPT, encoding="utf-8")
        self._size = path.stat().st_size

    def put(self, line: str) -> None:
        """Appends the line, to a new file if it is time for one."""
        self.acquire()
        try:
            if self._size + len(line) > _FILE_BYTES:
                self.doRollover()
                self._size = 0
            assert self.stream is not None, "closed"
            self.stream.write(line)
            self.stream.flush()
            self._size += len(line)
        finally:
            self.release()


def open_log(source: str, path: Path | None = None) -> Log:
    """A log to the file, rotated at 16 MiB with three files kept, or to stderr without one."""
    if path is None:
        return Log(source)
    path.parent.mkdir(parents=True, exist_ok=True)
    return Log(source, _File(path))
