"""Rules as the YAML that Prometheus and the chart's PrometheusRule take."""

from collections.abc import Mapping

import yaml

from orchestrator.telemetry.alerts import FEATURES, GPUS, MONEY_AND_BOOKS, USERS, Alert
from orchestrator.telemetry.rules import recording_groups

_HEAD = "# Written by `make telemetry` from orchestrator/telemetry; changes here are lost.\n"


def rule_files() -> Mapping[str, str]:
    """Each file's text, by its name."""
    recording: list[dict[str, object]] = [
        {
            "name": group.name,
            "interval": "15s",
            "rules": [{"record": rule.name, "expr": rule.query} for rule in group.rules],
        }
        for group in recording_groups()
    ]
    alerting: list[dict[str, object]] = [
        {"name": name, "rules": [_alert(alert) for alert in alerts]}
        for name, alerts in (
            ("r1-users", USERS),
            ("r1-features", FEATURES),
            ("r1-gpu-faults", GPUS),
            ("r1-money-and-books", MONEY_AND_BOOKS),
        )
    ]
    return {"recording.yaml": _text(recording), "alerts.yaml": _text(alerting)}


def _alert(alert: Alert) -> dict[str, object]:
    return {
        "alert": alert.name,
        "expr": alert.query,
        "for": f"{alert.for_s}s",
        "labels": {"severity": alert.severity.value},
        "annotations": {"summary": alert.summary, "runbook": alert.runbook},
    }


def _text(groups: list[dict[str, object]]) -> str:
    return _HEAD + yaml.safe_dump({"groups": groups}, sort_keys=False, width=10_000)
