"""A drill on a fleet that runs on this machine: its processes are signalled, its gateways told."""

import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.core import R1ServeError
from orchestrator.fleet import drill as drills
from orchestrator.fleet.drill import Disturbance, Drill, Limits, Phase, Seen, Tally
from orchestrator.runtime import blows
from orchestrator.runtime.drill_client import Asker, End, Outcome, Target, ranks
from orchestrator.runtime.local_fleet import LocalFleet, LocalGang

TOLD = frozenset({Drill.DROP_KV_EVENTS, Drill.CUT_TRANSFER, Drill.POISON})  # wants a driver
_LASTS = frozenset({Drill.SLOW_RANK, Drill.OVERLOAD, Drill.DROP_KV_EVENTS, Drill.CUT_TRANSFER})
_LOOK_S = 0.5
_OVERLOAD = 4  # times the streams before


@dataclass(frozen=True, slots=True)
class Times:
    """How long each phase lasts, in seconds: a blow that heals lasts `lasts_s`."""

    before_s: float = 15.0
    lasts_s: float = 15.0
    after_s: float = 15.0


@dataclass(slots=True)
class Live:
    """One drill under way."""

    target: Target
    fleet: LocalFleet | None  # None: only its API is there
    drill: Drill
    times: Times
    limits: Limits
    keeps: Callable[[End], bool]
    phases: dict[Phase, Tally] = field(default_factory=lambda: {each: Tally() for each in Phase})
    causes: Counter[str] = field(default_factory=Counter)
    ends: list[End] = field(default_factory=list)  # in the order of their ends
    notes: list[tuple[float, str]] = field(default_factory=list)
    struck: str = ""
    struck_at: float = float("inf")
    back_at: float | None = None
    aborted: bool = False
    held: int = 0
    poisoned: int = 0
    deaths: int = 0
    began_at: float = field(default_factory=time.monotonic)
    _last: "deque[bool]" = field(default_factory=deque)
    _askers: list[Asker] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hold(self, streams: int) -> Seen:
        """All of it, so many streams at a time; at most as long as the limits say."""
        self._last = deque(maxlen=2 * self.limits.burn_requests)
        before = self._shape()
        self._more(streams)
        try:
            self._wait(self.times.before_s)
            self.phases[Phase.BEFORE].lasts_s = self.times.before_s
            self.struck_at = self._now()
            heal = self._strike(streams)
            try:
                self._await_back(before, streams)
            finally:
                heal()
            if self.back_at is not None and not self.aborted:
                self._wait(self.times.after_s)
                self.phases[Phase.AFTER].lasts_s = self._now() - self.back_at
        finally:
            for asker in self._askers:
                asker.stop()
            for asker in self._askers:
                asker.join(timeout=self.limits.back_s)
        back_s = None if self.back_at is None else self.back_at - self.struck_at
        return Seen(
            self.drill,
            self.struck,
            self.phases,
            back_s,
            self.poisoned,
            self.deaths,
            self.aborted,
            self.held,
        )

    def _now(self) -> float:
        return time.monotonic() - self.began_at

    def _shape(self) -> tuple[dict[str, int], int, int]:
        if self.fleet is None:
            return ranks(self.target.url), 0, 0
        return ranks(self.target.url), len(self.fleet.gateways()), len(self.fleet.heads())

    def _more(self, streams: int) -> None:
        for _ in range(streams):
            asker = Asker(self.target, self._ended, self._now)
            self._askers.append(asker)
            asker.start()

    def _wait(self, lasts_s: float) -> None:
        until = self._now() + lasts_s
        while self._now() < until and not self.aborted:
            time.sleep(min(_LOOK_S, max(0.0, until - self._now())))

    def _ended(self, end: End) -> None:
        with self._lock:
            self.ends.append(end)
            tally = self.phases[self._phase(end)]
            kept = self.keeps(end)
            match end.outcome:
                case Outcome.FINISHED:
                    tally.kept += kept
                    tally.late += not kept
                case Outcome.SHED:
                    tally.shed += 1
                case Outcome.BROKEN:
                    tally.broken += 1
                case Outcome.FAILED:
                    tally.failed += 1
            if end.outcome is not Outcome.FINISHED:
                self.causes[f"{end.outcome}: {end.cause}"] += 1
            if end.outcome in (Outcome.FINISHED, Outcome.FAILED):
                self._last.append(end.outcome is Outcome.FINISHED and kept)
                if self.struck and drills.burns(self.limits, self._last):
                    self.aborted = True

    def _phase(self, end: End) -> Phase:
        if end.at < self.struck_at:
            return Phase.BEFORE
        after = self.back_at is not None and end.began_at >= self.back_at
        return Phase.AFTER if after else Phase.DURING

    def _await_back(self, before: tuple[dict[str, int], int, int], streams: int) -> None:
        least = self.struck_at + (self.times.lasts_s if self.drill in _LASTS else 2.0)
        until = self.struck_at + self.limits.back_s
        while self._now() < until and not self.aborted:
            time.sleep(_LOOK_S)
            if self._now() >= least and self._shape() == before:
                self.back_at = self._now()
                break
        self.phases[Phase.DURING].lasts_s = self._now() - self.struck_at
        for asker in self._askers[streams:]:
            asker.stop()

    # --- blows ---------------------------------------------------------------------------------

    def _strike(self, streams: int) -> Callable[[], None]:
        """Does it; what is returned undoes it."""
        if self.drill is Drill.OVERLOAD:
            self._more((_OVERLOAD - 1) * streams)
            self._told(f"{_OVERLOAD * streams} streams at a time instead of {streams}")
            return _nothing
        assert self.fleet is not None
        if self.drill in TOLD:
            return self._tell(self.fleet)
        return self._signal(self.fleet, self.fleet.gang())

    def _signal(self, fleet: LocalFleet, gang: LocalGang) -> Callable[[], None]:
        match self.drill:
            case Drill.KILL_RANK:
                blows.kill(gang.pids[-1:])
                self._told(f"process {gang.pids[-1]} of {gang.engine_id}")
            case Drill.KILL_GANG:
                blows.kill(gang.pids)
                self._told(f"{len(gang.pids)} processes of {gang.engine_id}")
            case Drill.KILL_GATEWAY:
                self.held = len([asker for asker in self._askers if asker.asking])
                pids = fleet.gateways()[:1]
                blows.kill(pids)
                self._told(f"gateway process {pids[0]}")
            case Drill.HEAD_RESTART:
                pids = fleet.heads()
                blows.kill(pids)
                self._told(f"process {pids[0]}, which keeps the cluster's tables")
            case Drill.SLOW_RANK:
                self._told(f"{gang.engine_id} stands still two thirds of the time")
                return blows.slow(gang.pids)
            case _:
                assert self.drill is Drill.DRAIN_UNDER_LOAD
                self._told(f"{gang.engine_id} is drained")
                blows.drain(gang.engine_id, fleet.address(), self.times.lasts_s)
        return _nothing

    def _tell(self, fleet: LocalFleet) -> Callable[[], None]:
        match self.drill:
            case Drill.POISON:
                return self._poison(fleet)
            case Drill.DROP_KV_EVENTS:
                self._disturb(Disturbance.KV_EVENTS, "the KV events of {} ranks get lost")
            case _:
                assert self.drill is Drill.CUT_TRANSFER
                self._disturb(Disturbance.TRANSFERS, "no KV of {} ranks gets to another")
        return _nothing

    def _disturb(self, what: Disturbance, told: str) -> None:
        concerned = blows.disturb(what, self.times.lasts_s)
        if not concerned:
            raise R1ServeError(
                f"{self.drill} has no target: no rank of this fleet does that",
                "hold it on a fleet whose ranks do, or in virtual time, with --simulate PLAN",
            )
        self._told(told.format(concerned))

    def _poison(self, fleet: LocalFleet) -> Callable[[], None]:
        session = f"drill-{uuid.uuid4().hex}"
        poison = blows.Poison(fleet, session)
        self._told("a request kills the engines that decode it")

        def ended(end: End) -> None:
            self.poisoned += end.outcome is Outcome.FAILED
            self._ended(end)
            asker.stop()

        asker = Asker(self.target, ended, self._now, session)
        asker.start()
        asker.join(timeout=self.limits.back_s)

        def heal() -> None:
            poison.stop()
            self.deaths = len(poison.killed)

        return heal

    def _told(self, struck: str) -> None:
        self.struck = struck
        self.notes.append((self._now(), f"struck: {struck}"))


def _nothing() -> None:
    """There is nothing to undo."""


def check_target(drill: Drill, fleet: LocalFleet | None, url: str) -> None:
    """Raises R1ServeError if there is nothing to strike, or nothing that could take over."""
    if drill is Drill.OVERLOAD:
        return
    if fleet is None:
        raise R1ServeError(
            f"{drill} has no target: the processes behind {url} are not on this machine",
            "hold it there",
        )
    if drill is Drill.KILL_GATEWAY and len(fleet.gateways()) < 2:
        raise R1ServeError(
            "kill-gateway has no target: the only gateway is the whole API",
            "give the spec gateway.replicas: 2, or more",
        )
    fleet.gang()
