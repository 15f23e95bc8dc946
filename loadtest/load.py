"""What is sent: a kind of users, numbers or a trace, as asks at the rates of a shape."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import msgspec

from loadtest.arrivals import Trace, bent, drawn_unit, whole_trace
from loadtest.engine import Ask
from loadtest.kinds import KINDS, SessionShape
from loadtest.prompts import Prompter
from loadtest.sessions import session_asks
from loadtest.shapes import Shape
from orchestrator.core import SpecError
from orchestrator.workload import (
    Arrivals,
    TraceRequest,
    Workload,
    changed,
    from_numbers,
    open_trace,
    read_numbers,
    split_numbers,
)


class LoadSpec(msgspec.Struct, frozen=True):
    """What every process of a generator is told. Exactly one of `workload` and `trace`."""

    workload: str
    trace: str
    limit: int | None  # requests of the trace
    gap_cv: float | None  # of drawn arrivals; None: the workload's own
    seed: int
    salt: str
    model: str
    overhead_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """A spec that was read: nothing of it can be wrong any more."""

    spec: LoadSpec
    name: str
    workload: Workload | None
    trace: Trace | None
    session: SessionShape | None

    @property
    def own_per_s(self) -> float | None:
        """The rate that it has by itself."""
        if self.trace is not None:
            return self.trace.per_s
        assert self.workload is not None
        return None if self.workload.arrivals is None else self.workload.arrivals.requests_per_s

    @property
    def typical(self) -> TraceRequest:
        """A request of median lengths, without a prefix."""
        if self.trace is not None:
            inputs = sorted(request.input_tokens for request in self.trace.requests)
            outputs = sorted(request.output_tokens for request in self.trace.requests)
            return TraceRequest(0.0, inputs[len(inputs) // 2], outputs[len(outputs) // 2])
        assert self.workload is not None
        prompt, output = self.workload.input_tokens.p50, self.workload.output_tokens.p50
        return TraceRequest(0.0, round(max(1.0, prompt)), round(max(1.0, output)))

    def prompter(self) -> Prompter:
        """Of its texts."""
        return Prompter(self.spec.model, self.spec.salt, self.spec.overhead_tokens)

    def asks(self, shape: Shape, first: int, share: tuple[int, int] = (0, 1)) -> Iterator[Ask]:
        """From request number `first` on, at the shape's rates; endless.

        Of `share` (k, n) every n-th from the k-th on: the n shares together are the whole, each
        request at its instant.
        """
        prompter = self.prompter()
        if self.session is not None:
            turns = self.session.turns_mean
            starts = self._unit(first // turns)
            slow = (each._replace(at_s=each.at_s * turns) for each in starts)
            mine = islice(bent(slow, shape), share[0], None, share[1])
            seed = f"{self.spec.seed}/{first}/{share[0]}"
            yield from session_asks(mine, self.session, prompter, seed)
            return
        requests = enumerate(bent(self._unit(first), shape), first)
        for number, request in islice(requests, share[0], None, share[1]):
            yield _ask(request, prompter, str(number))

    def _unit(self, first: int) -> Iterator[TraceRequest]:
        if self.trace is not None:
            yield from self.trace.unit(first)
            return
        assert self.workload is not None
        unit = drawn_unit(self.workload, lambda name: random.Random(f"{self.spec.seed}/{name}"))
        begin: float | None = None
        for request in islice(unit, first, None):
            begin = request.at_s if begin is None else begin
            yield request._replace(at_s=request.at_s - begin)


def _ask(request: TraceRequest, prompter: Prompter, name: str) -> Ask:
    return Ask(request.at_s, request.input_tokens, lambda: prompter.body(request, name))


def read_load(spec: LoadSpec) -> Load:
    """Reads it wholly, a trace to its last line; raises SpecError with what is wrong."""
    if spec.trace:
        path = Path(spec.trace)
        requests = open_trace(path, lambda name: random.Random(f"{spec.seed}/{name}"))
        return Load(spec, path.name, None, whole_trace(requests, path.name, spec.limit), None)
    name, pairs = split_numbers(spec.workload)
    origin = f"--workload {spec.workload}"
    numbers = read_numbers(pairs, origin)
    session = None
    if not name:
        workload = from_numbers(numbers, origin)
    elif name in KINDS:
        workload = changed(KINDS[name].workload, numbers, origin)
        session = KINDS[name].session
    else:
        raise SpecError(
            f"{origin}: no kind of users is called {name}",
            f"give one of {', '.join(KINDS)}, or input=TOKENS,output=TOKENS",
        )
    if spec.gap_cv is not None:
        workload = replace(workload, arrivals=_varied(workload.arrivals, spec.gap_cv))
    return Load(spec, name or "numbers", workload, None, session)


def _varied(arrivals: Arrivals | None, gap_cv: float) -> Arrivals:
    return replace(arrivals or Arrivals(1.0, 1.0, gap_cv), gap_cv=gap_cv)
