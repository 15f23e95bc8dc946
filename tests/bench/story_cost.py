"""What remembering a request for `r1-serve why` adds to its way through the gateway.

`python -m tests.bench.story_cost` prints a JSON line for each fleet: microseconds of CPU for the
routing decision itself, and for all that is kept of a request with two legs. CPU time of this
process, medians of windows.
"""

import gc
import json
import statistics
import sys
import time
import tracemalloc

from orchestrator.core import Finish, KvSource, RankId, Request, RequestId, Role
from orchestrator.gateway.story import (
    Admitted,
    Began,
    Left,
    Over,
    PathChosen,
    RankChosen,
    Sent,
    Stories,
)
from orchestrator.handoff import Path, PathChoice
from orchestrator.handoff.path import Reason
from orchestrator.routing import Choice, Decision, Leg, Member, Prompt, Router, same_costs
from orchestrator.spec import WhySpec
from tests.bench.routing_cost import COSTS, ids_of

WINDOWS, ROUNDS = 7, 2_000
PATH = PathChoice(Path.TRANSFER, Reason.LONG_PROMPT)


def remembered(stories: Stories, request_id: str, decision: Decision, now: float) -> None:
    """All that a request with two legs leaves behind, as `Service` has it."""
    request = Request(RequestId(request_id), 4_096, 1_024, now, now + 1)
    story = stories.begin(request, "")
    if story is None:
        return
    events = story.events
    events.append(Admitted(now, "admit", "room", 256, 10, 0))
    events.append(PathChosen(now, PATH, None, 4))
    assert isinstance(decision.choice, Choice)
    rank_id = decision.choice.rank_id
    for attempt, source in ((1, KvSource.PRODUCE), (2, KvSource.TRANSFER)):
        events.append(RankChosen(now, decision, COSTS))
        stories.grew(story, len(decision.view.ranks))
        events.append(Sent(now, attempt, rank_id, source))
        events.append(Began(now, attempt))
        events.append(Left(now, attempt, Finish.LENGTH, 64))
    events.append(Over(now, Finish.LENGTH, 500, 64))


def measured(ranks: int, spec: WhySpec) -> dict[str, object]:
    """Of one fleet."""
    router = Router(64, 100_000, same_costs(COSTS))
    names = [RankId(f"gang-{number:03}/0") for number in range(ranks)]
    for rank_id in names:
        router.join(Member(rank_id, Role.UNIFIED, 1024, 256, 1 << 20), kv_events=True)
    ids = ids_of(1, 4_096)
    stories = Stories(spec)
    gc.collect()
    gc.freeze()
    gc.disable()
    deciding, keeping = [], []
    number = 0
    for _ in range(WINDOWS):
        decided_s = kept_s = 0.0
        for _ in range(ROUNDS):
            now = number * 0.01
            began = time.process_time_ns()
            decision = router.decide(
                router.view(names, now), Role.UNIFIED, Leg.WHOLE, Prompt(ids, 1_024)
            )
            between = time.process_time_ns()
            remembered(stories, f"request-{number}", decision, now)
            over = time.process_time_ns()
            decided_s += between - began
            kept_s += over - between
            number += 1
        deciding.append(decided_s / ROUNDS / 1e3)
        keeping.append(kept_s / ROUNDS / 1e3)
    gc.enable()
    return {
        "what": "story",
        "share": spec.share,
        "ranks": ranks,
        "decision_us": round(statistics.median(deciding), 1),
        "story_us": round(statistics.median(keeping), 1),
        "kept_requests": len(stories),
    }


def held(ranks: int) -> dict[str, object]:
    """Bytes of what is kept of one request at a fleet where every rank changes between two."""
    router = Router(64, 100_000, same_costs(COSTS))
    names = [RankId(f"gang-{number:03}/0") for number in range(ranks)]
    for rank_id in names:
        router.join(Member(rank_id, Role.UNIFIED, 1024, 256, 1 << 20), kv_events=True)
    stories = Stories(WhySpec())
    ids = ids_of(1, 256)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(100):
        for rank_id in names:
            router.ledger.reported(rank_id, number, 0, number * 0.01)
        decision = router.decide(
            router.view(names, number * 0.01), Role.UNIFIED, Leg.WHOLE, Prompt(ids, 1_024)
        )
        remembered(stories, f"request-{number}", decision, number * 0.01)
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return {"what": "held", "ranks": ranks, "bytes_per_request": used // len(stories)}


def main() -> int:
    for ranks in (8, 128):
        for share in (0.0, 1.0):
            print(json.dumps(measured(ranks, WhySpec(share=share))))
        print(json.dumps(held(ranks)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
