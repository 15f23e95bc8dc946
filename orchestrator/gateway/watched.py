"""A file that is read again when it changes; a broken one leaves in force what was there."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from orchestrator.core import SpecError
from orchestrator.telemetry import Log

RELOAD_S = 2.0  # how soon a changed file is noticed

Read = TypeVar("Read")


class Watched(Generic[Read]):
    """What a file, or a folder of files, says."""

    def __init__(self, what: str, path: Path, read: Callable[[Path], Read], log: Log) -> None:
        """`what` names it in the log. Raises what `read` raises: SpecError."""
        self._what = what
        self._path = path
        self._read = read
        self._log = log
        self._seen = _signature(path)
        self.value = read(path)

    def look(self) -> bool:
        """Whether another value is in force now than before."""
        seen = _signature(self._path)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self.value = self._read(self._path)
        except SpecError as error:
            self._log.error("not_reloaded", what=self._what, cause=error.cause, cure=error.cure)
            return False
        self._log.info("reloaded", what=self._what, path=self._path)
        return True


def files_of(path: Path) -> list[Path]:
    """The file, or the visible files of a folder, such as a mounted Kubernetes Secret."""
    if not path.is_dir():
        return [path]
    return sorted(f for f in path.iterdir() if f.is_file() and not f.name.startswith("."))


def _signature(path: Path) -> tuple[object, ...]:
    return tuple(_stamps(path))


def _stamps(path: Path) -> Iterator[tuple[object, ...]]:
    """What changes when a file does; a Secret is changed by exchanging a symbolic link."""
    try:
        for file in files_of(path):
            stat = file.stat()
            yield (str(file), stat.st_ino, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        yield (str(error),)
