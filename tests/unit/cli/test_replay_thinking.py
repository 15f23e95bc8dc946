"""`r1-serve replay` decides the budgets of thoughts again."""

from pathlib import Path

import msgspec
import pytest

from orchestrator.admission import ThinkingCase, thinking_budget
from orchestrator.cli import main
from orchestrator.spec import LoadLevel, ThinkingSpec

LIMITS = ThinkingSpec(levels=(LoadLevel(0.5, 700),))


def test_a_budget_is_decided_again_from_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = ThinkingCase(4_096, asked_tokens=16_384, load=0.75)
    budget = thinking_budget(LIMITS, case)
    assert budget is not None
    line = {
        "event": "thinking",
        "source": "g",
        "decision": budget.soft_tokens,
        "reason": budget.reason,
        "case": case,
        "limits": LIMITS,
    }
    path = tmp_path / "decisions.jsonl"
    path.write_bytes(msgspec.json.encode(line) + b"\n")
    assert main(["replay", str(path)]) == 0
    assert "1 thinking" in capsys.readouterr().out
    path.write_bytes(msgspec.json.encode(line | {"decision": 701}) + b"\n")
    assert main(["replay", str(path)]) == 1
    assert "thinking was 701, load; now 700, load" in capsys.readouterr().err
