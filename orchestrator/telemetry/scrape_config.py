"""Prometheus' own configuration for a fleet on one machine."""

from collections.abc import Sequence
from pathlib import Path

import yaml

SCRAPE_S = 5  # of a fleet that is looked at, on a laptop; the chart's monitors take longer


def prometheus_config(telemetry: str, ray_targets: Path | None, rule_files: Sequence[Path]) -> str:
    """Scrapes the telemetry process at host:port, and what Ray lists in its file."""
    jobs: list[dict[str, object]] = [
        {
            "job_name": "r1-serve",
            "honor_labels": True,  # `process` says whose a sample is
            "static_configs": [{"targets": [telemetry]}],
        }
    ]
    if ray_targets is not None:
        jobs.append({"job_name": "ray", "file_sd_configs": [{"files": [str(ray_targets)]}]})
    tree = {
        "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
        "rule_files": [str(path) for path in rule_files],
        "scrape_configs": jobs,
    }
    return yaml.safe_dump(tree, sort_keys=False)
