"""Runs one simulation, or two on the same arrivals, and writes what was asked for."""

import argparse
import contextlib
import csv
import gzip
import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path

from orchestrator.cli import simulate_html, simulate_table
from orchestrator.cli.plan_inputs import read_slo, read_workload
from orchestrator.core import SpecError
from orchestrator.sim.call import Call
from orchestrator.sim.chance import Chance
from orchestrator.sim.faults import Kind, SimFault, draw_faults
from orchestrator.sim.kv_path import EventPath
from orchestrator.sim.meter import Bounds, Meter
from orchestrator.sim.planned import Planned, planned
from orchestrator.sim.sources import ClosedLoop, OpenLoop
from orchestrator.sim.world import Scenario, World
from orchestrator.spec import parse_mapping, parse_plan, read_text
from orchestrator.workload import TraceRequest, Workload, drawn_requests, open_trace

_DURATION_S = 600.0  # of a workload that has no end of its own
_CURE = "write one with `r1-serve plan --format values`"


@dataclass(frozen=True, slots=True)
class Result:
    """One run, for whoever shows it."""

    name: str
    command: str
    source: str
    plan: Planned
    meter: Meter
    faults: tuple[SimFault, ...]
    lasted_s: float  # in virtual time
    took_s: float
    events: int

    @property
    def gpu_hours(self) -> float:
        """That were held, whatever they did."""
        return sum(self.meter.held_s.values()) / 3600

    @property
    def gpus(self) -> float:
        """That were held on average."""
        return sum(self.meter.held_s.values()) / self.lasted_s

    @property
    def cost(self) -> float | None:
        """US dollars, if the plan has a price."""
        price = self.plan.price_per_gpu_hour
        return None if price is None else price * self.gpu_hours


def run(options: argparse.Namespace, command: str) -> None:
    """Everything that the command does."""
    paths = options.compare or [options.plan]
    results = [_one(options, path, command) for path in paths]
    if options.format == "json":
        trees = [simulate_table.tree(result) for result in results]
        json.dump(trees if options.compare else trees[0], sys.stdout, indent=2)
        print()
    else:
        print(simulate_table.table(results))
    if options.report:
        _write(options.report, simulate_html.page(results))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"cannot write {path}: {error.strerror}", "name another file") from error


def _one(options: argparse.Namespace, path: Path, command: str) -> Result:
    plan = read_plan(path, options.seed)
    duration_s, source, requests = _requests(options, plan)
    calls = _calls(requests, options)
    chance = Chance(options.seed)
    faults = draw_faults(chance, _kinds(options.faults), duration_s)
    scenario = Scenario(
        pools=plan.pools,
        seed=options.seed,
        gateways=options.gateways,
        path=EventPath(options.event_delay_s, loss=options.event_loss),
        spec=plan.spec,
        model=plan.spec.models[0].name,
        max_model_len=plan.spec.models[0].max_model_len,
        overhead_s=plan.overhead_s,
        warm=not options.cold,
        bounds=_bounds(options, plan),
        faults=faults,
    )
    with contextlib.ExitStack() as stack:
        write = _log(options, path, stack)
        world = World(scenario, write)
        world.brief = _briefs(options, path, stack)
        world.progress = _progress(duration_s, source)
        began = time.monotonic()
        if options.concurrency:
            total = options.requests or 10 * options.concurrency
            meter = world.run(ClosedLoop(lambda _: next(calls), options.concurrency, total))
        else:
            meter = world.run(OpenLoop(calls))
        took_s = time.monotonic() - began
    _clear()
    lasted_s = max(meter.last_end_at, 1e-9)
    return Result(
        path.stem, command, source, plan, meter, faults, lasted_s, took_s, world.agenda.done
    )


# --- what is played ------------------------------------------------------------------------------


def read_plan(path: Path, seed: int) -> Planned:
    """What the values of `r1-serve plan` say of a fleet. Raises SpecError."""
    text = read_text(path, "plan")
    spec = parse_plan(text, str(path))
    tree = parse_mapping(text, str(path), _CURE).get("plan")
    asked = tree.get("asked") if isinstance(tree, dict) else None
    if not isinstance(asked, dict):
        raise SpecError(f"{path}: no `plan.asked`, which names the GPUs", _CURE)
    return planned(spec, asked, str(path), seed)


def _requests(
    options: argparse.Namespace, plan: Planned
) -> tuple[float, str, Iterator[TraceRequest]]:
    """How long requests come, from where, and the requests."""
    draw = Chance(options.seed)
    if options.trace is not None:
        factor = options.rate or 1.0
        requests: Iterator[TraceRequest] = _from_first(open_trace(options.trace, draw), factor)
        if options.duration:
            last_s = options.duration
            requests = takewhile(lambda request: request.at_s <= last_s, requests)
        return options.duration or 3600.0, options.trace.name, requests
    workload = read_workload(options.workload or plan.workload or "chat")
    rate = None if options.concurrency else _rate(options, workload, plan)
    requests = drawn_requests(workload, draw, rate)
    duration_s = options.duration or _DURATION_S
    if rate is not None and not options.requests:
        requests = takewhile(lambda request: request.at_s <= duration_s, requests)
    elif rate is not None:
        duration_s = options.requests / rate
    return duration_s, f"{workload.name}: {workload.source}", requests


def _rate(options: argparse.Namespace, workload: Workload, plan: Planned) -> float:
    own = workload.arrivals.requests_per_s if workload.arrivals else None
    rate = options.rate or own or plan.requests_per_s
    if rate is None:
        raise SpecError(
            "neither the plan nor the workload says how many requests come",
            "give --rate REQUESTS_PER_S, or --concurrency N",
        )
    return float(rate)


def _from_first(requests: Iterator[TraceRequest], factor: float) -> Iterator[TraceRequest]:
    """Instants from the first request on, so many times as fast; in order."""
    first: float | None = None
    last = 0.0
    for request in requests:
        first = request.at_s if first is None else first
        last = max(last, (request.at_s - first) / factor)  # traces have small steps back
        yield request._replace(at_s=last)


def _calls(requests: Iterator[TraceRequest], options: argparse.Namespace) -> Iterator[Call]:
    if options.requests and not options.concurrency:
        requests = islice(requests, options.requests)
    for number, request in enumerate(requests):
        yield call_of(number, request, options.thinking)


def call_of(number: int, request: TraceRequest, thinking: float) -> Call:
    """A client's request; `thinking` is the share of its output, where the trace does not say."""
    output = max(1, request.output_tokens)
    return Call(
        number,
        request.at_s,
        max(1, request.input_tokens),
        output,
        request.thinking_tokens or int(thinking * output),
        request.hash_ids,
        max_tokens=max(32_768, output),
        klass=request.klass,
    )


def _kinds(words: str) -> list[Kind]:
    if words == "none":
        return []
    if words == "all":
        return list(Kind)
    names = [word.strip().replace("-", "_") for word in words.split(",")]
    known = {kind.value for kind in Kind}
    for name in names:
        if name not in known:
            raise SpecError(
                f"--faults {words}: there is no fault {name}",
                f"give none, all, or some of {', '.join(sorted(known))}",
            )
    return [Kind(name) for name in names]


def _bounds(options: argparse.Namespace, plan: Planned) -> dict[str, Bounds]:
    found = {"": plan.bounds}
    if options.slo:
        found[""] = bounds_of(options.slo)
    for text in options.class_slo or ():
        name, colon, bounds = text.partition(":")
        if not colon:
            raise SpecError(f"--class-slo {text}: no class", "give for example chat:ttft=2s")
        found[name] = bounds_of(bounds)
    return found


def bounds_of(text: str) -> Bounds:
    """Of an SLO as `plan` reads it."""
    slo = read_slo(text)
    return Bounds(slo.ttft_s, slo.itl_s)


# --- what is written meanwhile -------------------------------------------------------------------


def _log(
    options: argparse.Namespace, path: Path, stack: contextlib.ExitStack
) -> Callable[[bytes], object] | None:
    if options.log is None:
        return None
    log: Path = options.log
    name = log if not options.compare else log.with_stem(f"{log.stem}-{path.stem}")
    file = stack.enter_context(_opened(name))
    return file.write


def _opened(path: Path) -> io.BufferedIOBase | gzip.GzipFile:
    try:
        if path.suffix == ".gz":
            return gzip.GzipFile(path, "wb", compresslevel=1, mtime=0)
        return path.open("wb")
    except OSError as error:
        raise SpecError(f"cannot write {path}: {error.strerror}", "name another file") from error


def _briefs(
    options: argparse.Namespace, path: Path, stack: contextlib.ExitStack
) -> Callable[[float, str, dict[str, object]], None] | None:
    """Every decision with its reason, one short line each, beside the report."""
    if options.report is None:
        return None
    name = decisions_path(options.report, path.stem if options.compare else "")
    text = io.TextIOWrapper(_opened(name), encoding="utf-8", newline="")  # type: ignore[type-var]
    stack.enter_context(text)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("at_s", "request", "event", "decision", "reason"))

    def write(at: float, event: str, fields: dict[str, object]) -> None:
        cells = (fields.get(key) for key in ("request_id", "decision", "reason"))
        request, decision, reason = cells
        writer.writerow((f"{at:.4f}", request, event, decision, reason))

    return write


def decisions_path(report: Path, which: str) -> Path:
    """The file of decisions that belongs to a report."""
    stem = f"{report.stem}-{which}" if which else report.stem
    return report.with_name(f"{stem}.decisions.csv.gz")


def _progress(duration_s: float, source: str) -> Callable[[float, int, int], None] | None:
    """A bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        return None
    shown = [0.0]

    def show(now: float, begun: int, in_flight: int) -> None:
        at = time.monotonic()
        if at < shown[0]:
            return
        shown[0] = at + 0.2
        share = min(1.0, now / duration_s)
        bar = "#" * int(30 * share)
        line = f"[{bar:<30}] {now:,.0f} s  {begun:,} requests, {in_flight:,} in flight"
        print(f"\r{line:<78}", end="", file=sys.stderr, flush=True)

    return show


def _clear() -> None:
    if sys.stderr.isatty():
        print(f"\r{'':<78}\r", end="", file=sys.stderr, flush=True)
