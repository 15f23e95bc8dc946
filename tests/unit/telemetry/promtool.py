"""Runs promtool's unit tests on our rule files."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from orchestrator.telemetry.rule_files import rule_files


def promtool() -> str:
    """It belongs to Prometheus; deploy/bootstrap.sh installs that."""
    found = shutil.which("promtool")
    if found is None:
        pytest.fail("there is no promtool: deploy/bootstrap.sh installs Debian's prometheus")
    return found


def series(name: str, values: str, **labels: str) -> Mapping[str, str]:
    """One input series; `values` in promtool's notation."""
    inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{name}{{{inside}}}", "values": values}


def check(promql: str, *samples: tuple[str, float], at: str = "10m") -> Mapping[str, object]:
    """What a query must give: labels and value of each sample."""
    expected = [{"labels": labels, "value": value} for labels, value in samples]
    return {"expr": promql, "eval_time": at, "exp_samples": expected}


def case(
    inputs: Sequence[Mapping[str, str]], checks: Sequence[Mapping[str, object]]
) -> Mapping[str, object]:
    """One test on series that are scraped each 15 s."""
    return {
        "interval": "15s",
        "input_series": list(inputs),
        "promql_expr_test": list(checks),
    }


def run(folder: Path, cases: Sequence[Mapping[str, object]]) -> str:
    """What promtool has against it; empty: nothing."""
    for name, text in rule_files().items():
        (folder / name).write_text(text)
    tree = {
        "rule_files": sorted(rule_files()),
        "evaluation_interval": "1m",
        "tests": list(cases),
    }
    path = folder / "test.yaml"
    path.write_text(yaml.safe_dump(tree, width=1 << 30))
    ran = subprocess.run(
        [promtool(), "test", "rules", str(path)], capture_output=True, text=True, check=False
    )
    return "" if ran.returncode == 0 else ran.stdout + ran.stderr
