"""Structured lines: a constant event name and fields, one JSON object a line."""

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

import msgspec
from typing_extensions import override

_encode = msgspec.json.Encoder(enc_hook=str).encode


class Log:
    """Writes events of one process; prompts and outputs never belong in the fields."""

    def __init__(self, source: str, sink: logging.Logger) -> None:
        self._source = source
        self._sink = sink

    @property
    def whole(self) -> bool:
        """Whether anybody reads all fields; without it costly ones may be left out."""
        return self._sink.isEnabledFor(logging.INFO)

    def info(self, event: str, **fields: object) -> None:
        """A change of state that an operator may want to know of."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something went wrong and was dealt with."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Something went wrong that costs users."""
        self._write(logging.ERROR, event, fields)

    def close(self) -> None:
        """Closes the file; nothing may be logged after."""
        for handler in self._sink.handlers:
            handler.close()

    def _write(self, level: int, event: str, fields: dict[str, object]) -> None:
        if self._sink.isEnabledFor(level):
            head = {"event": event, "source": self._source, "level": logging.getLevelName(level)}
            self._sink.log(level, "%s", _encode(head | fields).decode())


class _Formatter(logging.Formatter):
    """Puts the wall clock in front, the only place where it is used."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        stamp = self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}"
        return f'{{"time":"{stamp}",{record.getMessage()[1:]}'


def open_log(source: str, path: Path | None = None) -> Log:
    """A log to the file, rotated at 16 MiB with three files kept, or to stderr without one."""
    sink = logging.Logger(source)
    handler: logging.Handler
    if path is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(path, maxBytes=16 << 20, backupCount=3)
    handler.setFormatter(_Formatter())
    sink.addHandler(handler)
    return Log(source, sink)
