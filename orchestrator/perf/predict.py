"""Predictions of measured rows, many rows at once, whatever their hardware and engine."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from orchestrator.perf.architecture import ARCHITECTURES
from orchestrator.perf.bands import Mode
from orchestrator.perf.cases import Case, Side
from orchestrator.perf.factors import Efficiency, Factors
from orchestrator.perf.layout import Array, EngineFamily, LayoutGrid
from orchestrator.perf.ledger import ledger
from orchestrator.perf.point import Point
from orchestrator.perf.step import decode_pass
from orchestrator.perf.system import Pool, prefill_cost, solve_disaggregated, solve_unified
from orchestrator.perf.traffic import ClosedLoop, Traffic

_MODEL = ARCHITECTURES["DeepSeek-R1"]
_KV_BATCH_MAX = 1024.0  # where a row leaves the batch to the KV room: SGLang's usual limit a rank


@dataclass(frozen=True, slots=True)
class Stack:
    """Cases of one mode as arrays of shape [cases]."""

    mode: Mode
    cases: tuple[Case, ...]
    index: tuple[int, ...]  # of each case in the list that it came from
    kinds: tuple[tuple[str, EngineFamily, str], ...]
    kind: NDArray[np.intp]  # of each case: its place in `kinds`
    side: Point
    prefill: Point | None
    gangs: Array
    prefill_gangs: Array
    batch_max: Array
    traffic: Traffic
    load: Array


def stacks(cases: Sequence[Case]) -> list[Stack]:
    """The cases by mode, ready to be predicted again and again with other factors."""
    out = []
    for mode in Mode:
        index = tuple(i for i, case in enumerate(cases) if case.mode is mode)
        if index:
            out.append(_stack(mode, [cases[i] for i in index], index))
    return out


def _stack(mode: Mode, cases: list[Case], index: tuple[int, ...]) -> Stack:
    kinds = sorted({_kind(case) for case in cases})
    sides = [_point(case, case.side) for case in cases]
    prefills = [_point(case, case.prefill) for case in cases if case.prefill]
    context = np.array([case.input_tokens + case.output_tokens / 2 for case in cases])
    room = np.array([float(ledger(_grid(c, c.side)).kv_tokens_per_rank[0]) for c in cases])
    return Stack(
        mode=mode,
        cases=tuple(cases),
        index=index,
        kinds=tuple(kinds),
        kind=np.array([kinds.index(_kind(case)) for case in cases]),
        side=Point.stack(sides),
        prefill=Point.stack(prefills) if prefills else None,
        gangs=np.array([case.side.gangs for case in cases]),
        prefill_gangs=np.array([case.prefill.gangs if case.prefill else 0.0 for case in cases]),
        batch_max=room / np.maximum(context, 1.0),
        traffic=Traffic(
            input_tokens=np.array([case.input_tokens for case in cases]),
            output_tokens=np.array([case.output_tokens for case in cases]),
            prefix_hit=np.array([case.prefix_hit for case in cases]),
            accept_tokens=_accepted(cases),
        ),
        load=np.array([case.concurrency for case in cases]),
    )


def _kind(case: Case) -> tuple[str, EngineFamily, str]:
    return case.gpu.generation, case.engine, case.precision.experts.value


def _accepted(cases: list[Case]) -> Array:
    own = Traffic(0, 0).accepted(np.array([float(case.side.layout.mtp_drafts) for case in cases]))
    stated = np.array([case.accept_tokens or np.nan for case in cases])
    return np.where(np.isnan(stated), own, stated)


def _grid(case: Case, side: Side) -> LayoutGrid:
    return LayoutGrid.of([side.layout], _MODEL, case.gpu, case.precision, case.engine, case.fabric)


def _point(case: Case, side: Side) -> Point:
    return Point.of(_grid(case, side), balance=case.balance)


def predict(stack: Stack, factors: Sequence[Factors]) -> dict[str, Array]:
    """Each metric that the mode has, of shape [factors, cases], whether or not a case has it."""
    e = _efficiency(stack, factors)
    pool, load = Pool(stack.side, e, stack.gangs), ClosedLoop(stack.load)
    match stack.mode:
        case Mode.DECODE:
            return _decode(stack, e)
        case Mode.PREFILL:
            return _prefill(stack, pool)
        case Mode.UNIFIED:
            found = solve_unified(pool, stack.traffic, load, stack.batch_max)
        case Mode.DISAGGREGATED:
            assert stack.prefill is not None
            prefill = Pool(stack.prefill, e, stack.prefill_gangs)
            found = solve_disaggregated(prefill, pool, stack.traffic, load, stack.batch_max)
        case _:
            assert_never(stack.mode)
    return {
        "tpot": found.tpot_s,
        "ttft": found.ttft_s,
        "rate": found.request_rate,
        "output_tokens": found.output_tokens_per_s_per_gpu,
        "total_tokens": found.total_tokens_per_s_per_gpu,
    }


METRICS = {
    Mode.UNIFIED: ("tpot", "ttft", "rate", "output_tokens", "total_tokens"),
    Mode.DISAGGREGATED: ("tpot", "ttft", "rate", "output_tokens", "total_tokens"),
    Mode.PREFILL: ("input_tokens", "ttft"),
    Mode.DECODE: ("tpot", "output_tokens"),
}


def _efficiency(stack: Stack, factors: Sequence[Factors]) -> Efficiency:
    each = [[some.of(*kind) for kind in stack.kinds] for some in factors]
    return Efficiency(
        **{
            f.name: np.array([[getattr(e, f.name) for e in row] for row in each])[:, stack.kind]
            for f in fields(Efficiency)
        }
    )


def _decode(stack: Stack, e: Efficiency) -> dict[str, Array]:
    traffic = stack.traffic
    room = np.minimum(stack.batch_max, _KV_BATCH_MAX)
    batch = np.where(stack.load > 0, stack.load, room)
    step = decode_pass(stack.side, e, batch, traffic.context()).total_s
    each = step / traffic.accepted(stack.side.drafts)
    return {"tpot": each, "output_tokens": batch / each / (stack.side.tp * stack.side.pp)}


def _prefill(stack: Stack, pool: Pool) -> dict[str, Array]:
    cost = prefill_cost(pool, stack.traffic)
    rate = stack.traffic.input_tokens * stack.gangs / cost.work_s / pool.gpus
    return {"input_tokens": rate, "ttft": cost.prompt_s + pool.efficiency.first_token_s}
