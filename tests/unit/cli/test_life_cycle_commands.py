"""Commands for what runs say what is wrong before they look for a cluster."""

from pathlib import Path

import pytest

from orchestrator.cli.main import main


def test_a_broken_spec_is_refused_with_its_key_and_nothing_is_applied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("models: [{path: x, pools: [{role: unified, replicsa: 2}]}]\n")
    assert main(["apply", str(spec)]) == 1
    said = capsys.readouterr().err
    assert f"{spec}: models.0.pools.0.replicsa: unknown key" in said
    assert "do: mend the keys named" in said


def test_a_wait_is_a_number_of_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["drain", "a-gang", "--wait", "-1"])
    assert "below 0" in capsys.readouterr().err


def test_maintenance_needs_the_client_of_kubernetes_and_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["maintain", "--namespace", "ray"]) == 1
    said = capsys.readouterr().err
    assert "r1-serve[kubernetes]" in said or "run it beside Ray's head" in said
