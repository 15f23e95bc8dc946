"""`r1-serve bench routing`: a trace through the routing code, against simulated engines."""

import argparse
import random
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from orchestrator.cli.bench_compare import add_compare
from orchestrator.cli.bench_load import add_load_capacity, add_load_run
from orchestrator.cli.bench_report import add_report
from orchestrator.core import SpecError
from orchestrator.core.arguments import not_negative, positive, share
from orchestrator.sim import (
    POLICIES,
    EngineModel,
    EventPath,
    HitAt,
    Load,
    Scores,
    play,
    scores,
)
from orchestrator.workload import TraceRequest, open_trace


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    value: str  # name in Scores
    scale: float
    digits: int
    ratio: bool = False  # shown beside the oracle's


_COLUMNS = (
    _Column("hit", "hit", 1, 3, ratio=True),
    _Column("TTFT mean ms", "ttft_s_mean", 1e3, 1, ratio=True),
    _Column("p50", "ttft_s_p50", 1e3, 1, ratio=True),
    _Column("p99", "ttft_s_p99", 1e3, 1, ratio=True),
    _Column("TPOT mean ms", "tpot_s_mean", 1e3, 2),
    _Column("E2E mean s", "e2e_s_mean", 1, 3),
    _Column("busiest/mean", "busiest", 1, 2),
)


def add_bench(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.description = (
        "Measures one part of r1-serve, or all of it by load, and says what that means."
    )
    what = parser.add_subparsers(required=True, metavar="WHAT")
    _add_routing(what.add_parser("routing", help="routing policies on a trace, in virtual time"))
    add_load_run(what.add_parser("run", help="a load on a real deployment, measured"))
    add_load_capacity(
        what.add_parser("find-capacity", help="the highest load that a deployment takes")
    )
    add_report(what.add_parser("report", help="what a load test means, as a page"))
    add_compare(what.add_parser("compare", help="two load tests, with significance"))


def _add_routing(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Plays a trace in Mooncake's format through routing policies in front of simulated "
        "engines, in virtual time, and prints each policy beside a greedy oracle that sees every "
        "engine's cache and queue. Seconds are those of the engine model below, not of a GPU."
    )
    add = parser.add_argument
    add("--trace", type=Path, required=True, metavar="FILE", help="JSON lines, plain or gzipped")
    add("--ranks", type=_count, default=8, metavar="N", help="engines (default 8)")
    add("--blocks", type=_count, default=2000, metavar="K", help="KV blocks of each (default 2000)")
    add(
        "--policy",
        action="append",
        choices=tuple(POLICIES),
        help="may be given several times (default kv; oracle always runs)",
    )
    add("--skip", type=_natural, default=0, metavar="N", help="requests left out at the beginning")
    add("--requests", type=_count, metavar="N", help="requests played (default all)")
    add("--rate", type=positive, default=1.0, help="arrivals, as a factor of the trace's")
    add("--input-scale", type=positive, default=0.25, help="prompt lengths, as a factor")
    add("--output-scale", type=positive, default=1 / 16, help="output lengths, as a factor")
    add("--event-delay-s", type=not_negative, default=0.0, help="age of KV events at the router")
    add("--event-loss", type=share, default=0.0, help="share of event batches that get lost")
    add("--seed", type=int, default=0, help="of losses and of policies that draw")
    engine = parser.add_argument_group("engine model")
    model = EngineModel(blocks=1)
    engine.add_argument("--block-tokens", type=_count, default=model.block_tokens)
    engine.add_argument("--prefill-base-s", type=not_negative, default=model.prefill_base_s)
    engine.add_argument("--prefill-token-s", type=not_negative, default=model.prefill_token_s)
    engine.add_argument("--step-s", type=positive, default=model.step_s)
    engine.add_argument("--step-request-s", type=not_negative, default=model.step_request_s)
    engine.add_argument("--stall", type=share, default=model.stall)
    engine.add_argument("--slots", type=_count, default=model.slots)
    engine.add_argument("--hit-at", type=HitAt, choices=list(HitAt), default=model.hit_at)
    parser.set_defaults(run=_routing, spec_error_code=2)


def _routing(options: argparse.Namespace) -> int:
    trace = _trace(options)
    oracle = _scores(options, trace, "oracle")
    print(
        f"{options.trace.name}: {len(trace)} requests over "
        f"{(trace[-1].at_s - trace[0].at_s) / options.rate:.0f} s, {options.ranks} ranks of "
        f"{options.blocks} blocks; (x.xxx) is the ratio to the oracle"
    )
    print(f"{'policy':<15}" + "".join(f"{c.title:>{_width(c)}}" for c in _COLUMNS))
    for name in dict.fromkeys(["oracle", *(options.policy or ["kv"])]):
        row = oracle if name == "oracle" else _scores(options, trace, name)
        print(f"{name:<15}" + "".join(_cell(c, row, oracle) for c in _COLUMNS), flush=True)
    return 0


def _trace(options: argparse.Namespace) -> list[TraceRequest]:
    """The requests that are played."""
    last = None if options.requests is None else options.skip + options.requests
    requests = open_trace(options.trace, lambda name: random.Random(f"{options.seed}/{name}"))
    trace = list(islice(requests, options.skip, last))
    if not trace:
        raise SpecError(
            f"{options.trace} has no request behind the first {options.skip}", "skip fewer"
        )
    for number, request in enumerate(trace):
        if not request.hash_ids:
            raise SpecError(
                f"{options.trace}: request {options.skip + number + 1} has no hash ids",
                "give a trace whose prompts can share prefixes",
            )
    return sorted(trace, key=lambda request: request.at_s)


def _scores(options: argparse.Namespace, trace: list[TraceRequest], policy: str) -> Scores:
    model = EngineModel(
        options.blocks,
        options.block_tokens,
        options.prefill_base_s,
        options.prefill_token_s,
        options.step_s,
        options.step_request_s,
        options.stall,
        options.slots,
        options.hit_at,
    )
    load = Load(options.rate, options.input_scale, options.output_scale)
    path = EventPath(options.event_delay_s, options.event_loss, options.seed)
    make = POLICIES[policy]
    played = play(
        trace, load, model, options.ranks, lambda engines: make(engines, options.seed), path
    )
    return scores(played)


def _width(column: _Column) -> int:
    return 18 if column.ratio else 14


def _cell(column: _Column, row: Scores, oracle: Scores) -> str:
    value, best = getattr(row, column.value), getattr(oracle, column.value)
    text = f"{value * column.scale:.{column.digits}f}"
    if column.ratio:
        text += f" ({value / best:.3f})" if best else " (-)"
    return f"{text:>{_width(column)}}"


# --- arguments -----------------------------------------------------------------------------------


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _count(text: str) -> int:
    if not (value := _natural(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return value
