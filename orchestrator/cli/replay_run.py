"""Decides again what a log says was decided, and counts what differs."""

import gzip
import json
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from orchestrator import admission
from orchestrator.core import SpecError
from orchestrator.gateway.decision_log import (
    admission_input,
    admission_limits,
    replay,
    replay_path,
    replay_thinking,
)
from orchestrator.routing import Choice

_SHOWN = 10  # differences that are printed
_CURE = "give a decision log: of a gateway, or of `r1-serve simulate --log`"


def replay_log(path: Path) -> int:
    """0 if every decision is made again as it was, 1 if not. Prints what differs."""
    found = _Replay()
    number = 0
    try:
        for number, text in enumerate(_lines(path), 1):
            try:
                line = json.loads(text)
                if not isinstance(line, dict):
                    raise TypeError("not an object")
                found.take(number, line)
            except (ValueError, TypeError, msgspec.ValidationError) as error:
                raise SpecError(f"{path}, line {number}: {error}", _CURE) from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise SpecError(f"cannot read {path} behind line {number}: {why}", _CURE) from error
    return found.report(path)


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rt") if packed else path.open("rt", encoding="utf-8") as file:
        yield from file


class _Replay:
    """All gateways and models of one log."""

    def __init__(self) -> None:
        self._same: Counter[str] = Counter()
        self._differs: list[str] = []
        self._left_out: Counter[str] = Counter()
        self._queues: dict[tuple[str, str], admission.Admission] = {}
        self._expected: dict[tuple[str, str], list[admission.Decision]] = {}

    def take(self, number: int, line: dict[str, object]) -> None:
        """One line; those that are no decisions are left out."""
        event = str(line.get("event"))
        match event:
            case "routing":
                choice = replay(line)
                rank_id = choice.rank_id if isinstance(choice, Choice) else None
                self._compare(number, event, line, rank_id, choice.reason)
            case "path" if "decoder" in line:
                chosen = replay_path(line)
                self._compare(number, event, line, chosen.path, chosen.reason)
            case "thinking":
                budget = replay_thinking(line)
                if budget is None:
                    self._compare(number, event, line, None, "")
                else:
                    self._compare(number, event, line, budget.soft_tokens, budget.reason)
            case "admission_opened" | "admission_input" | "admission":
                self._admission(number, event, line)
            case _:
                self._left_out[event] += 1

    def _admission(self, number: int, event: str, line: dict[str, object]) -> None:
        key = str(line.get("source")), str(line.get("model"))
        if event == "admission_opened":
            self._queues[key] = admission.Admission(admission_limits(line))
            self._expected[key] = []
        elif key not in self._queues:
            self._left_out["admission without its beginning"] += event == "admission"
        elif event == "admission_input":
            came, now = admission_input(line)
            self._missing(number, key)
            self._expected[key] = self._queues[key].on(came, now)
        elif not self._expected[key]:
            self._differ(number, f"{line.get('decision')} of {line.get('request_id')}, now nothing")
        else:
            decision = self._expected[key].pop(0)
            name = f"{decision.word} {decision.request_id}"
            said = f"{line.get('decision')} {line.get('request_id')}"
            if name == said and decision.reason == line.get("reason"):
                self._same["admission"] += 1
            else:
                self._differ(number, f"{said}, {line.get('reason')}; now {name}, {decision.reason}")

    def _missing(self, number: int, key: tuple[str, str]) -> None:
        for decision in self._expected[key]:
            self._differ(number, f"nothing; now {decision.word} {decision.request_id}")

    def _compare(
        self, number: int, event: str, line: dict[str, object], decision: object, reason: str
    ) -> None:
        if decision == line.get("decision") and reason == line.get("reason"):
            self._same[event] += 1
        else:
            was = f"{line.get('decision')}, {line.get('reason')}"
            self._differ(number, f"{event} was {was}; now {decision}, {reason}")

    def _differ(self, number: int, text: str) -> None:
        self._differs.append(f"line {number}: {text}")

    def report(self, path: Path) -> int:
        """Prints the outcome."""
        for text in self._differs[:_SHOWN]:
            print(text, file=sys.stderr)
        counts = ", ".join(f"{count:,} {event}" for event, count in sorted(self._same.items()))
        print(f"{path}: the same again: {counts or 'nothing'}; {len(self._differs):,} differ")
        for event, count in sorted(self._left_out.items()):
            if count:
                print(f"  left out: {count:,} {event}")
        if not self._same and not self._differs:
            raise SpecError(f"{path} holds no decision with its inputs", _CURE)
        return 1 if self._differs else 0
