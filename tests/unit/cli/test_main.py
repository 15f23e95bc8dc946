"""The command line: arguments that make no sense, and errors with their cure."""

from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.gateway import read_keys
from orchestrator.gateway.keys import digest


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["up", "--nodes", "0"],
        ["up", "--nodes", "many"],
        ["up", "--engine", "steam"],
        ["up", "--port", "http"],
        ["up", "--port", "0"],
        ["up", "--port", "99999"],
        ["checkpoint"],
        ["key"],
        ["key", "ada"],
        ["checkpoint", "out", "--kind", "wise"],
    ],
)
def test_arguments_that_make_no_sense_exit_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: r1-serve" in capsys.readouterr().err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "up" in said
    assert "checkpoint" in said


def test_a_key_is_printed_once_and_its_hash_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys"
    for tenant in ("ada", "bob"):
        assert main(["key", tenant, "--file", str(path)]) == 0
    printed = capsys.readouterr().out.split()
    tenants = read_keys(path)
    assert [tenants[digest(key)] for key in printed] == ["ada", "bob"]
    assert path.stat().st_mode & 0o077 == 0
    assert main(["key", "a b", "--file", str(path)]) == 1
    assert main(["key", "ada", "--file", str(tmp_path)]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_an_error_is_one_cause_and_one_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in the process that `up` keeps; the outer one only passes its words and code on."""
    spec = tmp_path / "none.yaml"
    assert main(["up", "--folder", str(tmp_path), "--began-at", "0", "--spec", str(spec)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("r1-serve: cannot read the spec")
    assert "\n      do: name a readable YAML file" in said
    assert said.count("\n") == 2


def test_engine_beside_spec_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--folder", str(tmp_path), "--began-at", "0", "--spec", "x", "--engine", "fake"]
    assert main(["up", *arguments]) == 1
    assert "set engine.kind in the spec" in capsys.readouterr().err
