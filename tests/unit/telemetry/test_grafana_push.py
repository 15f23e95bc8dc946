"""`dashboards push`, against what stands for a Grafana."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.telemetry.boards import BOARDS
from orchestrator.telemetry.grafana import FOLDER_UID
from tests.unit.telemetry.grafana_server import FakeGrafana, grafana

# The client leaves its connections to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGrafana]:
    with grafana() as state:
        monkeypatch.setenv("GRAFANA_TOKEN", state.token)
        yield state


def push(server: FakeGrafana, *more: str) -> int:
    return main(["dashboards", "push", "--grafana", server.url, *more])


def test_a_push_brings_every_board_into_a_folder_of_its_own(server: FakeGrafana) -> None:
    assert push(server, "--folder", "DeepSeek") == 0
    assert server.folders == {FOLDER_UID: "DeepSeek"}
    assert set(server.dashboards) == {board.uid for board in BOARDS}
    assert set(server.in_folder.values()) == {FOLDER_UID}


def test_a_second_push_writes_nothing(
    server: FakeGrafana, capsys: pytest.CaptureFixture[str]
) -> None:
    push(server)
    server.writes.clear()
    capsys.readouterr()
    assert push(server) == 0
    assert server.writes == []
    assert capsys.readouterr().out.count("nothing") == len(BOARDS)


def test_a_dry_run_says_what_would_change_and_writes_nothing(
    server: FakeGrafana, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(server, "--dry-run") == 0
    assert server.writes == []
    assert server.folders == {}
    assert capsys.readouterr().out.count("create") == len(BOARDS)


def test_only_what_somebody_has_changed_is_brought_back_and_the_diff_shows_it(
    server: FakeGrafana, capsys: pytest.CaptureFixture[str]
) -> None:
    push(server)
    server.writes.clear()
    server.dashboards["r1-gpus"]["title"] = "Mine"
    capsys.readouterr()
    assert push(server, "--diff") == 0
    out = capsys.readouterr().out
    assert out.count("update") == 1
    assert '- "title": "Mine"' in out
    assert server.writes == ["/api/dashboards/db"]
    assert server.dashboards["r1-gpus"]["title"] == "R1 · GPU efficiency"


def test_a_board_in_another_folder_is_brought_back(server: FakeGrafana) -> None:
    push(server)
    server.in_folder["r1-gpus"] = "elsewhere"
    push(server)
    assert server.in_folder["r1-gpus"] == FOLDER_UID


def test_a_token_that_is_refused_is_one_message(
    server: FakeGrafana, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRAFANA_TOKEN", "wrong")
    assert push(server) == 1
    said = capsys.readouterr().err
    assert "GRAFANA_TOKEN" in said
    assert "Traceback" not in said


def test_a_grafana_that_is_not_there_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRAFANA_TOKEN", "any")
    assert main(["dashboards", "push", "--grafana", "http://127.0.0.1:1"]) == 1
    assert "http://127.0.0.1:1" in capsys.readouterr().err


def test_the_boards_can_be_written_into_a_folder(tmp_path: Path) -> None:
    assert main(["dashboards", "write", str(tmp_path / "boards")]) == 0
    for board in BOARDS:
        made = json.loads((tmp_path / "boards" / f"{board.uid}.json").read_text())
        assert [panel["title"] for panel in made["panels"]] == [p.title for p in board.panels]
        for panel, made_panel in zip(board.panels, made["panels"], strict=True):
            assert panel.absent in made_panel["fieldConfig"]["defaults"]["noValue"]
