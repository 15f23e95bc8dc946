"""What is measured of the requests of one model at one gateway, phase by phase.

The hot path is a token: nothing here is called for one but `Gaps.add`, of one stream in eight.
"""

from collections import deque
from dataclasses import dataclass

from orchestrator import admission
from orchestrator.core import Finish, KvSource, Request
from orchestrator.handoff import Path, Send
from orchestrator.routing import Decision
from orchestrator.spec import ModelSpec
from orchestrator.telemetry import Metrics, metrics
from orchestrator.telemetry.metrics.labels import Slo, Transfer
from orchestrator.telemetry.registry import Observed

ITL_STREAMS = 8  # of so many streams one is measured token by token
_RECENT = 32  # transfers, by which the feature is judged


@dataclass(slots=True)
class Times:
    """When a request came to what, as its client knows it; 0: it has not. TPOT is of the tokens
    behind the first ones.
    """

    arrived_at: float
    first_at: float = 0.0
    answer_at: float = 0.0
    first_tokens: int = 1  # that came together

    def tpot_s(self, now: float, tokens: int) -> float | None:
        """Mean gap; None of a request with nothing behind its first tokens."""
        more = tokens - self.first_tokens
        return (now - self.first_at) / more if more > 0 else None


@dataclass(slots=True)
class _Leg:
    """One submission that runs."""

    source: KvSource
    sent_at: float
    prompt_tokens: int
    hit_tokens: int  # that routing believed in
    begun: bool = False


class Measures:
    """Counts what happens to requests; never waits, never raises."""

    def __init__(self, counted: Metrics, model: ModelSpec) -> None:
        self._counted = counted
        self._name = model.name
        self._slo = model.scaling
        self._legs: dict[tuple[str, int], _Leg] = {}  # by request and attempt
        self._prefilled_at: dict[str, float] = {}  # by request, until its decode begins
        self._pulls: dict[str, float] = {}  # decodes that wait for KV, oldest first
        self._streams = 0
        self.recent: deque[Transfer] = deque(maxlen=_RECENT)
        if self._slo is not None:
            counted.set(metrics.SLO_TARGET, self._slo.attainment, self._name)

    # --- admission -----------------------------------------------------------------------------

    def decided(self, decision: admission.Decision, request: Request, now: float) -> None:
        """Admission has said something of the request."""
        whose = (self._name, request.klass)
        if isinstance(decision, admission.Admit):
            self._counted.observe(metrics.QUEUED, now - request.arrived_at, *whose)
        self._counted.count(metrics.ADMISSION, 1, *whose, decision.word, decision.reason)

    # --- legs ----------------------------------------------------------------------------------

    def sent(self, request: Request, send: Send, decision: Decision, now: float) -> None:
        """A submission goes to its rank."""
        tokens = request.prompt_tokens + len(send.emitted)
        hits = decision.question.hit_tokens.get(send.rank_id, 0)
        leg = _Leg(send.kv_source, now, tokens, hits)
        self._legs[request.request_id, send.attempt] = leg
        if send.kv_source is KvSource.TRANSFER:
            self._pulls[request.request_id] = now

    def began(self, request: Request, attempt: int, now: float) -> None:
        """A submission's first token has come."""
        leg = self._legs.get((request.request_id, attempt))
        if leg is None or leg.begun:
            return
        leg.begun = True
        whose = (self._name, request.klass)
        match leg.source:
            case KvSource.LOCAL:
                waited_s = now - leg.sent_at
                self._counted.observe(metrics.PREFILL, waited_s, *whose, Path.IN_PLACE)
            case KvSource.TRANSFER:
                self._pulls.pop(request.request_id, None)
                since = self._prefilled_at.pop(request.request_id, leg.sent_at)
                self._counted.observe(metrics.TRANSFERRED, max(0.0, now - since), *whose)
            case KvSource.PRODUCE:
                pass  # it has ended when its KV can be had

    def left(
        self, request: Request, attempt: int, finish: Finish, cached_tokens: int, now: float
    ) -> None:
        """A submission has its end."""
        leg = self._legs.pop((request.request_id, attempt), None)
        if leg is None:
            return
        well = finish in {Finish.STOP, Finish.LENGTH}
        if leg.source is KvSource.TRANSFER:
            self._pulls.pop(request.request_id, None)
            self._transferred(leg, finish, cached_tokens)
        elif well:
            hit = min(cached_tokens, leg.prompt_tokens)
            self._counted.count(metrics.PREFILLED, leg.prompt_tokens, self._name)
            self._counted.count(metrics.PREFIX_HITS, leg.hit_tokens, self._name, "predicted")
            self._counted.count(metrics.PREFIX_HITS, hit, self._name, "actual")
        if leg.source is KvSource.PRODUCE and well:
            took_s = now - leg.sent_at
            whose = (self._name, request.klass)
            self._counted.observe(metrics.PREFILL, took_s, *whose, Path.TRANSFER)
            self._prefilled_at[request.request_id] = now

    def _transferred(self, leg: _Leg, finish: Finish, cached_tokens: int) -> None:
        if finish is Finish.ABORTED or finish is Finish.REFUSED:
            return  # nobody knows
        if not leg.begun and finish in {Finish.FAILED, Finish.LOST}:
            outcome = Transfer.FAILED
        elif finish in {Finish.FAILED, Finish.LOST}:
            return  # died in mid-stream, and did not say
        else:  # an engine computes the last token, and some the block that it is in
            missing = leg.prompt_tokens - cached_tokens
            outcome = Transfer.RECOMPUTED if missing > BLOCK_TOKENS_MAX else Transfer.MOVED
        self.recent.append(outcome)
        self._counted.count(metrics.TRANSFERS, 1, self._name, outcome)

    def closed(self, request: Request) -> None:
        """Nothing more is asked for the request; ends that still come are not measured."""
        self._pulls.pop(request.request_id, None)
        self._prefilled_at.pop(request.request_id, None)

    def look(self, now: float) -> None:
        """Sets what only the moment knows."""
        self._counted.set(metrics.TRANSFERS_OPEN, len(self._pulls), self._name)
        oldest_s = now - next(iter(self._pulls.values()), now)
        self._counted.set(metrics.TRANSFERS_OLDEST, oldest_s, self._name)

    # --- what the client sees ------------------------------------------------------------------

    def gaps(self, request: Request) -> Observed | None:
        """Where to add the gaps between this stream's tokens; None: it is not one of those."""
        self._streams += 1
        if self._streams % ITL_STREAMS:
            return None
        return self._counted.observed(metrics.ITL, self._name, request.klass)

    def first(self, request: Request, waited_s: float) -> None:
        """The client has its first token."""
        self._counted.observe(metrics.TTFT, waited_s, self._name, request.klass)

    def answered(self, request: Request, waited_s: float) -> None:
        """It has the first token behind the thought."""
        self._counted.observe(metrics.ANSWER, waited_s, self._name, request.klass)

    def ended(
        self, klass: str, outcome: str, times: Times, reasoning: int, answer: int, now: float
    ) -> None:
        """The one end of the request, and its tokens of each part."""
        counted, whose = self._counted, (self._name, klass)
        counted.count(metrics.REQUESTS, 1, *whose, outcome)
        counted.count(metrics.TOKENS, reasoning, *whose, "reasoning")
        counted.count(metrics.TOKENS, answer, *whose, "answer")
        counted.observe(metrics.E2E, now - times.arrived_at, *whose)
        tpot_s = times.tpot_s(now, reasoning + answer) if times.first_at else None
        if tpot_s is not None:
            counted.observe(metrics.TPOT, tpot_s, *whose)
        if (slo := self._judged(outcome, times, tpot_s)) is not None:
            counted.count(metrics.SLO, 1, *whose, slo)

    def _judged(self, outcome: str, times: Times, tpot_s: float | None) -> Slo | None:
        if self._slo is None or outcome in _CLIENTS_OWN:
            return None
        if outcome in _OURS:
            return Slo.FAILED
        if outcome.startswith("error_"):
            return None
        if times.first_at - times.arrived_at > self._slo.ttft_s:
            return Slo.TTFT
        if tpot_s is not None and tpot_s > self._slo.tpot_s:
            return Slo.TPOT
        return Slo.KEPT


# Of R1's KV: vLLM's largest on GPUs, and what it may compute again though it was moved.
BLOCK_TOKENS_MAX = 128
_CLIENTS_OWN = frozenset({"cancelled", "stalled"})
_OURS = frozenset({"error_500", "error_503", "insufficient_system_resource"})
