"""Lines of the logs."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from orchestrator.telemetry import log as log_module
from orchestrator.telemetry import open_log


def test_a_line_is_an_object_with_its_time_its_source_and_its_level(tmp_path: Path) -> None:
    log = open_log("gateway-1", tmp_path / "deep" / "log")
    log.info("up", ranks=["a/0"], path=Path("x"))
    log.warning("down", text='"\n')
    first, second = map(json.loads, (tmp_path / "deep" / "log").read_text().splitlines())
    assert datetime.fromisoformat(first.pop("time")).tzinfo is not None
    source = {"event": "up", "source": "gateway-1", "level": "INFO"}
    assert first == source | {"ranks": ["a/0"], "path": "x"}
    assert (second["level"], second["text"]) == ("WARNING", '"\n')
    log.close()


def test_files_are_rotated_and_three_old_ones_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "_FILE_BYTES", 1000)
    for _ in range(2):  # what an earlier process wrote counts too
        log = open_log("gateway-1", tmp_path / "log")
        for number in range(50):
            log.info("step", number=number)
        log.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["log", "log.1", "log.2", "log.3"]
    assert all(file.stat().st_size <= 1000 for file in files)
    assert json.loads(files[0].read_text().splitlines()[-1])["number"] == 49


def test_without_a_file_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    open_log("gateway-1").error("lost", rank_id="a/0")
    assert json.loads(capsys.readouterr().err)["rank_id"] == "a/0"
