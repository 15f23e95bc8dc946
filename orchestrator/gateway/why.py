"""Why a request went the way it did: its story, each decision made again by the pure router."""

import msgspec

from orchestrator import routing
from orchestrator.core import RankId, RankView
from orchestrator.gateway.story import (
    Admitted,
    Began,
    Event,
    Left,
    Moved,
    Over,
    PathChosen,
    RankChosen,
    Sent,
    Story,
)

CANDIDATES_MAX = 8  # that are told of one decision, the cheapest first and the chosen one


class Candidate(msgspec.Struct, frozen=True):
    """One rank, as it was known then. Costs are predicted seconds."""

    rank_id: str
    cost_s: float | None  # None: it could not take the request
    terms: dict[str, float]
    hit_tokens: int
    in_flight_requests: int  # of this gateway
    others_requests: int  # of others, as far as was known
    requests_max: int
    reported_s_ago: float | None  # how old its last report was; None: none had come
    note: str = ""  # chosen, second, full, excluded


class Step(msgspec.Struct, frozen=True):
    """One thing that happened, so many seconds after the arrival."""

    at_s: float
    what: str
    text: str
    reason: str = ""
    rank_id: str = ""
    leg: str = ""
    cost_s: float | None = None
    second_rank_id: str = ""
    second_cost_s: float | None = None  # what the second choice would have cost, by replay
    candidates: list[Candidate] = []
    candidates_left_out: int = 0
    replayed: bool | None = None  # whether the router decides the same again


class Why(msgspec.Struct, frozen=True):
    """All that is known of one request."""

    request_id: str
    model: str
    gateway: str
    klass: str
    prompt_tokens: int
    max_tokens: int
    arrived_s_ago: float
    steps: list[Step]
    ttft_s: float | None = None
    total_s: float | None = None
    predicted_hit_tokens: int | None = None
    actual_hit_tokens: int | None = None


def why(story: Story, model: str, gateway: str, now: float) -> Why:
    """What a story says, with its decisions made again."""
    steps = [_step(event, story.arrived_at) for event in story.events]
    over = next((event for event in story.events if isinstance(event, Over)), None)
    first = _first_decode_token(story)
    predicted = [
        event.decision.choice.hit_tokens
        for event in story.events
        if isinstance(event, RankChosen) and isinstance(event.decision.choice, routing.Choice)
    ]
    return Why(
        story.request_id,
        model,
        gateway,
        story.klass,
        story.prompt_tokens,
        story.max_tokens,
        now - story.arrived_at,
        steps,
        None if first is None else first - story.arrived_at,
        None if over is None else over.at - story.arrived_at,
        predicted[0] if predicted else None,
        None if over is None or over.finish is None else over.cached_tokens,
    )


def _first_decode_token(story: Story) -> float | None:
    """When the first token for the client came: a prefill leg's is thrown away."""
    produces = {
        e.attempt for e in story.events if isinstance(e, Sent) and e.kv_source.value == "produce"
    }
    return next(
        (e.at for e in story.events if isinstance(e, Began) and e.attempt not in produces), None
    )


def _step(event: Event, arrived_at: float) -> Step:
    at_s = event.at - arrived_at
    match event:
        case Admitted():
            said = (
                f"{event.decision}: {event.held} of {event.slots} slots held, {event.queued} wait"
            )
            return Step(at_s, "admission", said, event.reason)
        case PathChosen():
            return _path(at_s, event)
        case RankChosen():
            return _routing(at_s, event)
        case Sent():
            said = f"attempt {event.attempt} sent, KV {event.kv_source}"
            return Step(at_s, "sent", said, rank_id=event.rank_id)
        case Began():
            return Step(at_s, "first token", f"of attempt {event.attempt}")
        case Left():
            said = f"attempt {event.attempt}, {event.cached_tokens} prompt tokens not computed"
            return Step(at_s, "ended", said, event.finish)
        case Moved():
            return Step(at_s, "moved", "the rank drains", event.reason, event.rank_id)
        case Over():
            finish = "left" if event.finish is None else event.finish.value
            return Step(at_s, "over", f"{event.output_tokens} tokens drawn", finish)


def _path(at_s: float, event: PathChosen) -> Step:
    prices = event.prices
    said = event.choice.path.value
    if prices is not None:
        said += f": in place {prices.in_place_s:.4f} s, moved {prices.transfer_s:.4f} s"
    return Step(at_s, "path", f"{said}; {event.prefill_ranks} prefill ranks", event.choice.reason)


def _routing(at_s: float, event: RankChosen) -> Step:
    decision = event.decision
    choice = decision.choice
    again = _again(event, decision.excluded)
    chosen = choice.rank_id if isinstance(choice, routing.Choice) else ""
    second = _again(event, (*decision.excluded, RankId(chosen))) if chosen else None
    found = _candidates(event)
    told = found[:CANDIDATES_MAX]
    told += [each for each in found[CANDIDATES_MAX:] if each.rank_id == chosen]
    seen = f"seen {(event.at - decision.view.seen_at) * 1e3:.1f} ms before"
    cost_s = choice.cost_s if isinstance(choice, routing.Choice) else None
    hit = choice.hit_tokens if isinstance(choice, routing.Choice) else 0
    said = f"{len(decision.view.of(decision.role))} ranks, {seen}; {hit} tokens predicted to hit"
    return Step(
        at_s,
        "routing",
        said,
        choice.reason,
        chosen,
        decision.question.leg,
        cost_s,
        second.rank_id if isinstance(second, routing.Choice) else "",
        second.cost_s if isinstance(second, routing.Choice) else None,
        [_noted(each, chosen, second) for each in told],
        len(found) - len(told),
        again == choice,
    )


def _again(event: RankChosen, excluded: tuple[RankId, ...]) -> routing.Choice | routing.NoRank:
    decision = event.decision
    return routing.choose_rank(
        decision.view, decision.role, decision.question, event.costs, excluded
    )


def _noted(
    each: Candidate, chosen: str, second: routing.Choice | routing.NoRank | None
) -> Candidate:
    if each.rank_id == chosen:
        return msgspec.structs.replace(each, note="chosen")
    if isinstance(second, routing.Choice) and each.rank_id == second.rank_id:
        return msgspec.structs.replace(each, note="second")
    return each


def _candidates(event: RankChosen) -> list[Candidate]:
    """The ranks of that role, the cheapest first, those that could not take it behind them."""
    decision = event.decision
    ranks = decision.view.of(decision.role)
    allowed = routing.filter_ranks(ranks, decision.excluded)
    if isinstance(allowed, routing.NoRank):
        return [_unable(rank, event) for rank in ranks]
    view = decision.view
    seen = routing.candidates(
        decision.question,
        event.costs,
        allowed,
        view.seen_at,
        view.arrivals_per_s / len(ranks),
        view.output_tokens,
    )
    costs, terms = routing.score(seen), routing.explain(seen)
    found = [
        msgspec.structs.replace(
            _candidate(rank, event, costs[at], seen.hit_tokens[at]),
            terms={name: column[at] for name, column in terms.items() if column[at]},
        )
        for at, rank in enumerate(allowed)
    ]
    taken = {rank.rank_id for rank in allowed}
    unable = [_unable(rank, event) for rank in ranks if rank.rank_id not in taken]
    return [*sorted(found, key=lambda each: (each.cost_s, each.rank_id)), *unable]


def _unable(rank: RankView, event: RankChosen) -> Candidate:
    excluded = rank.rank_id in event.decision.excluded
    each = _candidate(rank, event, None, 0)
    return msgspec.structs.replace(each, note="failed it before" if excluded else "full")


def _candidate(
    rank: RankView, event: RankChosen, cost_s: float | None, hit_tokens: int
) -> Candidate:
    reported = event.decision.view.seen_at - rank.reported_at if rank.reported_at else None
    return Candidate(
        rank.rank_id,
        cost_s,
        {},
        hit_tokens,
        rank.in_flight_requests,
        rank.others_requests,
        rank.requests_max,
        reported,
    )
