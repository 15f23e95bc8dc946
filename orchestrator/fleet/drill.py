"""Drills: something is broken on purpose, and what the clients saw of it is judged.

A drill has three phases: `before` says how the fleet does undisturbed, `during` lasts from the blow
until everything is back, `after` shows that it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Drill(StrEnum):
    """What is broken."""

    KILL_RANK = "kill-rank"  # one process of a gang
    KILL_GANG = "kill-gang"  # all of a gang's, at once
    KILL_GATEWAY = "kill-gateway"
    SLOW_RANK = "slow-rank"  # a gang that computes slower
    DROP_KV_EVENTS = "drop-kv-events"  # none reaches a gateway for a while
    CUT_TRANSFER = "cut-transfer"  # KV transfers fail for a while
    HEAD_RESTART = "head-restart"  # nothing is started or listed for a while
    DRAIN_UNDER_LOAD = "drain-under-load"
    OVERLOAD = "overload"  # more requests than the fleet can serve
    POISON = "poison"  # a request that kills the engine which computes it


class Disturbance(StrEnum):
    """What a gateway does to itself for a while, because a drill says so."""

    KV_EVENTS = "kv-events"  # it drops what ranks publish
    TRANSFERS = "transfers"  # KV that is to be read elsewhere does not arrive


class Phase(StrEnum):
    """Of a drill."""

    BEFORE = "before"
    DURING = "during"
    AFTER = "after"


class Verdict(StrEnum):
    """What a drill comes to."""

    PASSED = "passed"
    FAILED = "failed"
    ABORTED = "aborted"  # the SLO burned, and nothing was disturbed any longer


@dataclass(slots=True)
class Tally:
    """What became of the requests that ended in one phase."""

    lasts_s: float = 0.0
    kept: int = 0  # ended well and within the SLO
    late: int = 0  # ended well and not within it
    shed: int = 0  # refused with a time to come back at
    failed: int = 0  # told an error
    broken: int = 0  # cut off with their gateway

    @property
    def ended(self) -> int:
        """All of them."""
        return self.kept + self.late + self.shed + self.failed + self.broken

    @property
    def kept_per_s(self) -> float:
        """Goodput, requests a second."""
        return self.kept / self.lasts_s if self.lasts_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is borne, and for how long."""

    back_s: float  # until every gang and gateway is there again
    burn: float = 0.5  # share of the last requests that were lost or late: the drill is aborted
    burn_requests: int = 50  # that are looked at, at least
    kept_after: float = 0.95  # goodput afterwards, of that before
    kept_overload: float = 0.9  # goodput during an overload, of that before


@dataclass(frozen=True, slots=True)
class Seen:
    """What a drill has shown. `struck` is what was hit, or "" if there was nothing to hit."""

    drill: Drill
    struck: str
    phases: Mapping[Phase, Tally]
    back_s: float | None = None  # from the blow until all was there again; None: not yet
    poisoned: int = 0  # poisonous requests that were told an error, which is right
    deaths: int = 0  # gangs that died
    aborted: bool = False
    held: int = 0  # requests that may break: those of the gateway that was killed, as far as known


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    right: bool
    text: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict and what it rests on."""

    verdict: Verdict
    findings: tuple[Finding, ...] = field(default_factory=tuple)


def burns(limits: Limits, last: Sequence[bool]) -> bool:
    """Whether the drill is to be aborted; `last` says of the requests that ended last, and were not
    shed, whether they were within the SLO.
    """
    if len(last) < limits.burn_requests:
        return False
    return last.count(False) > limits.burn * len(last)


def judge(limits: Limits, seen: Seen) -> Judgement:
    """What the drill comes to."""
    if seen.aborted:
        text = f"aborted: more than {limits.burn:.0%} of the last requests were outside of the SLO"
        return Judgement(Verdict.ABORTED, (Finding(False, text), _lost(seen)))
    findings = [_lost(seen), _back(limits, seen), _after(limits, seen)]
    if seen.drill is Drill.OVERLOAD:
        findings.append(_overload(limits, seen))
    if seen.drill is Drill.POISON:
        findings.append(
            Finding(
                0 < seen.deaths <= _POISON_DEATHS,
                f"the request killed {seen.deaths} gangs; one at least, {_POISON_DEATHS} are borne",
            )
        )
    right = all(finding.right for finding in findings)
    return Judgement(Verdict.PASSED if right else Verdict.FAILED, tuple(findings))


_POISON_DEATHS = 2  # after so many a request is known to be the cause


def _lost(seen: Seen) -> Finding:
    failed = sum(tally.failed for tally in seen.phases.values())
    broken = sum(tally.broken for tally in seen.phases.values())
    if seen.drill is Drill.KILL_GATEWAY:
        text = f"{broken} streams broke, of {seen.held} that may; {failed} others failed"
        return Finding(failed == 0 and broken <= seen.held, text)
    lost = failed + broken - seen.poisoned
    ended = sum(tally.ended for tally in seen.phases.values())
    return Finding(lost == 0, f"{lost} of {ended:,} requests were lost")


def _back(limits: Limits, seen: Seen) -> Finding:
    if seen.back_s is None:
        return Finding(False, f"not everything was back within {limits.back_s:.0f} s")
    return Finding(
        seen.back_s <= limits.back_s,
        f"everything was back after {seen.back_s:.0f} s; {limits.back_s:.0f} s are borne",
    )


def _after(limits: Limits, seen: Seen) -> Finding:
    before, after = (_share(seen.phases[phase]) for phase in (Phase.BEFORE, Phase.AFTER))
    return Finding(
        after >= limits.kept_after * before and seen.phases[Phase.AFTER].ended > 0,
        f"within the SLO: {before:.1%} before, {after:.1%} afterwards",
    )


def _overload(limits: Limits, seen: Seen) -> Finding:
    before, during = seen.phases[Phase.BEFORE], seen.phases[Phase.DURING]
    share = during.kept_per_s / before.kept_per_s if before.kept_per_s > 0 else 0.0
    return Finding(
        share >= limits.kept_overload,
        f"goodput in the overload was {share:.0%} of that before, with {during.shed} refused",
    )


def _share(tally: Tally) -> float:
    return tally.kept / tally.ended if tally.ended else 0.0
