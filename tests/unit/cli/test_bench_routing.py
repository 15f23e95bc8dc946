"""`r1-serve bench routing` as an operator types it."""

import json
from pathlib import Path

import pytest

from orchestrator.cli import main


def trace(path: Path, lines: int = 30) -> Path:
    rows = [
        {
            "timestamp": 100 * number,
            "input_length": 1024,
            "output_length": 20,
            "hash_ids": [0, number % 5],
        }
        for number in range(lines)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def bench(*arguments: object) -> int:
    return main(["bench", "routing", *map(str, arguments)])


def test_prints_each_policy_beside_the_oracle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = trace(tmp_path / "t.jsonl")
    assert bench("--trace", file, "--ranks", 2, "--policy", "kv", "--policy", "round_robin") == 0
    head, title, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("t.jsonl: 30 requests")
    assert "TTFT mean ms" in title
    assert [row.split()[0] for row in rows] == ["oracle", "kv", "round_robin"]
    assert rows[0].count("(1.000)") == 4


def test_the_same_command_prints_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = trace(tmp_path / "t.jsonl")
    outs = []
    for _ in range(2):
        assert bench("--trace", file, "--policy", "random", "--event-loss", 0.5, "--seed", 4) == 0
        outs.append(capsys.readouterr().out)
    assert outs[0] == outs[1]


def test_a_bad_line_is_one_clear_message_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = trace(tmp_path / "t.jsonl", 3)
    file.write_text(file.read_text(encoding="utf-8") + "oops\n", encoding="utf-8")
    assert bench("--trace", file) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "line 4" in printed.err
    assert len(printed.err.splitlines()) == 2


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--ranks", "0"),
        ("--blocks", "-1"),
        ("--rate", "0"),
        ("--rate", "nan"),
        ("--event-loss", "1.5"),
        ("--event-delay-s", "-1"),
        ("--policy", "best"),
        ("--skip", "x"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    tmp_path: Path, flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        bench("--trace", trace(tmp_path / "t"), flag, value)
    assert raised.value.code == 2
    assert flag in capsys.readouterr().err
