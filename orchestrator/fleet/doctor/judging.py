"""What the probes' verdicts have in common."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence

from orchestrator.core import Role
from orchestrator.fleet.doctor.evidence import Evidence, RankSeen
from orchestrator.fleet.doctor.faults import SilentFault
from orchestrator.fleet.doctor.findings import Finding, Probe, State

DECODERS = frozenset({Role.DECODE, Role.UNIFIED})


class Verdicts:
    """The findings of one probe, by subject."""

    def __init__(self, probe: Probe, expected: str) -> None:
        self._probe = probe
        self._expected = expected
        self.found: list[Finding] = []

    def ok(self, subject: str, seen: str) -> None:
        """It is as it should be."""
        self._add(subject, State.OK, seen)

    def off(self, subject: str, seen: str) -> None:
        """It is not configured."""
        self._add(subject, State.OFF, seen)

    def unknown(self, subject: str, why: str) -> None:
        """It could not be looked at."""
        self._add(subject, State.UNKNOWN, why)

    def fault(self, subject: str, seen: str, cure: str, name: SilentFault | None) -> None:
        """It is wrong."""
        self._add(subject, State.FAULT, seen, cure, name)

    def _add(
        self,
        subject: str,
        state: State,
        seen: str,
        cure: str = "",
        fault: SilentFault | None = None,
    ) -> None:
        self.found.append(Finding(self._probe, subject, state, self._expected, seen, cure, fault))


def usual(values: Sequence[str], preferred: Collection[str] = ()) -> str:
    """The most frequent one; of equally frequent ones a preferred one, then the first in order."""
    counts = Counter(values)
    return min(counts, key=lambda v: (-counts[v], v not in preferred, v), default="")


def peers(seen: Evidence, rank: RankSeen) -> list[RankSeen]:
    """The others of the rank's pool."""
    return [each for each in seen.ranks if each.role is rank.role and each is not rank]


def parity(
    seen: Evidence,
    verdicts: Verdicts,
    value_of: Callable[[RankSeen], str | None],
    wanted: str | None,
    cure: str,
    name: SilentFault,
) -> list[Finding]:
    """All ranks are to have one value: the one that was asked for, or else the usual one.

    Whom the gateway has refused says little: the first rank that it met decides that, right or not.
    Of two that are equally frequent it is the one that is not refused.
    """
    known = {rank.rank_id: value for rank in seen.ranks if (value := value_of(rank)) is not None}
    taken = {known[r.rank_id] for r in seen.ranks if r.rank_id in known and not r.refused}
    expected = wanted or usual(list(known.values()), taken)
    for rank in seen.ranks:
        value = known.get(rank.rank_id)
        if value is None:
            verdicts.unknown(rank.rank_id, "the engine does not tell")
        elif value == expected:
            verdicts.ok(rank.rank_id, value or "none")
        else:
            said = f"{value or 'none'}, the others {expected or 'none'}"
            verdicts.fault(rank.rank_id, said, cure, name)
    return verdicts.found
