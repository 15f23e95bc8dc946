"""Trace files, good and bad."""

import gzip
import json
from pathlib import Path

import pytest

from orchestrator.core import SpecError
from orchestrator.sim import prompt_ids
from orchestrator.sim.chance import Chance
from orchestrator.workload import TraceRequest, open_trace


def read(path: Path) -> list[TraceRequest]:
    return list(open_trace(path, Chance(1)))


LINE: dict[str, object] = {
    "timestamp": 1500,
    "input_length": 700,
    "output_length": 5,
    "hash_ids": [3, 9],
}


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


def test_reads_lines_plain_and_gzipped(tmp_path: Path) -> None:
    plain = write(tmp_path / "t.jsonl", LINE, LINE | {"timestamp": 2500.5, "client": 7})
    packed = tmp_path / "t.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    found = read(plain)
    assert found == read(packed)
    assert [request.at_s for request in found] == [1.5, 2.5005]
    assert (found[0].input_tokens, found[0].output_tokens) == (700, 5)


def test_equal_hash_ids_become_equal_runs(tmp_path: Path) -> None:
    (request,) = read(write(tmp_path / "t", LINE))
    ids = prompt_ids(request, 0.25)
    assert len(ids) == 175
    swapped = prompt_ids(request._replace(hash_ids=(9, 3)), 0.25)
    assert swapped[:47] == ids[128:]
    assert swapped[128:] == ids[:47]
    assert swapped[:47] != ids[:47]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("{", "line 2"),
        ("[]", "line 2"),
        ('{"timestamp": 1}', "input_length"),
        (json.dumps(LINE | {"input_length": "many"}), "many"),
        (json.dumps(LINE | {"output_length": -1}), "a negative length"),
        (json.dumps(LINE | {"hash_ids": [1]}), "1 hash ids for 700 tokens"),
        (json.dumps(LINE | {"hash_ids": [1, "x"]}), "hash_ids"),
        (json.dumps(LINE | {"timestamp": -1}), "no instant"),
        ("\\xff", "line 2"),
        ("[" * 100_000, "line 2"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, cause: str) -> None:
    path = tmp_path / "t"
    path.write_text(f"{json.dumps(LINE)}\n{line}\n{json.dumps(LINE)}\n", encoding="utf-8")
    with pytest.raises(SpecError, match=cause) as raised:
        read(path)
    assert "line 2" in raised.value.cause


@pytest.mark.parametrize("content", [b"", b"\x1f\x8bjunk", b"\x1f\x8b\x08\x00"])
def test_a_file_that_is_no_trace_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=path.name):
        read(path)
    with pytest.raises(SpecError):
        read(tmp_path / "missing")


def test_a_truncated_gzip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t"
    packed = gzip.compress((json.dumps(LINE) + "\n").encode() * 2000)
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(SpecError, match="cannot read"):
        read(path)
