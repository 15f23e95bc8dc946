"""`r1-serve drill` on a running fleet of fake engines, as an operator types it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.engines.tiny_checkpoint import write_tokenizer
from tests.live.local_stack import LocalStack, command, local_stack, until

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]

SPEC = """
models:
  - path: {path}
    name: DeepSeek-R1
    max_model_len: 2048
    engine: {{kind: fake, device: cpu, fake_step_s: 0.05}}
    pools:
      - {{role: prefill}}
      - {{role: decode, replicas: 3}}
gateway: {{host: 127.0.0.1}}
fleet: {{health_period_s: 1, start_attempts: 1, stuck_after_s: 60, drain_s: 60}}
local: {{nodes: 4}}
"""
WHOLE = {"prefill": 1, "decode": 3}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    folder = tmp_path_factory.mktemp("drills")
    write_tokenizer(folder / "tokenizer")
    spec = folder / "spec.yaml"
    spec.write_text(SPEC.format(path=folder / "tokenizer"))
    with local_stack(folder, "--spec", str(spec)) as stack:
        yield stack


def drill(fleet: LocalStack, name: str, *more: str) -> tuple[int, str, str]:
    until(lambda: fleet.ranks() == WHOLE, 120.0)
    report = Path(fleet.log_dir) / f"{name}.html"
    words = ["drill", name, "--url", fleet.url, "--streams", "4", "--report", str(report)]
    words += ["--before", "4", "--after", "5", "--lasts", "5", *more]
    told = subprocess.run(command(*words), capture_output=True, text=True, timeout=400, check=False)
    page = report.read_text() if report.exists() else ""
    return told.returncode, told.stdout + told.stderr, page


@pytest.mark.parametrize(
    "name",
    [
        "kill-rank",
        "head-restart",
        "kill-gang",  # the new head knows what the old one knew
        "kill-gateway",
        "overload",
        "drain-under-load",
        "cut-transfer",
        "poison",
    ],
)
def test_a_drill_passes_and_leaves_its_report(fleet: LocalStack, name: str) -> None:
    code, said, page = drill(fleet, name)
    assert code == 0, said
    assert f"Drill {name}: passed" in page


def test_a_drill_without_a_target_says_so_and_names_the_simulator(fleet: LocalStack) -> None:
    code, said, page = drill(fleet, "drop-kv-events")  # fake engines publish none
    assert code == 1
    assert "has no target" in said
    assert "--simulate" in said
    assert not page
