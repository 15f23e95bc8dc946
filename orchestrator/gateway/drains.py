"""Requests that run on ranks that drain: since when, how fast, and which are to be moved now."""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator import fleet
from orchestrator.core import RankId
from orchestrator.gateway.passage import Passage


@dataclass(frozen=True, slots=True)
class Due:
    """What was seen of a request that is to be moved, and why."""

    rank_id: RankId
    running: fleet.Running
    verdict: fleet.DrainVerdict


class Drains:
    """Remembers what had been emitted when a request's rank was first seen to drain."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[RankId, int, float]] = {}

    def due(
        self,
        passages: Mapping[str, Passage],
        drains: Mapping[RankId, float],
        usual_tokens: float,
        elsewhere: bool,
        now: float,
    ) -> list[tuple[Passage, Due]]:
        """The requests to move now. `drains` has the ranks that drain, with the instants at which
        their time is over; `elsewhere` says whether another rank could take them.
        """
        before, self._seen = self._seen, {}
        found: list[tuple[Passage, Due]] = []
        if not drains:
            return found
        for request_id, passage in passages.items():
            rank_id = passage.handoff.movable
            if rank_id is None or rank_id not in drains:
                continue
            emitted = len(passage.handoff.emitted)
            seen = before.get(request_id)
            if seen is None or seen[0] != rank_id:
                seen = (rank_id, emitted, now)
            self._seen[request_id] = seen
            most = passage.sampling.max_tokens
            running = fleet.Running(emitted, seen[1], seen[2], most, usual_tokens)
            verdict = fleet.judge(running, drains[rank_id], now, elsewhere=elsewhere)
            if verdict.move:
                found.append((passage, Due(rank_id, running, verdict)))
        return found
