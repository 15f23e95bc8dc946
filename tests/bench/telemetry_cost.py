"""What telemetry costs: CPU time of a gateway's counting and of a scrape, and of reading GPUs.

The gateway's own code is timed, apart from all that surrounds it: beside whole streams, whose cost
varies by a tenth from run to run, three hundredths could not be seen.
"""

import gc
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from orchestrator.admission import Admit, Queue, Reason
from orchestrator.codec import Begin, Splitter, Tokenizer
from orchestrator.core import (
    Finish,
    FleetView,
    KvSource,
    RankId,
    Request,
    RequestId,
    Role,
    TokenCounts,
)
from orchestrator.engines import EngineLoad
from orchestrator.engines.tiny_checkpoint import published_tokenizer
from orchestrator.gateway import Spending, Times
from orchestrator.gateway.measures import ITL_STREAMS, Measures
from orchestrator.gateway.pool_measures import PoolMeasures, RankSeen
from orchestrator.gateway.relay import Call, heard
from orchestrator.handoff import Send
from orchestrator.routing import Choice, Decision, Leg, Question
from orchestrator.routing import Reason as RouteReason
from orchestrator.spec import ModelSpec, PoolScaling, PoolSpec, ScalingSpec, Spec
from orchestrator.telemetry import Metrics, metrics
from orchestrator.telemetry.gpu import set_gpus
from orchestrator.telemetry.metrics.labels import Stage
from orchestrator.telemetry.recorded import RecordedReader

STREAMS, ITL_S = 2_000, 0.02  # a token of each stream each so often
OUTPUT_TOKENS = 1_000  # of a request: so many requests a second
TICK_S, PROGRESS_S, SCRAPE_S = 0.5, 10.0, 15.0
RANKS, CLASSES = 128, ("", "gold", "batch")
BUSY_MAX = 0.03  # of a gateway's core

SLO = ScalingSpec(1.0, 0.05, (PoolScaling(Role.PREFILL, 1), PoolScaling(Role.DECODE, 1)))
MODEL = ModelSpec("", (PoolSpec(Role.PREFILL), PoolSpec(Role.DECODE)), "DeepSeek-R1", scaling=SLO)
SPEC = Spec((MODEL,))
RANK = RankId("gang/0")


@dataclass(frozen=True)
class Cost:
    """CPU seconds of one of each, and what a scrape holds the loop up for at once."""

    token_s: float
    request_s: float
    tick_s: float
    charge_s: float
    scrape_s: float
    piece_s: float
    scrape_bytes: int

    @property
    def busy(self) -> float:
        """Of one core, with `STREAMS` streams."""
        tokens = STREAMS / ITL_S
        return (
            self.token_s * tokens
            + self.request_s * tokens / OUTPUT_TOKENS
            + self.tick_s / TICK_S
            + self.charge_s * STREAMS / PROGRESS_S
            + self.scrape_s / SCRAPE_S
        )


def _each_s(action: Callable[[], object], times: int) -> float:
    """CPU seconds of one call, the loop's own taken off."""
    gc.collect()
    began_s = time.process_time()
    for _ in range(times):
        action()
    spent_s = time.process_time() - began_s
    began_s = time.process_time()
    for _ in range(times):
        pass
    return (spent_s - (time.process_time() - began_s)) / times


def measure() -> Cost:
    """All of it once."""
    counted = Metrics()
    measures = Measures(counted, MODEL)
    pools = PoolMeasures(counted, SPEC, MODEL, measures)
    spending = Spending(counted, SPEC)
    ranks = [_rank(number) for number in range(RANKS)]
    request = _one_request(counted, measures, spending)
    request_s = _each_s(lambda: next(request), 5_000)
    now = count()
    tick_s = _each_s(lambda: pools.tick(ranks, next(now) * TICK_S), 500)
    before, used = TokenCounts(900, 100, 300), TokenCounts(900, 100, 800)
    charge_s = _each_s(lambda: spending.charged(MODEL, "gold", before, used, 10**9), 5_000)
    counted.before_exposition(lambda: measures.look(0.0))
    counted.before_exposition(lambda: pools.look(ranks))
    pieces, longest_s = _pieces(counted)
    scrape_s = _each_s(counted.exposition, 20)
    return Cost(_token_s(measures), request_s, tick_s, charge_s, scrape_s, longest_s, pieces)


def _token_s(measures: Measures) -> float:
    """Of all streams on average: one in eight is measured token by token."""
    tokenizer = Tokenizer.load(published_tokenizer())
    splitter = Splitter(tokenizer, begin=Begin.THOUGHT)
    calls = [_call(splitter) for _ in range(ITL_STREAMS)]
    for call in calls:
        call.gaps = measures.gaps(_request(0))
    assert sum(call.gaps is not None for call in calls) == 1
    instants = iter([at * ITL_S for at in range(40_000 * ITL_STREAMS + 1)])

    def all_of_them() -> None:
        now = next(instants)
        for call in calls:
            heard(call, splitter, now)

    return _each_s(all_of_them, 40_000) / ITL_STREAMS


def _call(splitter: Splitter) -> Call:
    """As far as `heard` looks at it."""
    call = Call.__new__(Call)
    call.times, call.splitter = Times(0.0, 1.0), splitter
    call.gaps, call.heard_at, call.in_thought = None, 0.0, True
    return call


def _request(number: int) -> Request:
    klass = CLASSES[number % len(CLASSES)]
    return Request(RequestId(f"{number}"), 1_000, 4_000, 0.0, 60.0, klass=klass)


def _one_request(counted: Metrics, measures: Measures, spending: Spending) -> Iterator[None]:
    """All that is counted of one request but its tokens, each time round."""
    question = Question(Leg.PREFILL, 1_000, 1, {RANK: 512})
    chosen = Choice(RANK, RouteReason.ONLY_RANK)
    decision = Decision(chosen, FleetView((), 0.0), Role.PREFILL, question, ())
    prefill = Send(1, RANK, KvSource.PRODUCE, None, (), 1)
    decode = Send(2, RANK, KvSource.TRANSFER, {}, (), 4_000)
    for number in count():
        request = _request(number)
        counted.observe(metrics.STAGE, 0.002, Stage.PREPARE)
        counted.observe(metrics.STAGE, 0.0004, Stage.OPEN)
        measures.decided(Queue(request.request_id, 1, Reason.NO_SLOT), request, 0.0)
        measures.decided(Admit(request.request_id, Reason.SLOT_FREE), request, 0.1)
        counted.count(metrics.PATHS, 1, MODEL.name, "transfer", "long_prompt")
        counted.count(metrics.PROMPT_TOKENS, 1_000, MODEL.name, request.klass)
        measures.sent(request, prefill, decision, 0.1)
        measures.began(request, 1, 0.3)
        measures.left(request, 1, Finish.LENGTH, 512, 0.3)
        measures.sent(request, decode, decision, 0.3)
        measures.began(request, 2, 0.4)
        measures.first(request, 0.4)
        measures.gaps(request)
        measures.answered(request, 10.0)
        measures.left(request, 2, Finish.STOP, 1_000, 20.0)
        measures.closed(request)
        measures.ended(request.klass, "stop", Times(0.0, 0.4, 10.0), 500, 500, 20.0)
        used = TokenCounts(488, 512, 500, 500)
        spending.charged(MODEL, request.klass, TokenCounts(), used, 10**9)
        yield


def _rank(number: int) -> RankSeen:
    role = Role.PREFILL if number % 4 == 0 else Role.DECODE
    gang = f"DeepSeek-R1-{role}-{number // 8}"
    return RankSeen(f"{gang}/{number}", role, gang, EngineLoad(number % 9, 0, 0.5, 7), None, True)


def _pieces(counted: Metrics) -> tuple[int, float]:
    """Bytes of a scrape, and the longest time between two turns of the loop in it."""
    size, longest_s = 0, 0.0
    pieces = counted.pieces()
    while True:
        began_s = time.process_time()
        piece = next(pieces, None)
        longest_s = max(longest_s, time.process_time() - began_s)
        if piece is None:
            return size, longest_s
        size += len(piece)


def reading_s() -> float:
    """CPU seconds of one look at the recorded GPUs, set as metrics, in the telemetry process."""
    recording = Path(__file__).parents[2] / "orchestrator/telemetry/gpus-made.jsonl"
    reader, counted = RecordedReader(recording), Metrics()
    return _each_s(lambda: set_gpus(counted, "n", reader.source, reader.read()), 500)


def main() -> int:
    """Prints it; 1 if a target is missed."""
    cost = measure()
    print(
        f"token {cost.token_s * 1e9:.0f} ns, request {cost.request_s * 1e6:.1f} us, "
        f"tick {cost.tick_s * 1e6:.0f} us, scrape {cost.scrape_s * 1e3:.2f} ms of "
        f"{cost.scrape_bytes:,} bytes, at once {cost.piece_s * 1e3:.2f} ms, "
        f"busy {cost.busy:.4f}; GPUs {reading_s() * 1e3:.3f} ms"
    )
    return int(cost.busy > BUSY_MAX)


if __name__ == "__main__":
    sys.exit(main())
