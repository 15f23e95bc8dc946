"""A run from its start to its result: one play after another."""

from collections.abc import Callable
from dataclasses import dataclass

from loadtest.capacity import Search, Step
from loadtest.engine import Limits
from loadtest.load import Load
from loadtest.meter import Span
from loadtest.play import Play, Played, Player
from loadtest.result import Capacity, Latency, Result, Slo, Window
from loadtest.scrape import Scraper
from loadtest.shapes import Shape, soak

_SETTLE_LIVES = 1.5  # lives of a long request until the open streams are those of the load
_DRAIN_LIVES = 3.0  # before what is left of a backlog is given up
_REST_S = 0.5
_LOOK_S = 0.1

Tell = Callable[[str], None]  # a line for whoever looks on


@dataclass(slots=True)
class Driver:
    """Runs plays and gathers their windows in `result`, which is whole at every instant."""

    player: Player
    load: Load
    result: Result
    timeout_s: float
    scraper: Scraper | None
    tell: Tell
    stopped: bool = False
    _sent: int = 0

    def stop(self) -> None:
        """Ends it with what was measured."""
        self.stopped = True
        self.player.stop()

    def run(self, shape: Shape, spans: list[Span], count: int | None) -> None:
        """One shape."""
        limits = Limits(self.timeout_s, self.timeout_s)
        self._play(Play(shape, spans, limits, self.result.slo, 0, count))

    def find_capacity(self, search: Search, life_s: float) -> None:
        """Steps until the search has its answer; `life_s` is what a request takes alone."""
        while not self.stopped:
            step = search.next()
            if isinstance(step, Capacity):
                self.result.capacity = step
                self.tell(f"capacity {step.per_s:.3g} requests/s: {step.reason}")
                return
            if step.drain:
                self._drain(life_s)
            windows = self._step(step, life_s)
            for window in windows:
                search.note(window)
                long_s = window.latencies[Latency.E2E].histogram().quantile(0.9)
                life_s = min(long_s or life_s, self.timeout_s)

    def _step(self, step: Step, life_s: float) -> list[Window]:
        settle_s = max(step.settle_s, _SETTLE_LIVES * life_s)
        end_s = settle_s + step.duration_s
        limits = Limits(self.timeout_s, self.timeout_s, gives_up=True)
        span = Span(settle_s, end_s, step.per_s)
        play = Play(soak(step.per_s, end_s), [span], limits, self.result.slo, self._sent)
        return self._play(play).windows

    def _play(self, play: Play) -> Played:
        played = self.player.play(play)
        self._sent += played.sent
        if self.scraper is not None:
            self.scraper.tell(played.windows)
        self.result.windows += played.windows
        for window in played.windows:
            self.tell(_line(window, self.result.slo))
        return played

    def _drain(self, life_s: float) -> None:
        """Waits for the streams that are left of the last play."""
        until = self.player.now() + _DRAIN_LIVES * life_s
        while self.player.open_streams and self.player.now() < until and not self.stopped:
            self.player.wait(_LOOK_S)
        self.player.give_up()
        self.player.wait(_REST_S)


def _line(window: Window, slo: Slo) -> str:
    ttft = window.latencies[Latency.TTFT].histogram()
    share = window.good / window.due if window.due else 0.0
    said = [
        f"{window.begin_s:7.1f} s: {window.offered_per_s:8.3g} requests/s, {window.due} due",
        f"{window.good} good ({share:.1%} of {slo.share:.1%})",
        f"TTFT p50 {ttft.quantile(0.5):.3f} s, p99 {ttft.quantile(0.99):.3f} s",
        f"{window.concurrency:.0f} streams",
    ]
    if window.errors:
        counted = sorted(window.errors.items())
        said.append("errors " + " ".join(f"{name}={count}" for name, count in counted))
    if window.bottleneck != "none":
        said.append("THE GENERATOR WAS THE BOTTLENECK")
    return "; ".join(said)
