"""Series as a Prometheus would have scraped them from a simulated fleet, for promtool."""

import re
import subprocess
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from typing_extensions import override

from orchestrator.sim.call import Call
from orchestrator.sim.sources import OpenLoop
from orchestrator.sim.world import Scenario, World
from orchestrator.telemetry.alerts import ALERTS
from orchestrator.telemetry.promql import reads
from orchestrator.telemetry.rule_files import rule_files
from orchestrator.telemetry.rules import recording_groups

SCRAPE_S = 15
EVALUATE_S = 30
_SAMPLE = re.compile(rb"^(\w+)(\{[^}]*\})? (\S+)$")
_MISSING = "_"


def _needed() -> frozenset[str]:
    """The names that rules and alerts read."""
    queries = [rule.query for group in recording_groups() for rule in group.rules]
    queries += [alert.query for alert in ALERTS]
    return frozenset().union(*(reads(query).series for query in queries))


NEEDED = _needed()


@dataclass
class Recording:
    """Values by series, one for each scrape; those that were not there then are missing."""

    scrapes: int = 0
    values: dict[str, list[str]] = field(default_factory=dict)

    def scraped(self, texts: Sequence[tuple[str, bytes]]) -> None:
        """One scrape of several processes: each one's name, empty for the host's own, and its
        exposition.
        """
        for process, text in texts:
            for line in text.splitlines():
                found = _SAMPLE.match(line)
                if found is not None and found[1].decode() in NEEDED:
                    self._add(process, found[1].decode(), found[2], found[3].decode())
        self.scrapes += 1
        for values in self.values.values():
            values.extend([_MISSING] * (self.scrapes - len(values)))

    def _add(self, process: str, name: str, labels: bytes | None, value: str) -> None:
        inside = [] if labels is None else [labels.decode()[1:-1]]
        whose = [f'process="{process}"'] if process else []
        series = f"{name}{{{','.join(whose + inside)}}}"
        values = self.values.setdefault(series, [])
        values.extend([_MISSING] * (self.scrapes - len(values)))
        values.append(value)


class Scraped(World):
    """A world whose gateways are scraped."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.recording = Recording()
        self.agenda.at(SCRAPE_S, self._scrape)

    def _scrape(self, now: float) -> None:
        self.recording.scraped(
            [
                (gateway.gateway_id, gateway.metrics.exposition())
                for gateway in self.gateways
                if not gateway.dead
            ]
        )
        self.agenda.at(now + SCRAPE_S, self._scrape)

    @override
    def _at_rest(self) -> None:
        pass  # what is looked at here is what was, and not how it ends


def played(scenario: Scenario, calls: Iterator[Call]) -> Recording:
    """The world run with these calls."""
    world = Scraped(scenario)
    world.run(OpenLoop(calls))
    return world.recording


def promtool_test(
    folder: Path, recording: Recording, fires: Collection[str], may: Collection[str] = ()
) -> str:
    """What promtool has against it: every alert of `fires` must have fired by the end, and none
    else but those of `may`. Empty: nothing.
    """
    for name, text in rule_files().items():
        (folder / name).write_text(text)
    span_s = recording.scrapes * SCRAPE_S
    checks = []
    for alert in ALERTS:
        if alert.name in may:
            continue
        fired = f'ALERTS{{alertname="{alert.name}",alertstate="firing"}}'
        checks.append(
            {
                "expr": f"sgn(count(count_over_time({fired}[{span_s}s])))",
                "eval_time": f"{span_s}s",
                "exp_samples": [{"labels": "{}", "value": 1}] if alert.name in fires else [],
            }
        )
    series = [
        {"series": name, "values": " ".join(values)} for name, values in recording.values.items()
    ]
    tree = {
        "rule_files": sorted(rule_files()),
        "evaluation_interval": f"{EVALUATE_S}s",
        "tests": [{"interval": f"{SCRAPE_S}s", "input_series": series, "promql_expr_test": checks}],
    }
    path = folder / "test.yaml"
    path.write_text(yaml.dump(tree, Dumper=yaml.CSafeDumper, width=1 << 30))
    ran = subprocess.run(
        ["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False
    )
    return "" if ran.returncode == 0 else ran.stdout + ran.stderr
