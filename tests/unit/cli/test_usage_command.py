"""`r1-serve usage`, over journals as gateways write them."""

import json
from pathlib import Path

import pytest

from orchestrator.admission import DAY_S, PICO, Ended, Opened
from orchestrator.cli import main
from orchestrator.core import TokenCounts
from orchestrator.gateway.journal import Journal
from orchestrator.spec import UsageSpec

DAY = 20_000  # 2024-10-04


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    journal = Journal(UsageSpec(str(tmp_path)), "one")
    for number, (tenant, day) in enumerate([("ada", 0), ("ada", 1), ("bob", 1), ("bob", 1)]):
        at_s = (DAY + day) * DAY_S
        tokens = TokenCounts(1_000, 64, 500 * (number + 1), 20)
        journal.put(Opened(str(number), tenant, "R1", at_s))
        if number < 3:
            journal.put(
                Ended(str(number), tenant, "R1", at_s, "stop", tokens, PICO // 8 * (number + 1))
            )
    journal.close()
    return tmp_path


def test_a_table_has_a_line_for_each_day_tenant_and_model_and_the_total(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["usage", str(folder)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        [
            *[
                "day",
                "tenant",
                "model",
                "requests",
                "open",
                "input",
                "cached",
                "thinking",
                "answer",
            ],
            "USD",
        ],
        ["2024-10-04", "ada", "R1", "1", "0", "1,000", "64", "500", "20", "0.125"],
        ["2024-10-05", "ada", "R1", "1", "0", "1,000", "64", "1,000", "20", "0.25"],
        ["2024-10-05", "bob", "R1", "2", "1", "1,000", "64", "1,500", "20", "0.375"],
        ["total", "4", "1", "3,000", "192", "3,000", "60", "0.75"],
    ]


def test_json_has_the_same_and_days_and_tenants_can_be_chosen(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--tenant", "ada", "--since", "2024-10-05", "--until", "2024-10-05"]
    assert main(["usage", str(folder), "--json", *chosen]) == 0
    numbers = {
        "requests": 1,
        "open": 0,
        "input": 1_000,
        "cached_input": 64,
        "thinking": 1_000,
        "answer": 20,
        "money": "0.25",
    }
    assert json.loads(capsys.readouterr().out) == {
        "currency": "USD",
        "damaged_records": 0,
        "usage": [{"day": "2024-10-05", "tenant": "ada", "model": "R1"} | numbers],
        "total": numbers,
    }


def test_damage_is_told_and_the_rest_counts(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (folder / "one-000001.jsonl").open("ab") as file:
        file.write(b"{}\n")
    assert main(["usage", str(folder), "--json"]) == 0
    said = capsys.readouterr()
    assert "1 damaged records were left out" in said.err
    assert json.loads(said.out)["total"]["requests"] == 4


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--since", "2024-10-05", "--until", "2024-10-04"], "--since is after --until"),
        ([], "cannot read the folder"),
    ],
)
def test_what_makes_no_sense_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main(["usage", str(tmp_path / "missing"), *more]) == 1
    assert said in capsys.readouterr().err


def test_a_day_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["usage", str(tmp_path), "--since", "yesterday"])
