"""`make telemetry`: the chart's rules and dashboards, and docs/metrics.md."""

import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.telemetry.metrics_page import page
from orchestrator.telemetry.grafana import dashboards
from orchestrator.telemetry.rule_files import rule_files

CHART_FILES = Path("helm/r1-serve/files")


def written() -> Mapping[Path, str]:
    """What the files hold if they are current."""
    found = {CHART_FILES / "rules" / name: text for name, text in rule_files().items()}
    found |= {
        CHART_FILES / "dashboards" / f"{uid}.json": text for uid, text in dashboards().items()
    }
    found[Path("docs/metrics.md")] = page()
    return found


def main() -> int:
    """Writes them."""
    for path, text in written().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
