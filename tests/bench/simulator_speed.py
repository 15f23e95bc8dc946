"""How fast the simulator is on one core, and what it holds: `make bench-simulator`.

A fleet of 32 ranks that serves requests of a thousand tokens in and out; then, if its file is
there, an hour of ServeGen's DeepSeek-R1. Seconds are CPU time of this process, so that neighbours
on a shared machine do not count. Memory is what Python holds at a tenth and at the end of a run:
were it bound to the trace and not to the work in flight, it would grow tenfold.
"""

import argparse
import gc
import sys
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.core import Role
from orchestrator.perf import ARCHITECTURES, HARDWARE, Layout, LayoutGrid, Precision
from orchestrator.sim.call import Call
from orchestrator.sim.chance import Chance
from orchestrator.sim.models import gang_model
from orchestrator.sim.pools import SimPool
from orchestrator.sim.sources import OpenLoop
from orchestrator.sim.world import Scenario, World
from orchestrator.workload import open_trace

HOUR = Path("../shared/traces/servegen_r1_1h.jsonl.gz")


@dataclass(frozen=True, slots=True)
class Speed:
    """One run."""

    requests: int
    took_s: float
    events: int
    virtual_s: float
    in_flight: float


def fleet(gangs: int, blocks: int | None = None) -> Scenario:
    """Gangs of eight H200, DP8 EP8 with one draft: eight ranks each; one gateway, KV events on.

    `blocks` are the KV blocks of each rank, as many as fit if None.
    """
    layout = Layout(dp=8, ep=8, mtp_drafts=1)
    grid = LayoutGrid.of([layout], ARCHITECTURES["DeepSeek-R1"], HARDWARE["H200"], Precision())
    model = gang_model(Role.UNIFIED, grid, sequences_max=128)
    model = replace(model, blocks=blocks or model.blocks)
    return Scenario((SimPool(model, gangs),), seed=1)


def thousands(requests: int, rate: float) -> Iterator[Call]:
    """Requests of a thousand tokens in and out, as a Poisson process."""
    chance = Chance(1)("arrivals")
    at_s = 0.0
    for number in range(requests):
        yield Call(number, at_s, 1000, 1000, 600)
        at_s += chance.expovariate(rate)


def hour(path: Path) -> Iterator[Call]:
    """The requests of a trace."""
    for number, request in enumerate(open_trace(path, Chance(1))):
        yield Call(
            number,
            request.at_s,
            max(1, request.input_tokens),
            max(1, request.output_tokens),
            hash_ids=request.hash_ids,
        )


def played(scenario: Scenario, calls: Iterator[Call]) -> Speed:
    """Runs it."""
    world = World(scenario)
    began = time.process_time()
    meter = world.run(OpenLoop(calls))
    took_s = time.process_time() - began
    ended = sum(meter.outcomes.values())
    return Speed(
        ended, took_s, world.agenda.done, meter.last_end_at, meter.in_flight_s / meter.last_end_at
    )


def held_bytes(requests: int, rate: float) -> int:
    """What is allocated when eight ranks have served so many requests, the world included.

    Their caches are small, so that all runs fill them, and with them the index.
    """
    world = World(fleet(1, _CACHED_BLOCKS))
    tracemalloc.start()
    world.run(OpenLoop(thousands(requests, rate)))
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held


def thousands_a_minute(requests: int, rate: float) -> tuple[float, Speed]:
    """Requests that one core plays in a minute of its time, on 32 ranks."""
    speed = played(fleet(4), thousands(requests, rate))
    return speed.requests / speed.took_s * 60, speed


def rows(rounds: int, path: Path = HOUR) -> list[str]:
    """The report's rows: what is played, and of so many rounds median [least..most]."""
    runs = [thousands_a_minute(*_SHORT) for _ in range(rounds)]
    _, speed = runs[0]
    out = [
        f"| {speed.requests:,} requests of 1,000 tokens in and out, 32 ranks, "
        f"{speed.in_flight:,.0f} in flight | requests a minute "
        f"| {_spread([minute for minute, _ in runs], 0)} | >= 100,000 |"
    ]
    if path.is_file():
        hours = [played(fleet(_GANGS), hour(path)) for _ in range(rounds)]
        out.append(
            f"| an hour of ServeGen's DeepSeek-R1: {hours[0].requests:,} requests, "
            f"{8 * _GANGS} ranks | CPU s | {_spread([run.took_s for run in hours], 1)} | < 60 |"
        )
    some, many = (held_bytes(requests, _SHORT[1] / 4) / 2**20 for requests in (5_000, 20_000))
    out.append(f"| held behind 5,000 requests, 8 ranks | MiB | {some:.1f} |  |")
    out.append(f"| held behind 20,000 requests, 8 ranks | MiB | {many:.1f} | the same |")
    return out


def _spread(values: list[float], digits: int) -> str:
    ordered = sorted(values)
    middle, least, most = ordered[len(ordered) // 2], ordered[0], ordered[-1]
    return f"{middle:,.{digits}f} [{least:,.{digits}f}..{most:,.{digits}f}]"


_CACHED_BLOCKS = 4_000  # of a rank, for the memory: twice what is in flight
_SHORT = (20_000, 25.0)  # requests, and how many a second the 32 ranks get
_GANGS = 8  # that the hour is played on


def main() -> int:
    """Prints what was measured; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=_SHORT[0])
    parser.add_argument("--rate", type=float, default=_SHORT[1], help="requests/s of the 32 ranks")
    parser.add_argument("--hour", type=Path, default=HOUR)
    parser.add_argument("--gangs", type=int, default=_GANGS, help="that the hour is played on")
    options = parser.parse_args()
    a_minute, speed = thousands_a_minute(options.requests, options.rate)
    print(
        f"32 ranks, 1,000 tokens in and out: {a_minute:,.0f} requests a minute of one core, "
        f"{speed.events / speed.requests:.1f} events each, {speed.in_flight:,.0f} in flight "
        "(target 100,000)"
    )
    missed = a_minute < 100_000
    tenth, whole = held_bytes(1_000, options.rate), held_bytes(10_000, options.rate)
    print(
        f"memory behind 1,000 requests {tenth / 2**20:.1f} MiB, behind 10,000 {whole / 2**20:.1f} "
        "MiB (KV blocks and their index fill up, requests do not stay)"
    )
    if options.hour.is_file():
        speed = played(fleet(options.gangs), hour(options.hour))
        print(
            f"{options.hour.name} on {8 * options.gangs} ranks: {speed.requests:,} requests, "
            f"{speed.virtual_s:,.0f} s, in {speed.took_s:.1f} s of one core (target 60)"
        )
        missed |= speed.took_s >= 60
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
