"""The two sides of the token channel, without I/O: bytes are carried by hand, time is a number."""

import math
from collections.abc import Sequence
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from typing_extensions import override

from orchestrator.core import Role, token_ids
from orchestrator.engines import (
    ChannelLimits,
    End,
    EngineInfo,
    EngineLoad,
    Finish,
    Grammar,
    GrammarKind,
    Sampling,
    Submit,
    TokenLogprob,
)
from orchestrator.engines.channel import frames
from orchestrator.engines.channel.engine_side import Callee, EngineSide
from orchestrator.engines.channel.gateway_side import Caller, GatewaySide
from orchestrator.engines.channel.liveness import Phase
from orchestrator.handoff import Word

INFO = EngineInfo("test", "model", 100, 16, 10)
LOAD = EngineLoad(1, 2, 0.5, 3)
LIMITS = ChannelLimits(max_requests=4, max_frame_bytes=1024, high_water_bytes=64)


class Sink:
    """Notes what it gets and how often it was wrong."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.ends: list[End] = []
        self.cancelled_at: int | None = None  # tokens

    def on_tokens(self, ids: list[int], logprobs: Sequence[TokenLogprob] = ()) -> None:
        assert ids, "an empty update"
        assert not self.ends, "tokens after the end"
        assert self.cancelled_at is None, "tokens after the cancel"
        self.ids += ids
        self.logprobs += logprobs

    def on_end(self, end: End) -> None:
        assert not self.ends, "a second end"
        self.ends.append(end)


class RecordingHost:
    """Stands for an engine that does nothing of its own accord."""

    def __init__(self) -> None:
        self.running: dict[int, Submit] = {}
        self.aborted: list[int] = []
        self.woken = 0
        self.drains_s: list[float] = []
        self.words: list[Word] = []
        self.looks = 0

    def start(self, handle: int, submit: Submit) -> None:
        self.running[handle] = submit

    def abort(self, handle: int) -> None:
        self.aborted.append(handle)

    def wake(self) -> None:
        self.woken += 1

    def drain(self, drain_s: float) -> None:
        self.drains_s.append(drain_s)

    def pass_on(self, word: Word) -> None:
        self.words.append(word)

    def look(self) -> None:
        self.looks += 1


class Pair:
    """A gateway side and an engine side, and the bytes between them."""

    def __init__(self, caller: Caller | None = None, limits: ChannelLimits = LIMITS) -> None:
        self.host = RecordingHost()
        self.loads: list[tuple[EngineLoad, float]] = []
        self.drains_s: list[float | None] = []
        self.words: list[Word] = []
        callee = Callee("engine", Role.DECODE, INFO, "secret")
        self.engine = EngineSide(callee, limits, self.host, 0.0)
        self.gateway = GatewaySide(
            caller or Caller("gateway", "engine", "secret"),
            limits,
            self._beat,
            0.0,
        )

    def _beat(self, beat: frames.Beat, now: float) -> None:
        self.loads.append((beat.load, now))
        self.drains_s.append(beat.drain_s)
        if beat.word is not None:
            self.words.append(beat.word)

    def up(self, now: float = 0.0) -> None:
        self.engine.receive(self.gateway.output(), now)

    def down(self, now: float = 0.0) -> None:
        while output := self.engine.output():
            self.gateway.receive(output, now)

    def opened(self) -> "Pair":
        self.up()
        self.down()
        assert self.gateway.phase is self.engine.phase is Phase.OPEN
        return self

    def submit(self, request_id: str = "a", tokens: int = 3) -> Sink:
        sink = Sink()
        submit = Submit(request_id, token_ids(range(tokens)), Sampling(9))
        end = self.gateway.submit(submit, sink, 0)
        if end is not None:
            sink.on_end(end)
        return sink


def test_the_welcome_carries_what_the_engine_says_of_itself() -> None:
    pair = Pair().opened()
    welcome = pair.gateway.welcome
    assert welcome == frames.Welcome("engine", Role.DECODE, INFO, 4, 1024)
    assert pair.engine.gateway_id == "gateway"


@pytest.mark.parametrize(
    ("caller", "cause"),
    [
        (Caller("gateway", "another", "secret"), "this is engine engine, not another"),
        (Caller("gateway", "engine", "guess"), "the channel token is wrong"),
    ],
)
def test_a_wrong_caller_is_refused_with_the_cause(caller: Caller, cause: str) -> None:
    pair = Pair(caller)
    pair.up()
    assert pair.engine.phase is Phase.CLOSED
    pair.down()
    assert (pair.gateway.phase, pair.gateway.cause) == (Phase.CLOSED, cause)


def test_a_drain_that_one_side_asks_for_is_told_at_once_and_with_every_beat() -> None:
    pair = Pair().opened()
    pair.engine.tick(0.0, LOAD, frames.NOTHING)
    pair.gateway.drain(30.0)
    pair.up()
    assert pair.host.drains_s == [30.0]
    pair.engine.tick(0.1, LOAD, frames.NOTHING, 29.9)  # no heartbeat is due
    pair.engine.tick(0.2, LOAD, frames.NOTHING, 29.8)
    pair.engine.tick(1.0, LOAD, frames.NOTHING, 29.0)
    pair.down(1.0)
    assert pair.drains_s == [None, 29.9, 29.0]


def test_a_word_goes_from_one_gateway_to_another() -> None:
    teller, hearer = Pair().opened(), Pair().opened()
    word = Word("gateway-1", 1, 600.0, b"0123456789abcdef")
    teller.gateway.say(word)
    teller.up()
    assert teller.host.words == [word]
    hearer.engine.tell(word, LOAD, None)
    hearer.down()
    assert hearer.words == [word]


def test_a_channel_that_is_not_open_asks_for_no_drain() -> None:
    pair = Pair()
    pair.gateway.drain(30.0)
    pair.opened()
    assert pair.host.drains_s == []


def test_another_version_is_refused_with_the_cause() -> None:
    pair = Pair()
    pair.engine.receive(frames.frame(frames.Hello(99, "gateway", "engine", "secret")), 0.0)
    assert pair.engine.cause == f"the engine speaks version {frames.VERSION}, not 99"


def test_the_tokens_of_one_turn_travel_in_one_frame() -> None:
    pair = Pair().opened()
    sinks = [pair.submit(name) for name in "abc"]
    pair.up()
    for handle in (0, 1, 2, 0):
        pair.engine.on_tokens(handle, [handle + 10])
    output = pair.engine.output()
    (step,) = frames.engine_reader(1024).feed(output)
    assert step == frames.Tokens([0, 1, 2], [[10, 10], [11], [12]])
    pair.gateway.receive(output, 0.0)
    assert [sink.ids for sink in sinks] == [[10, 10], [11], [12]]


def test_the_engines_own_list_is_not_changed_by_coalescing() -> None:
    pair = Pair().opened()
    pair.submit()
    pair.up()
    own = [1]
    pair.engine.on_tokens(0, own)
    pair.engine.on_tokens(0, [2])
    assert own == [1]


def test_an_end_comes_after_all_tokens_even_if_they_take_many_frames() -> None:
    pair = Pair().opened()
    sink = pair.submit()
    pair.up()
    pair.engine.on_tokens(0, list(range(1000)))
    pair.engine.on_end(0, End(Finish.STOP))
    pair.down()
    assert sink.ids == list(range(1000))
    assert sink.ends == [End(Finish.STOP)]


@given(
    pending=st.dictionaries(
        st.integers(0, 2**40), st.lists(st.integers(0, 2**40), min_size=1), min_size=1
    ),
    frame_max=st.integers(200, 2000),
)
def test_split_tokens_loses_nothing_and_fits(pending: dict[int, list[int]], frame_max: int) -> None:
    expected = {handle: list(ids) for handle, ids in pending.items()}
    seen: dict[int, list[int]] = {}
    while pending:
        step = frames.split_tokens(pending, {}, frame_max)
        assert step.logprobs == []
        assert frames.payload_bytes(frames.frame(step)) <= frame_max
        for handle, ids in zip(step.handles, step.ids, strict=True):
            assert ids
            seen.setdefault(handle, []).extend(ids)
    assert seen == expected


LOGPROB = st.builds(
    TokenLogprob,
    st.floats(-9, 0),
    st.lists(st.tuples(st.integers(0, 2**40), st.floats(-9, 0)), max_size=20).map(tuple),
)


@settings(max_examples=30)  # each of up to 81 tokens with up to 20 alternatives
@given(
    requests=st.dictionaries(
        st.integers(0, 2**40),
        st.tuples(
            st.lists(st.tuples(st.integers(0, 2**40), LOGPROB), min_size=1, max_size=9),
            st.booleans(),
        ),
        min_size=1,
        max_size=9,
    ),
    frame_max=st.integers(600, 2000),
)
def test_split_tokens_keeps_logprobs_beside_their_ids_and_fits(
    requests: dict[int, tuple[list[tuple[int, TokenLogprob]], bool]], frame_max: int
) -> None:
    expected = {
        handle: (
            [id_ for id_, _ in tokens],
            [logprob for _, logprob in tokens] if asked else [],
        )
        for handle, (tokens, asked) in requests.items()
    }
    pending = {handle: list(ids) for handle, (ids, _) in expected.items()}
    logprobs = {handle: list(theirs) for handle, (_, theirs) in expected.items() if theirs}
    seen: dict[int, tuple[list[int], list[TokenLogprob]]] = {}
    reader = frames.engine_reader(frame_max)
    while pending:
        framed = frames.frame(frames.split_tokens(pending, logprobs, frame_max))
        assert frames.payload_bytes(framed) <= frame_max
        (step,) = reader.feed(framed)
        assert isinstance(step, frames.Tokens)
        theirs = step.logprobs or [[] for _ in step.handles]
        for handle, ids, part in zip(step.handles, step.ids, theirs, strict=True):
            assert ids
            assert len(part) in (0, len(ids))
            held = seen.setdefault(handle, ([], []))
            held[0].extend(ids)
            held[1].extend(part)
    assert seen == expected
    assert not logprobs


def test_logprobs_are_coalesced_and_arrive_with_their_ids() -> None:
    pair = Pair().opened()
    sinks = [pair.submit("wants"), pair.submit("does not")]
    pair.up()
    pair.engine.pause(0.0)
    best = TokenLogprob(-0.5, ((7, -0.5), (8, -1.5)))
    pair.engine.on_tokens(0, [7], [best])
    pair.engine.on_tokens(1, [9])
    pair.engine.on_tokens(0, [8, 7], [TokenLogprob(-1.0), best])
    pair.engine.resume()
    pair.down()
    assert (sinks[0].ids, sinks[0].logprobs) == ([7, 8, 7], [best, TokenLogprob(-1.0), best])
    assert (sinks[1].ids, sinks[1].logprobs) == ([9], [])


@pytest.mark.parametrize(
    "logprobs",
    [
        [[TokenLogprob(-1.0)], []],
        [[TokenLogprob(-1.0), TokenLogprob(-1.0)]],
    ],
    ids=["requests", "ids"],
)
def test_logprobs_of_another_length_than_their_ids_close_the_connection(
    logprobs: list[list[TokenLogprob]],
) -> None:
    pair = Pair().opened()
    sink = pair.submit()
    pair.up()
    pair.gateway.receive(frames.frame(frames.Tokens([0], [[5]], logprobs)), 0.0)
    assert pair.gateway.phase is Phase.CLOSED
    assert sink.ids == []
    assert sink.ends[0].finish is Finish.LOST


def test_a_peer_that_knows_no_logprobs_is_understood() -> None:
    framed = frames.frame(frames.Tokens([0], [[5]]))
    payload = msgspec.msgpack.decode(framed[4:])
    assert payload == [13, [0], [[5]], []]
    old = msgspec.msgpack.encode(payload[:3])
    (step,) = frames.engine_reader(1024).feed(len(old).to_bytes(4, "big") + old)
    assert step == frames.Tokens([0], [[5]])


def test_a_submit_above_the_credit_ends_at_once_and_is_not_sent() -> None:
    pair = Pair().opened()
    sinks = [pair.submit(str(number)) for number in range(5)]
    pair.up()
    assert [len(sink.ends) for sink in sinks] == [0, 0, 0, 0, 1]
    assert sinks[4].ends[0].finish is Finish.FAILED
    assert sinks[4].ends[0].cause == "the channel's 4 requests are all in use"
    assert len(pair.host.running) == 4


def test_credit_is_free_again_once_the_end_has_arrived() -> None:
    pair = Pair().opened()
    for number in range(4):
        pair.submit(str(number))
    pair.up()
    pair.engine.on_end(2, End(Finish.STOP))
    assert pair.submit("early").ends
    pair.down()
    assert not pair.submit("late").ends


def test_the_engine_keeps_the_credit_against_a_gateway_that_does_not() -> None:
    pair = Pair().opened()
    for handle in range(9):
        opening = frames.Open(handle, Submit(str(handle), token_ids((1,)), Sampling(1)))
        pair.engine.receive(frames.frame(opening), 0.0)
    assert sorted(pair.host.running) == [0, 1, 2, 3]
    for handle in range(9, 99):
        opening = frames.Open(handle, Submit(str(handle), token_ids((1,)), Sampling(1)))
        pair.engine.receive(frames.frame(opening), 0.0)
    assert pair.engine.cause == "the gateway sent more requests than it was given credit for"
    assert pair.host.aborted == [0, 1, 2, 3]


def test_a_prompt_above_the_frame_limit_is_refused_and_not_sent() -> None:
    pair = Pair().opened()
    sink = pair.submit(tokens=2000)
    assert sink.ends[0].finish is Finish.REFUSED
    assert pair.gateway.output() == b""


def test_a_second_request_of_the_same_id_fails_and_leaves_the_first_alone() -> None:
    pair = Pair().opened()
    first, second = pair.submit(), pair.submit()
    assert (len(first.ends), second.ends[0].finish) == (0, Finish.FAILED)


def test_too_many_unsent_bytes_fail_a_submit() -> None:
    pair = Pair().opened()
    end = pair.gateway.submit(
        Submit("a", token_ids((1,)), Sampling(1)), Sink(), LIMITS.max_unsent_bytes
    )
    assert end is not None
    assert end.finish is Finish.FAILED


def test_a_cancel_stops_the_tokens_at_once_and_the_end_still_comes() -> None:
    pair = Pair().opened()
    sink = pair.submit()
    pair.up()
    pair.engine.on_tokens(0, [1])
    pair.down()
    pair.gateway.cancel("a", 0.0)
    sink.cancelled_at = 1
    pair.engine.on_tokens(0, [2])
    pair.up()
    assert pair.host.aborted == [0]
    pair.engine.on_end(0, End(Finish.ABORTED))
    pair.down()
    assert (sink.ids, sink.ends) == ([1], [End(Finish.ABORTED)])


def test_a_cancel_that_the_engine_ignores_ends_lost_in_the_end() -> None:
    pair = Pair().opened()
    sink = pair.submit()
    pair.gateway.cancel("a", 0.0)
    pair.engine.tick(9.0, LOAD, frames.NOTHING)
    for now in range(1, 11):
        pair.gateway.receive(frames.frame(frames.Beat(LOAD)), float(now))
        assert not sink.ends
        pair.gateway.tick(float(now))
    assert sink.ends[0].finish is Finish.LOST
    assert pair.gateway.phase is Phase.OPEN
    pair.up()
    pair.engine.on_end(0, End(Finish.ABORTED))  # late, and ignored
    pair.down()
    assert len(sink.ends) == 1


def test_heartbeats_carry_the_load_with_the_instant_of_their_arrival() -> None:
    pair = Pair().opened()
    pair.engine.tick(3.0, LOAD, frames.NOTHING)
    pair.down(3.5)
    assert pair.loads == [(LOAD, 3.5)]


def _ticked(pair: Pair, until: float) -> None:
    for now in range(1, int(until) + 1):
        pair.gateway.tick(float(now))
        pair.engine.tick(float(now), LOAD, frames.NOTHING)


def test_silence_is_a_loss_at_the_limit_and_not_before() -> None:
    pair = Pair().opened()
    sink = pair.submit()
    pair.up()
    _ticked(pair, LIMITS.lost_after_s - 1)
    assert (pair.gateway.cause, pair.engine.cause) == ("", "")
    _ticked(pair, LIMITS.lost_after_s)
    assert pair.gateway.cause == pair.engine.cause == "the peer was silent for 10 s"
    assert sink.ends == [End(Finish.LOST, cause="the peer was silent for 10 s")]
    assert pair.host.aborted == [0]


def test_time_asleep_does_not_count_as_the_peers_silence() -> None:
    pair = Pair().opened()
    pair.gateway.tick(1.0)
    pair.gateway.tick(500.0)  # this process was stopped; its peer's bytes are still in the socket
    assert pair.gateway.phase is Phase.OPEN


def test_a_gateway_that_says_no_hello_is_cut() -> None:
    pair = Pair()
    pair.engine.tick(LIMITS.connect_s, LOAD, frames.NOTHING)
    assert pair.engine.phase is Phase.CLOSED


def test_a_gateway_that_does_not_read_costs_no_frames_and_is_cut() -> None:
    pair = Pair().opened()
    pair.submit()
    pair.up()
    pair.engine.pause(0.0)
    for now in range(1, 10):
        pair.engine.receive(frames.frame(frames.Pulse()), float(now))
        pair.engine.on_tokens(0, [now])
        pair.engine.tick(float(now), LOAD, frames.NOTHING)
        assert pair.engine.output() == b""
    assert pair.engine.unsent_tokens == 9
    pair.engine.receive(frames.frame(frames.Pulse()), 10.0)
    pair.engine.tick(10.0, LOAD, frames.NOTHING)
    assert pair.engine.cause == "the peer did not read for 10 s"
    assert pair.engine.unsent_tokens == 0
    assert pair.host.aborted == [0]


def test_what_was_held_back_arrives_when_the_gateway_reads_again() -> None:
    pair = Pair().opened()
    sink = pair.submit()
    pair.up()
    pair.engine.pause(0.0)
    for token in range(5):
        pair.engine.on_tokens(0, [token])
    pair.engine.on_end(0, End(Finish.LENGTH))
    assert pair.engine.output() == b""
    pair.engine.resume()
    pair.down()
    assert (sink.ids, len(sink.ends)) == ([0, 1, 2, 3, 4], 1)


def test_a_loss_ends_requests_in_the_order_of_their_submits() -> None:
    pair = Pair().opened()
    order: list[str] = []

    class Named(Sink):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        @override
        def on_end(self, end: End) -> None:
            order.append(self.name)
            # What a gateway does: it tries again, and must not be called from inside.
            retried = pair.gateway.submit(Submit("again", token_ids((1,)), Sampling(1)), self, 0)
            assert retried is not None
            assert retried.finish is Finish.LOST

    for name in "cab":
        pair.gateway.submit(Submit(name, token_ids((1,)), Sampling(1)), Named(name), 0)
    pair.gateway.close("cut")
    assert order == ["c", "a", "b"]


def test_kv_parameters_above_the_frame_limit_fail_the_request_only() -> None:
    pair = Pair().opened()
    sink = pair.submit()
    pair.up()
    pair.engine.on_end(0, End(Finish.LENGTH, kv_params={"blocks": list(range(2000))}))
    pair.down()
    assert sink.ends[0].finish is Finish.FAILED
    assert pair.gateway.phase is Phase.OPEN


def test_kv_parameters_pass_unread() -> None:
    pair = Pair().opened()
    sink = pair.submit()
    pair.up()
    params: dict[str, object] = {"host": "h", "blocks": [[1, 2], [3]], "port": 7, "none": None}
    pair.engine.on_end(0, End(Finish.LENGTH, kv_params=params))
    pair.down()
    assert sink.ends[0].kv_params == params


MALFORMED = {
    "oversized": b"\xff\xff\xff\xff",
    "empty": b"\x00\x00\x00\x00",
    "not a frame": b"\x00\x00\x00\x01\xc0",
    "unknown tag": b"\x00\x00\x00\x02\x91\x63",
    "wrong types": b"\x00\x00\x00\x03\x92\x03\xa0",
    "not utf-8": b"\x00\x00\x00\x07\x95\x01\x01\xa1\xff\xa0\xa0",
    "huge array": b"\x00\x00\x00\x05\xdd\xff\xff\xff\xff",
    "too deep": b"\x00\x00\x03\xe8" + b"\x91" * 1000,
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_bytes_close_the_connection_with_a_cause(data: bytes) -> None:
    pair = Pair().opened()
    sink = pair.submit()
    pair.up()
    pair.engine.receive(data, 0.0)
    assert pair.engine.phase is Phase.CLOSED
    assert pair.engine.cause.startswith("the gateway sent a ")
    assert pair.host.aborted == [0]
    pair.gateway.receive(data, 0.0)
    assert pair.gateway.cause.startswith("the engine sent a ")
    assert sink.ends[0].finish is Finish.LOST


@given(st.binary(max_size=200))
def test_no_bytes_raise(data: bytes) -> None:
    for pair in (Pair(), Pair().opened()):
        pair.engine.receive(data, 0.0)
        pair.gateway.receive(data, 0.0)


_submits = st.builds(
    Submit,
    request_id=st.text(max_size=5),
    prompt_ids=st.lists(st.integers(0, 2**32 - 1), max_size=20).map(token_ids),
    sampling=st.builds(Sampling, max_tokens=st.integers(1, 100)),
)
_from_gateway = st.one_of(
    st.builds(frames.Open, handle=st.integers(0, 2**32), submit=_submits),
    st.builds(frames.Cancel, handle=st.integers(0, 300)),
    st.just(frames.Pulse()),
    st.builds(frames.Pulse, st.floats(0, 1e6)),
    st.builds(
        frames.Hello,
        version=st.integers(0, 3),
        gateway_id=st.text(max_size=5),
        engine_id=st.text(max_size=5),
        token=st.text(max_size=5),
    ),
)


@given(
    messages=st.lists(_from_gateway, max_size=8),
    tail=st.binary(max_size=12),
    cuts=st.lists(st.integers(0, 2000), max_size=20),
)
def test_any_chunking_of_the_bytes_gives_the_same_messages(
    messages: list[frames.FromGateway], tail: bytes, cuts: list[int]
) -> None:
    stream = b"".join(map(frames.frame, messages)) + tail
    whole = _read([stream])
    assert whole[0][: len(messages)] == messages
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    assert _read([stream[a:b] for a, b in pairwise(edges)]) == whole
    assert _read([bytes([byte]) for byte in stream]) == whole


def _read(chunks: list[bytes]) -> tuple[list[frames.FromGateway], bool]:
    reader = frames.gateway_reader(1024)
    messages: list[frames.FromGateway] = []
    try:
        for chunk in chunks:
            for message in reader.feed(chunk):
                messages.append(message)  # noqa: PERF402  the reader may raise after some
    except frames.FrameError:
        return messages, True
    return messages, False


class AnyInterleaving(RuleBasedStateMachine):
    """Both sides under every order of submits, tokens, cancels, ends, stalls, chunks and losses."""

    @initialize()
    def connect(self) -> None:
        self.pair = Pair().opened()
        self.sinks: dict[str, Sink] = {}
        self.running: dict[int, str] = {}  # in the engine
        self.sent: dict[str, list[int]] = {}
        self.ended: dict[str, End] = {}  # by the engine
        self.upwards = b""
        self.downwards = b""
        self.now = 0.0

    @rule()
    def submit(self) -> None:
        name = f"r{len(self.sinks)}"
        self.sinks[name] = self.pair.submit(name)
        self._collect()

    @precondition(lambda self: self.sinks)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.sinks)))
        self.pair.gateway.cancel(name, self.now)
        self.sinks[name].cancelled_at = len(self.sinks[name].ids)
        self._collect()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), count=st.integers(1, 40))
    def tokens(self, data: st.DataObject, count: int) -> None:
        handle = data.draw(st.sampled_from(sorted(self.running)))
        sent = self.sent.setdefault(self.running[handle], [])
        ids = list(range(len(sent), len(sent) + count))
        sent += ids
        self.pair.engine.on_tokens(handle, ids)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), finish=st.sampled_from([Finish.STOP, Finish.LENGTH, Finish.FAILED]))
    def end(self, data: st.DataObject, finish: Finish) -> None:
        handle = data.draw(st.sampled_from(sorted(self.running)))
        aborted = handle in self.pair.host.aborted
        end = End(Finish.ABORTED if aborted else finish)
        self.ended[self.running.pop(handle)] = end
        self.pair.engine.on_end(handle, end)

    @rule(share=st.floats(0, 1))
    def carry_up(self, share: float) -> None:
        cut = math.ceil(len(self.upwards) * share)
        data, self.upwards = self.upwards[:cut], self.upwards[cut:]
        self.pair.engine.receive(data, self.now)
        for handle, submit in self.pair.host.running.items():
            self.running[handle] = submit.request_id
        self.pair.host.running.clear()

    @rule(share=st.floats(0, 1))
    def carry_down(self, share: float) -> None:
        while output := self.pair.engine.output():
            self.downwards += output
        cut = math.ceil(len(self.downwards) * share)
        data, self.downwards = self.downwards[:cut], self.downwards[cut:]
        self.pair.gateway.receive(data, self.now)

    @rule(paused=st.booleans())
    def stall(self, paused: bool) -> None:
        if paused:
            self.pair.engine.pause(self.now)
        else:
            self.pair.engine.resume()

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0]))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.pair.gateway.tick(self.now)
        self.pair.engine.tick(self.now, LOAD, frames.NOTHING)
        self._collect()

    @rule()
    def lose(self) -> None:
        self.pair.gateway.close("cut")
        self.pair.engine.close("cut")

    @invariant()
    def held_tokens_are_bounded_by_the_requests(self) -> None:
        assert self.pair.engine.open_requests <= LIMITS.max_requests
        assert self.pair.gateway.open_requests <= LIMITS.max_requests

    @invariant()
    def tokens_arrive_in_order(self) -> None:
        for name, sink in self.sinks.items():
            assert sink.ids == self.sent.get(name, [])[: len(sink.ids)]

    @override
    def teardown(self) -> None:
        if not hasattr(self, "pair"):
            return
        self.stall(paused=False)
        for _ in range(3):
            self.carry_up(1.0)
            self.carry_down(1.0)
        intact = self.pair.gateway.phase is Phase.OPEN
        for name, end in self.ended.items():
            if intact and self.sinks[name].ends[0].finish is not Finish.LOST:
                assert self.sinks[name].ends == [end]
                if self.sinks[name].cancelled_at is None:
                    assert self.sinks[name].ids == self.sent.get(name, [])
        self.lose()
        assert [len(sink.ends) for sink in self.sinks.values()] == [1] * len(self.sinks)
        assert self.pair.gateway.open_requests == 0

    def _collect(self) -> None:
        self.upwards += self.pair.gateway.output()


AnyInterleaving.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None
)
TestAnyInterleaving = AnyInterleaving.TestCase


def test_frames_stay_as_they_are_on_the_wire() -> None:
    """Golden: what is not a new field at the end is another VERSION."""
    step = frames.frame(frames.Tokens([0, 300], [[1], [2, 70000]]))
    assert (
        step.hex() == "0000001294" + "0d" + "9200cd012c" + "92" + "9101" + "9202ce00011170" + "90"
    )
    submit = Submit("a", token_ids((1,)), Sampling(2, 0.0, 1.0, None, ()))
    decoded = msgspec.msgpack.decode(frames.frame(frames.Open(5, submit))[4:])
    sampling: list[object] = [2, 0.0, 1.0, None, [], 0.0, 0.0, None, None, None]
    rest = ["local", None, "", "", 0.0, None, ""]
    assert decoded == [2, 5, ["a", b"\x01\x00\x00\x00", sampling, *rest]]
    logprobs = frames.frame(frames.Tokens([0], [[1]], [[TokenLogprob(-0.5, ((1, -0.5),))]]))
    assert msgspec.msgpack.decode(logprobs[4:]) == [13, [0], [[1]], [[[-0.5, [[1, -0.5]]]]]]


def test_what_a_request_asks_of_the_output_arrives() -> None:
    pair = Pair().opened()
    sampling = Sampling(
        9,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logprobs=3,
        grammar=Grammar(GrammarKind.JSON_SCHEMA, "{}"),
        thinking_budget=7,
    )
    submit = Submit("a", token_ids((1,)), sampling, cache_salt="salt")
    assert pair.gateway.submit(submit, Sink(), 0) is None
    pair.up()
    assert pair.host.running == {0: submit}
