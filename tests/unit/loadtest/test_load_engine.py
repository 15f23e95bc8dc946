"""Requests go out when they are due, and what waits is seen to wait."""

from collections.abc import Callable

import pytest
from typing_extensions import override

from loadtest.agenda import VirtualHost
from loadtest.engine import Ask, Ending, Engine, Limits
from loadtest.load import LoadSpec, read_load
from loadtest.meter import Span, WindowMeter
from loadtest.result import Bottleneck, Latency, Slo, Window
from loadtest.shapes import soak
from loadtest.stream import StreamReader
from tests.virtual_load import ScriptedServer

SLO = Slo(ttft_s=0.5, itl_s=0.05)
LIMITS = Limits(timeout_s=60.0, tail_s=60.0)


def played(
    host: VirtualHost,
    server: ScriptedServer,
    per_s: float,
    until_s: float,
    windows: int = 1,
    limits: Limits = LIMITS,
) -> tuple[Engine, list[Window]]:
    spec = LoadSpec("input=100,output=10", "", None, None, 3, "salt", "m")
    asks = read_load(spec).asks(soak(per_s, until_s), 0)
    width_s = until_s / windows
    spans = [Span(width_s * at, width_s * (at + 1), per_s) for at in range(windows)]
    engine = Engine(host, server, SLO, limits, asks, [WindowMeter(span) for span in spans])
    engine.start()
    host.run(lambda: engine.ending is not None)
    return engine, engine.windows()


def test_each_request_that_was_due_comes_to_one_end() -> None:
    host = VirtualHost()
    server = ScriptedServer(host, slots=64, step_s=0.01, tokens=10)
    engine, windows = played(host, server, 20.0, 60.0, windows=3)
    assert engine.ending is Ending.MEASURED
    for window in windows:
        assert window.due == window.ended == window.good == sum(each.due for each in window.slices)
        assert window.due == pytest.approx(400, rel=0.15)
        assert len(window.slices) == 12
        assert window.latencies[Latency.E2E].count == window.due
        assert window.latencies[Latency.ITL_ANSWER].histogram().mean == pytest.approx(0.01)
        assert window.tokens.answer == 10 * window.due
        assert window.tokens.asked_prompt == window.tokens.prompt == 100 * window.due
        # Little's law
        e2e = window.latencies[Latency.E2E].histogram()
        assert window.concurrency == pytest.approx(window.due / 20.0 * e2e.mean, rel=0.1)
        assert window.bottleneck is Bottleneck.NONE


def test_a_stalled_server_shows_in_the_latencies_and_is_not_blamed_on_the_generator() -> None:
    host = VirtualHost()
    server = ScriptedServer(host, slots=64, step_s=0.01, tokens=10, stall_s=(20.0, 25.0))
    _, (window,) = played(host, server, 20.0, 60.0)
    ttft = window.latencies[Latency.TTFT].histogram()
    # A twelfth of the time, and all who came in it waited: a closed loop would have seen one each.
    assert ttft.most == pytest.approx(5.0, abs=0.3)
    assert ttft.quantile(0.90) < 0.5 < 2.0 < ttft.quantile(0.97)
    late = window.due - window.good
    assert late == pytest.approx(4.5 * 20, rel=0.25)
    assert window.bottleneck is Bottleneck.NONE
    assert window.late.histogram().most == 0.0


class Stopping(VirtualHost):
    """A process that stands still for the last fifth of each second."""

    @override
    def now(self) -> float:
        """Instants at which it stands still do not exist for it."""
        at_s = super().now()
        begun = int(at_s)
        return max(at_s, begun + 1.0) if at_s - begun >= 0.8 else at_s


def test_a_late_generator_is_the_bottleneck_and_hides_nothing() -> None:
    host = Stopping()
    server = ScriptedServer(host, slots=64, step_s=0.01, tokens=10)
    _, (window,) = played(host, server, 20.0, 60.0)
    assert window.late.histogram().quantile(0.99) > 0.1
    assert window.latencies[Latency.TTFT].histogram().quantile(0.99) > 0.1
    assert window.bottleneck is Bottleneck.GENERATOR


def test_a_lagging_loop_is_the_bottleneck() -> None:
    host = VirtualHost()
    meter = WindowMeter(Span(0.0, 10.0, 1.0))
    server = ScriptedServer(host, slots=64, step_s=0.01, tokens=10)
    engine = Engine(host, server, SLO, LIMITS, iter(()), [meter])
    engine.lag(0.001, 480)
    assert window_of(meter).bottleneck is Bottleneck.NONE
    engine.lag(0.3, 20)
    assert window_of(meter).bottleneck is Bottleneck.GENERATOR


def window_of(meter: WindowMeter) -> Window:
    window = meter.window(SLO, 10.0)
    assert window is not None
    return window


def test_a_request_without_an_end_is_a_timeout_and_not_good() -> None:
    host = VirtualHost()
    server = ScriptedServer(host, slots=64, step_s=0.01, tokens=10, stall_s=(5.0, 1e9))
    engine, (window,) = played(host, server, 5.0, 10.0, limits=Limits(3.0, 60.0))
    assert engine.ending is Ending.MEASURED
    assert window.errors == {"timeout": window.due - window.ended}
    assert window.due > window.good > 0


def test_requests_that_have_missed_their_slo_are_given_up_where_only_that_is_asked() -> None:
    host = VirtualHost()
    server = ScriptedServer(host, slots=64, step_s=0.01, tokens=10, stall_s=(5.0, 1e9))
    engine, (window,) = played(host, server, 5.0, 10.0, limits=Limits(600.0, 600.0, gives_up=True))
    assert engine.ending is Ending.HOPELESS
    assert host.now() < 12.0
    assert window.errors == {"too_late": window.due - window.ended}


def test_load_goes_on_until_what_is_measured_has_ended() -> None:
    host = VirtualHost()
    server = ScriptedServer(host, slots=64, step_s=0.5, tokens=10)
    engine, (window,) = played(host, server, 5.0, 10.0)
    assert engine.sent > window.due + 15  # in the five seconds of the last one's life
    assert engine.open_streams > 0
    host.run(lambda: not engine.open_streams)
    assert window.due == window.ended


def test_what_was_measured_by_an_early_stop_is_whole_slices() -> None:
    host = VirtualHost()
    server = ScriptedServer(host, slots=64, step_s=0.1, tokens=10)
    spec = LoadSpec("input=100,output=10", "", None, None, 3, "salt", "m")
    asks = read_load(spec).asks(soak(10.0, 120.0), 0)
    engine = Engine(host, server, SLO, LIMITS, asks, [WindowMeter(Span(0.0, 120.0, 10.0))])
    engine.start()
    host.call_at(57.0, engine.stop)
    host.run(lambda: engine.ending is not None)
    (window,) = engine.windows()
    assert engine.ending is Ending.STOPPED
    assert (window.end_s, len(window.slices)) == (50.0, 5)  # slices of ten seconds
    assert window.due == window.ended > 400


class Talkative:
    """A server that answers at once, and keeps what it was asked."""

    def __init__(self, host: VirtualHost, server: ScriptedServer) -> None:
        self.bodies: list[bytes] = []
        self._server = server

    def send(
        self, body: bytes, reader: StreamReader, done: Callable[[], None]
    ) -> Callable[[], None]:
        self.bodies.append(body)
        return self._server.send(body, reader, done)


def test_an_agents_turn_repeats_the_one_before_with_its_answer() -> None:
    host = VirtualHost()
    server = Talkative(host, ScriptedServer(host, slots=64, step_s=0.01, tokens=10))
    load = read_load(LoadSpec("agent,rate=1", "", None, None, 5, "salt", "m"))
    first: Ask = next(ask for ask in load.asks(soak(1.0, 600.0), 0) if ask.then is not None)
    engine = Engine(host, server, SLO, LIMITS, iter([first]), [WindowMeter(Span(0.0, 100.0, 1.0))])
    engine.start()
    host.run(lambda: engine.ending is not None)
    assert len(server.bodies) > 1
    (window,) = engine.windows()
    assert window.due == window.ended == len(server.bodies)
    for before, after in zip(server.bodies, server.bodies[1:], strict=False):
        beginning = before[before.index(b'"messages"') : -2]
        assert after[after.index(b'"messages"') :].startswith(beginning)
        answer = b'{"role": "assistant", "content": "' + b" word" * 10 + b'"}'
        assert after[len(before) - 2 :].startswith(b", " + answer)
