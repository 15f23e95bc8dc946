"""The journal of usage: what one gateway writes, and how all lives in a folder are read.

A folder has for each life of a gateway segments `LIFE-NUMBER.jsonl`, of which the last one grows,
and `LIFE.totals.json`, into which those that are full have been added up. A record is in the
system's memory when `put` returns, so that the death of the process costs none; `sync` brings it to
the disk.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from orchestrator.admission import (
    Began,
    Fold,
    OpenRequest,
    Record,
    Rows,
    Usage,
    UsageKey,
)
from orchestrator.core import SpecError, TokenCounts
from orchestrator.spec import UsageSpec

_BACKLOG_BYTES_MAX = 16 << 20  # of records that could not be written; what is more is lost
_SEGMENT, _TOTALS = ".jsonl", ".totals.json"

_encode = msgspec.json.Encoder().encode
_record = msgspec.json.Decoder(Record)


class _Row(msgspec.Struct):
    day: int
    tenant: str
    model: str
    requests: int
    tokens: TokenCounts
    cost_pico: int


class _Totals(msgspec.Struct):
    """All ends of a life's segments up to `through`."""

    life: str
    through: int
    rows: list[_Row]


_totals = msgspec.json.Decoder(_Totals)


class Journal:
    """Writes one life; on one thread, but for `sync` and `add_up`, which take long."""

    def __init__(self, spec: UsageSpec, life: str) -> None:
        """Opens the first segment. Raises SpecError if the folder cannot be written."""
        assert spec.dir is not None
        self._spec = spec
        self.folder = Path(spec.dir)
        self.fault = ""  # why the last writing failed
        self._life = life
        self._number = 0
        self._file: int | None = None
        self._bytes = 0
        self._backlog = bytearray()  # what could not be written yet
        self._unsynced = False
        self.lost = 0  # records that found no room in it
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._next(())
        except OSError as error:
            raise SpecError(
                f"usage.dir: cannot write in {spec.dir}: {error.strerror}",
                "name a folder that the gateways can write in, or leave usage.dir out",
            ) from error

    def put(self, record: Record) -> None:
        """Appends a record. Never raises: what cannot be written is tried again; see `flush`."""
        line = _encode(record) + b"\n"
        if len(self._backlog) + len(line) > _BACKLOG_BYTES_MAX:
            self.lost += 1
        else:
            self._backlog += line
        self.flush()

    @property
    def full(self) -> bool:
        """Whether it is time for another segment."""
        return self._bytes >= self._spec.segment_bytes and not self._backlog

    def rotate(self, still_open: tuple[OpenRequest, ...]) -> None:
        """Goes on in another segment, which begins with what is open; raises nothing: the old one
        goes on if no other can be made.
        """
        with suppress(OSError):
            self._next(still_open)

    def sync(self) -> None:
        """Brings what was put to the disk; may be called from another thread."""
        if (file := self._file) is not None and self._unsynced:
            self._unsynced = False
            with suppress(OSError):  # closed meanwhile, after a sync of its own
                os.fsync(file)

    def add_up(self) -> None:
        """Adds all segments but the last one up, and removes old ones; in any thread, one at a
        time. Raises OSError.
        """
        through = self._number - 1
        before = _read_totals(self.folder, self._life)
        if before.through >= through:
            return
        fold = Fold(by_day=True, rows=_rows(before))
        for number in range(before.through + 1, through + 1):
            for record in _records(_segment(self.folder, self._life, number).read_bytes()):
                fold.on(record)
        rows = [
            _Row(key.day, key.tenant, key.model, usage.requests, usage.tokens, usage.cost_pico)
            for key, usage in sorted(fold.ended.items())
        ]
        path = self.folder / f"{self._life}{_TOTALS}"
        os.close(_whole_file(path, _encode(_Totals(self._life, through, rows))))
        for number in range(through - self._spec.segments_kept, 0, -1):
            old = _segment(self.folder, self._life, number)
            if not old.exists():
                break
            old.unlink()

    def close(self) -> None:
        """Nothing that is put after is written."""
        if self._file is not None:
            self.sync()
            os.close(self._file)
            self._file = None

    def _next(self, still_open: tuple[OpenRequest, ...]) -> None:
        """Raises OSError before there is another segment, and not once there is: a reader of that
        one reads no more of this.
        """
        if self._file is not None:
            os.fsync(self._file)
        began = Began(self._life, self._number + 1, self._spec.currency, still_open)
        head = _encode(began) + b"\n"
        file = _whole_file(_segment(self.folder, self._life, self._number + 1), head)
        self.close()
        self._file, self._bytes, self._number = file, len(head), self._number + 1

    def flush(self) -> None:
        """Writes what could not be written before; `fault` says why it still cannot be."""
        try:
            while self._backlog and self._file is not None:
                written = os.write(self._file, self._backlog)
                self._bytes += written
                self._unsynced = True
                del self._backlog[:written]
        except OSError as error:
            self.fault = f"cannot write usage: {error.strerror}"
        else:
            self.fault = ""


def _whole_file(path: Path, data: bytes) -> int:
    """A file with all of the data, open to be appended to; or none, and OSError."""
    part = path.with_suffix(".part")
    file = os.open(part, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o640)
    try:
        written = os.write(file, data)
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file)
        part.rename(path)
    except OSError:
        os.close(file)
        raise
    with suppress(OSError):  # the name is there, and perhaps not yet on the disk
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return file


def _segment(folder: Path, life: str, number: int) -> Path:
    return folder / f"{life}-{number:06}{_SEGMENT}"


# --- reading -------------------------------------------------------------------------------------


class LifeReader:
    """Reads one life of the folder, and on where it stopped whenever it is asked to."""

    def __init__(self, folder: Path, life: str, *, by_day: bool) -> None:
        """Raises SpecError for totals that are none."""
        self._folder = folder
        self._life = life
        self._by_day = by_day
        self.damaged = 0  # lines that are no records, but for one that a crash cut off
        self._begin(_read_totals(folder, life))

    def _begin(self, totals: _Totals) -> None:
        self.fold = Fold(by_day=self._by_day, rows=_rows(totals))
        self._number = totals.through + 1
        self._offset = 0

    def read(self) -> bool:
        """Folds what has come; whether there was anything. What is half written waits."""
        found = False
        while True:
            path = _segment(self._folder, self._life, self._number)
            more = _segment(self._folder, self._life, self._number + 1).exists()
            try:
                with path.open("rb") as file:
                    file.seek(self._offset)
                    data = file.read()
            except OSError:
                totals = _read_totals(self._folder, self._life)
                if totals.through < self._number:
                    return found
                self._begin(totals)  # it was added up and removed since the last reading
                found = True
                continue
            whole = data.rfind(b"\n") + 1
            for line in data[:whole].splitlines():
                try:
                    self.fold.on(_record.decode(line))
                except msgspec.DecodeError:
                    self.damaged += 1
            found = found or whole > 0
            self._offset += whole
            if not more:  # as of before the reading, so that nothing is missed
                return found
            self._number, self._offset = self._number + 1, 0


def lives(folder: Path) -> dict[str, int]:
    """The lives that have written in the folder, by name, and how many bytes; more of them, or
    fewer, once one has written more. Raises OSError.
    """
    found: dict[str, int] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(_TOTALS):
                life = entry.name.removesuffix(_TOTALS)
            elif entry.name.endswith(_SEGMENT):
                life = entry.name.removesuffix(_SEGMENT)[:-7]
            else:
                continue
            with suppress(FileNotFoundError):  # removed meanwhile
                found[life] = found.get(life, 0) + entry.stat().st_size
    return dict(sorted(found.items()))


@dataclass(frozen=True, slots=True)
class UsageFound:
    """What a folder holds: by day, tenant and model, in this order."""

    rows: Rows
    currency: str  # empty: nobody has written
    damaged: int  # lines that are no records, or contradict those before them


def read_usage(folder: Path) -> UsageFound:
    """All usage in the folder. Raises SpecError if it cannot be read."""
    try:
        names = lives(folder)
    except OSError as error:
        raise SpecError(
            f"cannot read the folder {folder}: {error.strerror}", "name the spec's usage.dir"
        ) from error
    rows: Rows = {}
    damaged, currency = 0, ""
    for life in names:
        reader = LifeReader(folder, life, by_day=True)
        reader.read()
        damaged += reader.damaged + reader.fold.faults
        for key, usage in reader.fold.rows().items():
            rows[key] = rows.get(key, Usage()) + usage
        found, currency = currency, reader.fold.currency or currency
        if found not in ("", currency):
            raise SpecError(
                f"{folder} holds usage in {found} and in {currency}, which cannot be added",
                "keep one folder for each currency",
            )
    return UsageFound(dict(sorted(rows.items())), currency, damaged)


def _records(data: bytes) -> Iterator[Record]:
    for line in data.splitlines():
        with suppress(msgspec.DecodeError):
            yield _record.decode(line)


def _read_totals(folder: Path, life: str) -> _Totals:
    path = folder / f"{life}{_TOTALS}"
    try:
        return _totals.decode(path.read_bytes())
    except FileNotFoundError:
        return _Totals(life, 0, [])
    except (OSError, msgspec.DecodeError) as error:
        raise SpecError(
            f"{path} holds no totals: {error}", "bring it back from a copy, or remove it"
        ) from error


def _rows(totals: _Totals) -> Rows:
    return {
        UsageKey(row.day, row.tenant, row.model): Usage(row.requests, 0, row.tokens, row.cost_pico)
        for row in totals.rows
    }
