"""One request's passage: paths, failures, and what holds whatever happens."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from orchestrator.codec import Begin, ControlIds, ThoughtLimit
from orchestrator.core import (
    Finish,
    FleetView,
    KvParams,
    KvSource,
    RankId,
    RankView,
    Role,
    TokenLogprob,
    token_ids,
)
from orchestrator.handoff import (
    Abort,
    Action,
    Begun,
    Cancelled,
    Choose,
    Emit,
    Ended,
    Finished,
    Handoff,
    Moved,
    NotRouted,
    Pair,
    Path,
    Pinned,
    Reason,
    Release,
    Routed,
    Send,
    Tokens,
    Woken,
    choose_path,
)
from orchestrator.routing import Leg
from orchestrator.spec import HandoffSpec, KvHandoff

PAUSE_S = 1.0
SPEC = HandoffSpec(
    in_place_max_tokens=15, attempts_max=3, resume_wait_s=60.0, retry_pause_s=PAUSE_S
)
P, D, D2 = RankId("p/0"), RankId("d/0"), RankId("d2/0")
KV: KvParams = {"remote_engine_id": "p"}


MARK = 9  # closes a thought
CONTROL = ControlIds(100, 101, 102, 103, think=104, end_think=MARK)


def thought_of(tokens_max: int | None) -> ThoughtLimit | None:
    if tokens_max is None:
        return None
    return ThoughtLimit(CONTROL, token_ids((100, 102, 103, 104)), Begin.THOUGHT, tokens_max)


def begun(
    path: Path = Path.TRANSFER, max_tokens: int = 10, thought: int | None = None
) -> tuple[Handoff, list[Action]]:
    machine = Handoff(SPEC, Role.DECODE, 20, max_tokens, thought_of(thought))
    return machine, machine.on(Begun(path), 0.0)


def decoding(thought: int | None = None) -> Handoff:
    """A request whose KV was transferred to D, with two tokens out."""
    machine, _ = begun(thought=thought)
    machine.on(Routed(P), 0.0)
    machine.on(Ended(1, Finish.LENGTH, KV), 0.0)
    machine.on(Routed(D), 0.0)
    machine.on(Tokens(2, [5, 6]), 0.0)
    return machine


def test_a_transfer_prefills_one_token_there_and_decodes_from_its_reference_here() -> None:
    machine, actions = begun()
    assert actions == [Choose(Role.PREFILL, frozenset())]
    assert machine.on(Routed(P), 0.0) == [Send(1, P, KvSource.PRODUCE, None, (), 1)]
    assert machine.on(Tokens(1, [9]), 0.0) == [], "the decode rank draws this token again"
    assert machine.on(Ended(1, Finish.LENGTH, KV, 64), 0.0) == [Choose(Role.DECODE, frozenset())]
    assert machine.on(Routed(D), 0.0) == [Send(2, D, KvSource.TRANSFER, KV, (), 10)]
    assert machine.on(Tokens(2, [5]), 0.0) == [Emit([5])]
    assert machine.on(Ended(2, Finish.STOP, None, 20), 0.0) == [Finished(Finish.STOP)]
    assert machine.cached_tokens == 64


def test_in_place_has_one_leg() -> None:
    machine, actions = begun(Path.IN_PLACE)
    assert actions == [Choose(Role.DECODE, frozenset())]
    assert machine.on(Routed(D), 0.0) == [Send(1, D, KvSource.LOCAL, None, (), 10)]
    assert machine.on(Ended(1, Finish.LENGTH), 0.0) == [Finished(Finish.LENGTH)]


def test_a_dead_decode_rank_is_survived_with_prompt_and_emitted_tokens() -> None:
    machine = decoding()
    [choose] = machine.on(Ended(2, Finish.LOST, cause="gone"), 1.0)
    assert choose == Choose(Role.PREFILL, frozenset({D}))
    assert machine.on(Routed(P), 1.0) == [Send(3, P, KvSource.PRODUCE, None, (5, 6), 1)]
    machine.on(Ended(3, Finish.LENGTH, KV), 1.0)
    machine.on(Routed(D2), 1.0)
    assert machine.on(Tokens(2, [7]), 1.0) == [], "a late token of the lost submission"
    assert machine.on(Tokens(4, [7]), 1.0) == [Emit([7])]


def test_a_used_reference_is_never_used_again() -> None:
    machine = decoding()
    machine.on(Ended(2, Finish.FAILED), 1.0)
    machine.on(NotRouted(), 1.0)  # no prefill rank any more
    [send] = machine.on(Routed(D2), 1.0)
    assert isinstance(send, Send)
    assert (send.kv_source, send.kv_params) == (KvSource.LOCAL, None)


def test_without_a_prefill_rank_the_decode_rank_prefills() -> None:
    machine, _ = begun()
    assert machine.on(NotRouted(), 0.0) == [Choose(Role.DECODE, frozenset())]
    assert machine.on(Routed(D), 0.0) == [Send(1, D, KvSource.LOCAL, None, (), 10)]


def test_a_reference_does_not_outlive_a_wait_for_a_decode_rank() -> None:
    machine, _ = begun()
    machine.on(Routed(P), 0.0)
    machine.on(Ended(1, Finish.LENGTH, KV), 0.0)
    assert machine.on(NotRouted(), 0.0) == [Release(KV)]
    assert machine.waiting
    assert machine.on(Woken(), 1.0) == [Choose(Role.DECODE, frozenset())]
    [send] = machine.on(Routed(D), 1.0)
    assert isinstance(send, Send)
    assert send.kv_source is KvSource.LOCAL


def test_waits_for_a_rank_until_the_limit_and_not_longer() -> None:
    machine, _ = begun(Path.IN_PLACE)
    machine.on(NotRouted(), 5.0)
    assert machine.on(Woken(), 64.9) == [Choose(Role.DECODE, frozenset())]
    machine.on(NotRouted(), 64.9)
    [end] = machine.on(Woken(), 65.0)
    assert end == Finished(Finish.FAILED, "no rank can be reached")


def test_ranks_that_failed_are_tried_again_before_giving_up() -> None:
    machine, _ = begun(Path.IN_PLACE)
    machine.on(Routed(D), 0.0)
    assert machine.on(Ended(1, Finish.FAILED), 0.0) == [Choose(Role.DECODE, frozenset({D}))]
    assert machine.on(NotRouted(all_excluded=True), 0.0) == []
    assert machine.waiting
    assert machine.on(Woken(), PAUSE_S - 0.1) == []
    assert machine.on(Woken(), PAUSE_S) == [Choose(Role.DECODE, frozenset())]


def test_gives_up_after_the_last_attempt_with_its_cause() -> None:
    machine, _ = begun(Path.IN_PLACE)
    for attempt in (1, 2):
        machine.on(Routed(D), 0.0)
        machine.on(Ended(attempt, Finish.FAILED, cause=f"cause {attempt}"), 0.0)
    machine.on(Routed(D), 0.0)
    [end] = machine.on(Ended(3, Finish.FAILED, cause="cause 3"), 0.0)
    assert end == Finished(Finish.FAILED, "cause 3")


def test_what_an_engine_refuses_is_not_tried_elsewhere() -> None:
    machine, _ = begun(Path.IN_PLACE)
    machine.on(Routed(D), 0.0)
    [end] = machine.on(Ended(1, Finish.REFUSED, cause="too long"), 0.0)
    assert end == Finished(Finish.REFUSED, "too long")


def test_a_rank_lost_after_the_last_token_costs_nothing() -> None:
    machine, _ = begun(Path.IN_PLACE, max_tokens=2)
    machine.on(Routed(D), 0.0)
    machine.on(Tokens(1, [5, 6]), 0.0)
    assert machine.on(Ended(1, Finish.LOST), 0.0) == [Finished(Finish.LENGTH)]


def test_logprobs_are_passed_on_with_their_ids() -> None:
    machine = decoding()
    logprobs = [TokenLogprob(-0.5)]
    assert machine.on(Tokens(2, [7], logprobs), 0.0) == [Emit([7], logprobs)]


def test_a_pinned_request_does_not_outlive_its_rank() -> None:
    machine = decoding()
    assert machine.on(Pinned(), 0.0) == []
    assert machine.on(Tokens(2, [7]), 0.0) == [Emit([7])], "the rank goes on"
    [end] = machine.on(Ended(2, Finish.LOST, cause="the rank died"), 1.0)
    assert isinstance(end, Finished)
    assert end.finish is Finish.FAILED
    assert end.cause.startswith("the rank died; ")


def test_a_pinned_request_ends_as_any_other() -> None:
    for finish in (Finish.STOP, Finish.LENGTH):
        machine = decoding()
        machine.on(Pinned(), 0.0)
        assert machine.on(Ended(2, finish), 0.0) == [Finished(finish)]


def test_a_request_that_is_pinned_before_its_first_token_can_still_move() -> None:
    machine, _ = begun(Path.IN_PLACE)
    machine.on(Pinned(), 0.0)
    machine.on(Routed(D), 0.0)
    assert machine.on(Ended(1, Finish.LOST), 0.0) == [Choose(Role.DECODE, frozenset({D}))]


def test_a_request_that_is_pinned_while_it_moves_ends_at_once() -> None:
    machine = decoding()
    machine.on(Ended(2, Finish.LOST, cause="the rank died"), 1.0)
    [end] = machine.on(Pinned(), 1.0)
    assert isinstance(end, Finished)
    assert end.finish is Finish.FAILED
    machine = decoding()
    machine.on(Ended(2, Finish.LOST, cause="the rank died"), 1.0)
    machine.on(Routed(P), 1.0)
    abort, end = machine.on(Pinned(), 1.0)
    assert abort == Abort(3)
    assert isinstance(end, Finished)


def test_a_thought_beyond_its_budget_is_closed_and_the_answer_is_drawn_behind_the_mark() -> None:
    machine = decoding(thought=3)
    assert machine.on(Tokens(2, [7, 7, 7]), 0.0) == [
        Emit([7, MARK]),
        Abort(2),
        Choose(Role.DECODE, frozenset()),
    ]
    assert machine.closed_thought
    assert machine.leg is Leg.WHOLE, "in place: the thought's KV is there"
    assert machine.on(Tokens(2, [7]), 0.0) == [], "what the engine drew meanwhile"
    assert machine.on(Routed(D), 0.0) == [Send(3, D, KvSource.LOCAL, None, (5, 6, 7, MARK), 6)]
    assert machine.on(Ended(2, Finish.ABORTED), 0.0) == []
    assert machine.on(Tokens(3, [8] * 5), 0.0) == [Emit([8] * 5)]
    assert machine.on(Ended(3, Finish.STOP), 0.0) == [Finished(Finish.STOP)]


def test_a_thought_that_its_engine_closes_in_time_is_left_alone() -> None:
    machine = decoding(thought=3)
    assert machine.on(Tokens(2, [7, MARK, 8, 8, 8]), 0.0) == [Emit([7, MARK, 8, 8, 8])]
    assert not machine.closed_thought


def test_closing_a_thought_is_no_failure_and_leaves_all_attempts() -> None:
    machine = decoding(thought=2)
    machine.on(Tokens(2, [7]), 0.0)
    for attempt in (3, 4):
        machine.on(Routed(D), 0.0)
        assert machine.on(Ended(attempt, Finish.FAILED, cause="no"), 0.0) == [
            Choose(Role.DECODE, frozenset({D}))
        ]
    machine.on(Routed(D), 0.0)
    assert machine.on(Ended(5, Finish.FAILED, cause="no"), 0.0) == [Finished(Finish.FAILED, "no")]


def test_a_thought_closed_with_the_last_token_leaves_nothing_to_draw() -> None:
    machine, _ = begun(Path.IN_PLACE, max_tokens=3, thought=2)
    machine.on(Routed(D), 0.0)
    assert machine.on(Tokens(1, [7, 7, 7]), 0.0) == [
        Emit([7, 7, MARK]),
        Abort(1),
        Finished(Finish.LENGTH),
    ]


def test_a_grammar_begins_behind_a_thought_that_was_closed_on_whatever_rank() -> None:
    machine = decoding(thought=2)
    machine.on(Tokens(2, [7]), 0.0)
    assert machine.on(Pinned(), 0.0) == [], "nothing of the grammar's text has been drawn"
    machine.on(Routed(D), 0.0)
    assert machine.on(Ended(3, Finish.LOST), 0.0) == [Choose(Role.DECODE, frozenset({D}))]
    machine.on(Routed(D2), 0.0)
    machine.on(Tokens(4, [8]), 0.0)
    [finished] = machine.on(Ended(4, Finish.LOST, cause="gone"), 0.0)
    assert isinstance(finished, Finished)
    assert finished.finish is Finish.FAILED


def test_a_client_that_leaves_aborts_what_runs_and_hears_nothing() -> None:
    machine = decoding()
    assert machine.on(Cancelled(), 0.0) == [Abort(2)]
    assert machine.over
    assert machine.on(Tokens(2, [7]), 0.0) == []
    assert machine.on(Ended(2, Finish.ABORTED), 0.0) == []


def test_a_move_waits_for_the_end_of_what_runs_and_continues_elsewhere() -> None:
    machine = decoding()
    assert machine.movable == D
    assert machine.on(Moved(), 1.0) == [Abort(2)]
    assert machine.movable is None
    assert machine.on(Moved(), 1.0) == [], "it is told once"
    assert machine.on(Tokens(2, [7]), 1.0) == [Emit([7])], "drawn before the abort was there"
    assert machine.on(Ended(2, Finish.ABORTED), 1.0) == [Choose(Role.PREFILL, frozenset())]
    assert machine.on(Routed(P), 1.0) == [Send(3, P, KvSource.PRODUCE, None, (5, 6, 7), 1)]
    machine.on(Ended(3, Finish.LENGTH, KV), 1.0)
    assert machine.on(Routed(D2), 1.0) == [Send(4, D2, KvSource.TRANSFER, KV, (5, 6, 7), 7)]


@pytest.mark.parametrize("finish", [Finish.STOP, Finish.LENGTH, Finish.LOST, Finish.FAILED])
def test_a_move_does_not_believe_the_end_of_what_it_left(finish: Finish) -> None:
    machine = decoding()
    machine.on(Moved(), 1.0)
    assert machine.on(Ended(2, finish), 1.0) == [Choose(Role.PREFILL, frozenset())]


def test_a_move_that_finds_all_tokens_drawn_ends_the_request() -> None:
    machine = decoding()
    machine.on(Moved(), 1.0)
    machine.on(Tokens(2, [0] * 8), 1.0)
    assert machine.on(Ended(2, Finish.ABORTED), 1.0) == [Finished(Finish.LENGTH)]


def test_moves_are_no_failures_however_many() -> None:
    machine, _ = begun(Path.IN_PLACE)
    machine.on(Routed(D), 0.0)
    for attempt in range(1, 3 * SPEC.attempts_max):
        assert machine.on(Moved(), 0.0) == [Abort(attempt)]
        machine.on(Ended(attempt, Finish.ABORTED), 0.0)
        [send] = machine.on(Routed(D), 0.0)
        assert isinstance(send, Send)


def test_what_cannot_be_continued_is_not_moved() -> None:
    machine = decoding()
    machine.on(Pinned(), 1.0)
    assert machine.movable is None
    assert machine.on(Moved(), 1.0) == []
    machine, _ = begun()
    machine.on(Routed(P), 0.0)
    assert machine.on(Moved(), 0.0) == [], "a prefill is short"
    machine.on(Ended(1, Finish.LENGTH, KV), 0.0)
    machine.on(Routed(D), 0.0)
    assert machine.on(Moved(), 0.0) == [], "its KV is on the way"


def test_a_client_that_leaves_during_a_move_hears_nothing() -> None:
    machine = decoding()
    machine.on(Moved(), 0.0)
    assert machine.on(Cancelled(), 0.0) == [], "the abort was sent"
    assert machine.over
    assert machine.on(Ended(2, Finish.ABORTED), 0.0) == []


def test_a_request_that_gets_on_between_failures_has_as_many_attempts_as_it_needs() -> None:
    machine, _ = begun(Path.IN_PLACE, max_tokens=1_000)
    machine.on(Routed(D), 0.0)
    for attempt in range(1, 3 * SPEC.attempts_max):
        machine.on(Tokens(attempt, [0] * 16), 0.0)
        [choose] = machine.on(Ended(attempt, Finish.LOST, died=True), 0.0)
        assert isinstance(choose, Choose)
        machine.on(Routed(D2), 0.0)
    assert not machine.suspect


def test_a_request_that_engines_die_of_at_once_is_given_up_after_two() -> None:
    machine, _ = begun()
    machine.on(Routed(P), 0.0)
    assert not machine.suspect
    [choose] = machine.on(Ended(1, Finish.LOST, cause="the engine died", died=True), 0.0)
    assert isinstance(choose, Choose)
    assert machine.suspect
    machine.on(NotRouted(), 0.0)
    machine.on(Routed(D), 0.0)
    machine.on(Tokens(2, [5] * 7), 0.0)
    [end] = machine.on(Ended(2, Finish.FAILED, cause="it died", died=True), 0.0)
    assert isinstance(end, Finished)
    assert end.poison
    assert end.cause == "2 engines in a row have died at the beginning of it: it died", (
        "the client is told the truth"
    )


def test_the_ranks_of_one_gang_die_one_death() -> None:
    """They end together: whoever was tried on another of them has done nothing."""
    ranks = [RankId(f"d/{rank}") for rank in range(2 * SPEC.attempts_max)]
    machine, _ = begun(Path.IN_PLACE)
    for attempt, rank in enumerate(ranks, 1):
        machine.on(Routed(rank), 0.0)
        [choose] = machine.on(Ended(attempt, Finish.LOST, died=True), 0.0)
        assert choose == Choose(Role.DECODE, frozenset(ranks[:attempt]))
    machine.on(Routed(D2), 0.0)
    [end] = machine.on(Ended(len(ranks) + 1, Finish.LOST, died=True), 0.0)
    assert isinstance(end, Finished)
    assert end.poison


def test_a_suspect_that_gets_on_is_none_any_more() -> None:
    machine, _ = begun(Path.IN_PLACE, max_tokens=100)
    machine.on(Routed(D), 0.0)
    machine.on(Ended(1, Finish.LOST, died=True), 0.0)
    machine.on(Routed(D2), 0.0)
    machine.on(Tokens(2, [5] * 15), 0.0)
    assert machine.suspect
    machine.on(Tokens(2, [5]), 0.0)
    assert not machine.suspect


def test_a_link_that_breaks_makes_no_suspect() -> None:
    machine, _ = begun()
    machine.on(Routed(P), 0.0)
    machine.on(Ended(1, Finish.LOST, cause="the peer was silent"), 0.0)
    assert not machine.suspect


def of_kind(kv: KvHandoff) -> Handoff:
    """A request whose ranks P and D have been chosen."""
    machine = Handoff(replace(SPEC, kv=kv), Role.DECODE, prompt_tokens=20, max_tokens=10)
    machine.on(Begun(Path.TRANSFER), 0.0)
    assert machine.on(Routed(P), 0.0) == [Choose(Role.DECODE, frozenset())]
    assert machine.leg is Leg.DECODE
    return machine


def test_a_push_begins_both_legs_at_once_and_each_knows_the_other() -> None:
    machine = of_kind(KvHandoff.PUSH)
    assert machine.on(Routed(D), 0.0) == [
        Send(1, P, KvSource.PRODUCE, None, (), 1, Pair(1, D)),
        Send(2, D, KvSource.TRANSFER, None, (), 10, Pair(1, P)),
    ]
    assert machine.on(Ended(1, Finish.LENGTH, cached_tokens=64), 0.0) == []
    assert machine.on(Tokens(2, [5]), 0.0) == [Emit([5])]
    assert machine.on(Ended(2, Finish.STOP, cached_tokens=19), 0.0) == [Finished(Finish.STOP)]
    assert machine.cached_tokens == 64


def test_a_bound_prefill_knows_its_peer_and_that_one_pulls() -> None:
    machine = of_kind(KvHandoff.PULL_BOUND)
    assert machine.on(Routed(D), 0.0) == [Send(1, P, KvSource.PRODUCE, None, (), 1, Pair(1, D))]
    assert machine.on(Ended(1, Finish.LENGTH, KV), 0.0) == [
        Send(2, D, KvSource.TRANSFER, KV, (), 10)
    ]


@pytest.mark.parametrize("finish", [Finish.FAILED, Finish.LOST, Finish.ABORTED])
def test_a_push_whose_prefill_dies_aborts_the_decode_that_waits_for_it(finish: Finish) -> None:
    machine = of_kind(KvHandoff.PUSH)
    machine.on(Routed(D), 0.0)
    assert machine.on(Ended(1, finish), 0.0) == [Abort(2), Choose(Role.PREFILL, frozenset({P}))]
    assert machine.on(Ended(2, Finish.ABORTED), 0.0) == []


def test_a_push_whose_decode_dies_aborts_the_prefill_and_releases_what_it_made() -> None:
    machine = of_kind(KvHandoff.PUSH)
    machine.on(Routed(D), 0.0)
    assert machine.on(Ended(2, Finish.LOST), 0.0) == [
        Abort(1),
        Choose(Role.PREFILL, frozenset({D})),
    ]
    assert machine.on(Ended(1, Finish.LENGTH, KV), 0.0) == [Release(KV)]


def test_a_prefill_rank_that_dies_after_the_push_costs_nothing() -> None:
    machine = of_kind(KvHandoff.PUSH)
    machine.on(Routed(D), 0.0)
    machine.on(Tokens(2, [5]), 0.0)
    assert machine.on(Ended(1, Finish.LOST), 0.0) == []
    assert machine.on(Ended(2, Finish.STOP), 0.0) == [Finished(Finish.STOP)]


def test_a_kv_transfer_that_fails_is_followed_by_a_prefill_where_it_is_decoded() -> None:
    machine, _ = begun()
    machine.on(Routed(P), 0.0)
    machine.on(Ended(1, Finish.LENGTH, KV), 0.0)
    machine.on(Routed(D), 0.0)
    failed = Ended(2, Finish.FAILED, cause="the KV transfer failed")
    assert machine.on(failed, 0.0) == [Choose(Role.DECODE, frozenset({D}))]
    (send,) = machine.on(Routed(D2), 0.0)
    assert isinstance(send, Send)
    assert send.kv_source is KvSource.LOCAL


def test_a_cancel_during_the_transfer_takes_effect_when_the_kv_has_come() -> None:
    for kind in (KvHandoff.PULL_BOUND, KvHandoff.PUSH):
        machine = of_kind(kind)
        machine.on(Routed(D), 0.0)
        machine.on(Ended(1, Finish.LENGTH, KV), 0.0)
        assert machine.on(Cancelled(), 0.0) == []
        assert not machine.over
        assert machine.on(Tokens(2, [5]), 0.0) == [Abort(2)], "and nothing is emitted"
        assert machine.over
        assert machine.on(Ended(2, Finish.ABORTED), 0.0) == []


def test_a_cancel_between_the_legs_releases_the_blocks() -> None:
    machine, _ = begun()
    machine.on(Routed(P), 0.0)
    machine.on(Ended(1, Finish.LENGTH, KV), 0.0)
    assert machine.on(Cancelled(), 0.0) == [Release(KV)]


def test_a_cancel_that_a_prefill_has_outrun_releases_its_blocks() -> None:
    machine, _ = begun()
    machine.on(Routed(P), 0.0)
    assert machine.on(Cancelled(), 0.0) == [Abort(1)]
    assert machine.on(Ended(1, Finish.LENGTH, KV), 0.0) == [Release(KV)]
    assert machine.on(Ended(1, Finish.LENGTH, KV), 0.0) == [], "once"


@pytest.mark.parametrize(
    ("decoder", "tokens", "prefill", "expected"),
    [
        (Role.UNIFIED, 999, True, (Path.IN_PLACE, Reason.UNIFIED_POOL)),
        (Role.DECODE, 15, True, (Path.IN_PLACE, Reason.SHORT_PROMPT)),
        (Role.DECODE, 16, True, (Path.TRANSFER, Reason.LONG_PROMPT)),
        (Role.DECODE, 16, False, (Path.IN_PLACE, Reason.NO_PREFILL_RANK)),
    ],
)
def test_the_path_and_its_reason(
    decoder: Role, tokens: int, prefill: bool, expected: tuple[Path, Reason]
) -> None:
    ranks = (RankView(P, Role.PREFILL, 0, 0, 4),) if prefill else ()
    choice = choose_path(SPEC, FleetView(ranks, 0.0), decoder, tokens)
    assert (choice.path, choice.reason) == expected


class AnyOrder(RuleBasedStateMachine):
    """Whatever engines, router, time and client do, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.sends: list[Send] = []
        self.ended: set[int] = set()
        self.emitted: list[int] = []
        self.finished: list[Finished] = []
        self.asked: Choose | None = None
        self.cancelled = False
        self.pinned = False
        self.made: list[KvParams] = []  # references, each another
        self.used: list[KvParams] = []  # by a decode or a release
        self.moving: set[int] = set()  # decodes whose KV has not come
        self.lost: set[int] = set()  # of those, the ones whose prefill has failed
        self.closed_at = 0  # emitted ids when the thought was closed
        self.sends_max = SPEC.attempts_max + 1

    @initialize(kv=st.sampled_from(list(KvHandoff)), thought=st.none() | st.integers(1, 6))
    def begin(self, kv: KvHandoff, thought: int | None) -> None:
        self.kv = kv
        self.thought = thought
        spec = replace(SPEC, kv=kv)
        self.machine = Handoff(spec, Role.DECODE, 20, 8, thought_of(thought))
        self.do(self.machine.on(Begun(Path.TRANSFER), self.now))

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Choose():
                    assert not self.finished, "an action after the end"
                    assert self.asked is None, "asked twice"
                    self.asked = action
                case Send():
                    assert not self.finished, "an action after the end"
                    fixed = self.pinned and len(self.emitted) > self.closed_at
                    assert not fixed, "sent what cannot be continued"
                    self.sends.append(action)
                    assert action.emitted == tuple(self.emitted)
                    if action.kv_params is not None:
                        self.used.append(action.kv_params)
                    if action.kv_source is KvSource.TRANSFER:
                        assert (action.kv_params is None) == (action.pair is not None)
                        self.moving.add(action.attempt)
                case Emit(ids):
                    assert not self.finished, "an action after the end"
                    self.emitted += ids
                case Release(kv_params):
                    self.used.append(kv_params)
                case Finished():
                    self.finished.append(action)
                case Abort(attempt):
                    assert attempt not in self.moving - self.lost, "KV was on its way"

    @rule(rank=st.sampled_from([P, D, D2, None]), excluded=st.booleans())
    @precondition(lambda self: self.asked is not None)
    def route(self, rank: RankId | None, excluded: bool) -> None:
        assert self.asked is not None
        only_failed = excluded and bool(self.asked.excluded)
        self.asked = None
        event = Routed(rank) if rank is not None else NotRouted(only_failed)
        self.do(self.machine.on(event, self.now))

    @rule(ids=st.lists(st.integers(2, 9), min_size=1, max_size=2), back=st.integers(0, 3))
    @precondition(lambda self: self.sends)
    def tokens(self, ids: list[int], back: int) -> None:
        attempt = max(1, len(self.sends) - back)
        if attempt not in self.ended and len(self.emitted) + len(ids) <= 8:
            self.moving.discard(attempt)
            self.do(self.machine.on(Tokens(attempt, ids), self.now))
            if self.machine.closed_thought and not self.closed_at:
                self.closed_at = len(self.emitted)
                self.sends_max = len(self.sends) + SPEC.attempts_max + 1

    @rule(finish=st.sampled_from(list(Finish)), kv=st.booleans(), back=st.integers(0, 3))
    @precondition(lambda self: self.sends)
    def end(self, finish: Finish, kv: bool, back: int) -> None:
        attempt = max(1, len(self.sends) - back)
        if attempt in self.ended:
            return
        self.ended.add(attempt)
        self.moving.discard(attempt)
        sent = self.sends[attempt - 1]
        params: KvParams | None = None
        good = finish in {Finish.STOP, Finish.LENGTH}
        if sent.kv_source is KvSource.PRODUCE:
            if good and kv and self.kv is not KvHandoff.PUSH:
                params = {"number": attempt}
                self.made.append(params)
            if not good and self.kv is KvHandoff.PUSH:
                self.lost.add(attempt + 1)
        self.do(self.machine.on(Ended(attempt, finish, params), self.now))

    @rule(seconds=st.floats(0.1, 50))
    @precondition(lambda self: self.asked is None)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.machine.on(Woken(), self.now))

    @rule()
    @precondition(lambda self: not self.finished and not self.cancelled)
    @precondition(lambda self: self.thought is None or MARK in self.emitted)  # an answer is pinned
    def pin(self) -> None:
        actions = self.machine.on(Pinned(), self.now)
        self.pinned = True
        if self.machine.over:
            self.asked = None
        self.do(actions)

    @rule()
    def move(self) -> None:
        if self.machine.movable is not None:
            self.sends_max = len(self.sends) + SPEC.attempts_max + 1
        self.do(self.machine.on(Moved(), self.now))

    @rule()
    def cancel(self) -> None:
        if not self.finished:
            self.cancelled = True
            self.asked = None
            self.do(self.machine.on(Cancelled(), self.now))

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "machine"):
            return
        assert len(self.finished) <= (0 if self.cancelled else 1)
        thought = self.emitted[: (*self.emitted, MARK).index(MARK)]
        assert self.thought is None or len(thought) <= self.thought
        assert len(self.sends) <= self.sends_max
        numbers = [params["number"] for params in self.used]
        assert len(numbers) == len(set(numbers)), "a reference was used or released twice"
        held = [params for params in self.made if params not in self.used]
        running = len(self.ended) < len(self.sends)
        if self.machine.over:
            assert not held, "blocks are stranded"
            assert self.cancelled or self.finished
            return
        assert len(held) <= 1
        if self.cancelled:
            assert self.moving, "it waits for nothing"
        else:
            assert running or self.asked or self.machine.waiting, "nothing would happen again"


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=400, stateful_step_count=30, deadline=None)
