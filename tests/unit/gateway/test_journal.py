"""The journal of usage: what is folded is what was put, wherever a crash cut it off."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.admission import (
    Began,
    Charge,
    Ended,
    Fold,
    Opened,
    OpenRequest,
    Progress,
    Record,
    Rows,
    UsageKey,
)
from orchestrator.core import SpecError, TokenCounts
from orchestrator.gateway.journal import Journal, LifeReader, read_usage
from orchestrator.spec import Currency, UsageSpec

SMALL = 600  # bytes: a handful of records


def ended(name: str, tokens: int = 7) -> Ended:
    return Ended(name, "ada", "R1", 0, "stop", TokenCounts(tokens, 0, 1, 2), 10 * tokens)


def some(number: int) -> list[Record]:
    """Three requests that overlap, one of which stays open."""
    names = [f"{number}{part}" for part in "abc"]
    return [
        *(Opened(name, "ada", "R1", 0) for name in names),
        Progress(1, (Charge(names[0], TokenCounts(3), 5), Charge(names[2], TokenCounts(4), 6))),
        ended(names[0]),
        ended(names[1], number),
    ]


@contextmanager
def opened(spec: UsageSpec, life: str = "life") -> Iterator[Journal]:
    journal = Journal(spec, life)
    try:
        yield journal
    finally:
        journal.close()


def read(folder: Path, life: str = "life") -> LifeReader:
    reader = LifeReader(folder, life, by_day=True)
    reader.read()
    return reader


def write(journal: Journal, records: list[Record], still: Fold) -> None:
    """Rotating as a gateway does."""
    for record in records:
        journal.put(record)
        still.on(record)
        if journal.full:
            journal.rotate(still.open)


@given(st.integers(1, 12), st.integers(0, 10**9))
def test_whatever_byte_a_crash_cuts_it_at_what_was_whole_before_counts(
    rounds: int, where: int
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        records = [record for number in range(rounds) for record in some(number)]
        with opened(UsageSpec(name)) as journal:
            for record in records:
                journal.put(record)
        path = folder / "life-000001.jsonl"
        data = path.read_bytes()
        cut = where % (len(data) + 1)
        path.write_bytes(data[:cut])
        whole = data[:cut].count(b"\n")
        expected = Fold(by_day=True)
        for record in [Began("life", 1, "USD"), *records][:whole]:
            expected.on(record)
        found = read(folder)
        assert found.fold.rows() == expected.rows()
        assert found.fold.open == expected.open
        assert (found.damaged, found.fold.faults) == (0, 0)


@settings(max_examples=12)  # the disk is slow
@given(st.integers(1, 12), st.integers(2, 3), st.booleans())
def test_segments_and_what_they_add_up_to_are_the_same_as_one_long_one(
    rounds: int, kept: int, adds_up: bool
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        expected = Fold(by_day=True)
        with opened(UsageSpec(name, segment_bytes=SMALL, segments_kept=kept)) as journal:
            for number in range(rounds):
                write(journal, some(number), expected)
                if adds_up:
                    journal.add_up()
            found = read(folder).fold
            assert found.rows() == expected.rows()
            assert found.open == expected.open
        files = sorted(path.name for path in folder.iterdir())
        assert adds_up is False or len(files) <= kept + 2  # the last one and the totals
        assert not [name for name in files if name.endswith(".part")]


def test_a_reader_goes_on_where_it_stopped_and_over_what_was_removed_meanwhile(
    tmp_path: Path,
) -> None:
    expected = Fold(by_day=True)
    spec = UsageSpec(str(tmp_path), segment_bytes=SMALL, segments_kept=2)
    with opened(spec) as journal:
        write(journal, some(0), expected)
        reader = read(tmp_path)
        assert reader.read() is False
        write(journal, some(1), expected)
        assert reader.read() is True
        assert reader.fold.rows() == expected.rows()
        for number in range(2, 30):
            write(journal, some(number), expected)
            journal.add_up()
        assert reader.read() is True
        assert reader.fold.rows() == expected.rows()


def test_half_a_record_waits_for_its_other_half(tmp_path: Path) -> None:
    with opened(UsageSpec(str(tmp_path))) as journal:
        journal.put(Opened("a", "ada", "R1", 0))
        path = tmp_path / "life-000001.jsonl"
        whole = path.read_bytes()
        path.write_bytes(whole[:-9])
        reader = read(tmp_path)
        assert not reader.fold.open
        path.write_bytes(whole)
        assert reader.read() is True
        assert reader.fold.open == (OpenRequest("a", "ada", "R1", 0),)


def test_what_open_requests_had_used_goes_on_in_the_next_segment(tmp_path: Path) -> None:
    spec = UsageSpec(str(tmp_path), segment_bytes=1)
    with opened(spec) as journal:
        journal.put(Opened("a", "ada", "R1", 0))
        journal.rotate((OpenRequest("a", "ada", "R1", 0, TokenCounts(3), 5),))
        journal.add_up()
        assert read(tmp_path).fold.rows()[UsageKey(0, "ada", "R1")].cost_pico == 5
        journal.put(ended("a", 9))
    assert read(tmp_path).fold.rows()[UsageKey(0, "ada", "R1")].cost_pico == 90


def test_a_record_that_finds_no_disk_is_written_when_there_is_one_again(tmp_path: Path) -> None:
    """/dev/full fails as a full disk does."""
    with opened(UsageSpec(str(tmp_path))) as journal:
        full, file = os.open("/dev/full", os.O_WRONLY), journal._file
        journal._file = full
        journal.put(Opened("a", "ada", "R1", 0))
        assert "No space left" in journal.fault
        assert not journal.full
        journal._file = file
        os.close(full)
        journal.put(ended("a"))
        assert (journal.fault, journal.lost) == ("", 0)
    assert read(tmp_path).fold.rows()[UsageKey(0, "ada", "R1")].requests == 1


def test_lives_are_added_up_and_damage_is_counted(tmp_path: Path) -> None:
    total: Rows = {}
    for life in ("one-aa", "two-bb"):
        with opened(UsageSpec(str(tmp_path)), life) as journal:
            for record in some(1):
                journal.put(record)
        total |= read(tmp_path, life).fold.rows()
    with (tmp_path / "two-bb-000001.jsonl").open("ab") as file:
        file.write(b"\0\0\0\n")
    found = read_usage(tmp_path)
    key = UsageKey(0, "ada", "R1")
    assert found.rows[key].requests == 2 * total[key].requests
    assert (found.currency, found.damaged) == ("USD", 1)


def test_a_folder_of_two_currencies_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot read the folder"):
        read_usage(tmp_path / "missing")
    for currency in Currency:
        with opened(UsageSpec(str(tmp_path), currency), currency):
            pass
    with pytest.raises(SpecError, match="USD") as caught:
        read_usage(tmp_path)
    assert "one folder for each" in caught.value.cure


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpecError, match=r"usage\.dir: cannot write in"):
        Journal(UsageSpec(str(tmp_path / "file" / "below")), "life")
