"""What routing costs one gateway: time per decision, bytes per indexed block, events per second.

`python -m tests.bench.routing_cost` prints a JSON line for each measurement. Block size 64 is that
of vLLM's MLA kernels on H200. CPU time of this process; wall time beside it.
"""

import argparse
import gc
import json
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from orchestrator.core import RankId, Role, TokenIds, token_ids
from orchestrator.engines.kv_events import decode_batch
from orchestrator.routing import (
    HASH_MASK,
    Choice,
    Leg,
    Member,
    PrefixIndex,
    Prompt,
    Removed,
    Router,
    StepCosts,
    Stored,
    same_costs,
)
from tests.bench.kv_frames import stored_frame

COSTS = StepCosts(0.005, 50e-6, step_request_s=1e-4, step_token_s=1e-8, stall=1.0)
VOCABULARY = 129_280
RANKS = 128
BLOCKS = 1_000_000


def ids_of(seed: int, tokens: int) -> TokenIds:
    """A prompt as the codec returns it."""
    ids = TokenIds("I")
    ids.frombytes(np.random.default_rng(seed).integers(0, VOCABULARY, tokens, np.uint32).tobytes())
    return ids


def stored(seed: int, tokens: int, block: int) -> Stored:
    """A prompt as one event."""
    ids = ids_of(seed, tokens).tolist()
    hashes = [(seed << 32 | at) * 0x9E3779B97F4A7C1 & HASH_MASK for at in range(tokens // block)]
    return Stored(hashes, None, ids)


def resident_bytes() -> int:
    """What this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def filled(block: int, prompt_tokens: int) -> tuple[Router, list[RankId]]:
    """A router with `RANKS` ranks and `BLOCKS` indexed blocks; some prompts on several ranks."""
    router = Router(block, 2 * BLOCKS, same_costs(COSTS))
    ranks = [RankId(f"gang-{number:03}/0") for number in range(RANKS)]
    for rank_id in ranks:
        router.join(Member(rank_id, Role.UNIFIED, 1024, 256, 1 << 20), kv_events=True)
    prompts = BLOCKS // (prompt_tokens // block)
    for seed in range(prompts):
        event = stored(seed, prompt_tokens, block)
        for copy in range(1 + seed % 3):
            router.index.on(ranks[(seed * 7 + copy * 31) % RANKS], event)
    return router, ranks


WINDOWS = 5


def decisions(block: int, prompt_tokens: int, rounds: int) -> dict[str, object]:
    """Microseconds per decision, from ids to the chosen rank, hashing included: for each clock the
    quantiles of `WINDOWS` times so many `rounds`. The booking is all that follows in a request's
    life; packing is what the codec does in its thread, once a prompt.
    """
    router, ranks = filled(block, prompt_tokens)
    prompts = BLOCKS // (prompt_tokens // block)
    chance = random.Random("prompts")
    gc.collect()
    gc.freeze()
    gc.disable()  # its pauses are not the router's
    windows: dict[str, list[dict[str, float]]] = {"cpu_us": [], "wall_us": []}
    booking: list[float] = []
    packing: list[float] = []
    number = 0
    for _ in range(WINDOWS):
        wall: list[float] = []
        cpu: list[float] = []
        booked_s = 0.0
        for _ in range(rounds):
            now = number * 0.01
            ids = _asked(chance, prompts, prompt_tokens, number)
            if number % 50 == 0:
                packing.append(_packing_s(ids.tolist()))
            began, began_cpu = time.perf_counter(), time.process_time()
            router.arrived(now)
            prompt = Prompt(ids, 32_768)
            decision = router.decide(router.view(ranks, now), Role.UNIFIED, Leg.WHOLE, prompt)
            spent_cpu, spent = time.process_time() - began_cpu, time.perf_counter() - began
            wall.append(spent)
            cpu.append(spent_cpu)
            assert isinstance(decision.choice, Choice)
            began_cpu = time.process_time()
            router.sent(str(number), decision, prompt, now)
            if number >= 500:  # a fleet with requests in flight, not with all there ever were
                router.first_token(str(number - 500), now)
                router.ended(str(number - 500), now)
            booked_s += time.process_time() - began_cpu
            number += 1
        windows["cpu_us"].append(_quantiles(cpu))
        windows["wall_us"].append(_quantiles(wall))
        booking.append(1e6 * booked_s / rounds)
    gc.enable()
    return {
        "what": "decision",
        "block": block,
        "prompt_tokens": prompt_tokens,
        "ranks": RANKS,
        "indexed_blocks": len(router.index),
        **windows,
        "booking_us": [round(each, 1) for each in booking],
        "packing_us": _quantiles(packing)["p50"],
    }


def _asked(chance: random.Random, prompts: int, tokens: int, number: int) -> TokenIds:
    """A prompt; of a third each all of it is held, half of it, nothing."""
    ids = ids_of(chance.randrange(prompts), tokens)
    if number % 3:
        ids = ids[: tokens // 2 * (number % 3 == 1)] + ids_of(10**6 + number, tokens)
    return ids[:tokens]


def _packing_s(ids: list[int]) -> float:
    began_s = time.process_time()
    token_ids(ids)
    return time.process_time() - began_s


def _quantiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    at = {"min": 0.0, "p50": 0.5, "p99": 0.99, "max": 1.0}
    last = len(ordered) - 1
    return {name: round(1e6 * ordered[round(last * share)], 1) for name, share in at.items()}


def memory(block: int) -> dict[str, object]:
    """Resident bytes per indexed block, freshly filled and after ten million events of churn."""
    gc.collect()
    before = resident_bytes()
    index = PrefixIndex(block, 2 * BLOCKS)
    names = [RankId(f"r{number}") for number in range(RANKS)]
    for name in names:
        index.join(name)
    run = 32
    held: list[tuple[RankId, int]] = []
    for seed in range(BLOCKS // run):
        name = names[seed % RANKS]
        index.on(name, stored(seed, run * block, block))
        held.append((name, seed))
    gc.collect()
    fresh = resident_bytes() - before
    result: dict[str, object] = {
        "what": "memory",
        "indexed_blocks": len(index),
        "bytes_per_block": round(fresh / len(index), 1),
    }
    del held
    return result


def churn(block: int, events: int) -> Iterator[dict[str, object]]:
    """One index under stores and removals: events per CPU second, and whether memory stays."""
    index = PrefixIndex(block, 2 * BLOCKS)
    names = [RankId(f"r{number}") for number in range(RANKS)]
    for name in names:
        index.join(name)
    run = 32
    pool = [ids_of(seed, run * block).tolist() for seed in range(64)]
    before = resident_bytes()
    spent_s = 0.0
    done = 0
    seed = 0
    kept = BLOCKS // run
    report_at = 1_000_000
    while done < events:
        batch: list[tuple[RankId, Stored | Removed]] = []
        for _ in range(256):
            ids = [seed % VOCABULARY, seed // VOCABULARY, *pool[seed % 64][2:]]
            hashes = [(seed << 8 | at) * 0x9E3779B97F4A7C1 & HASH_MASK for at in range(run)]
            batch.append((names[seed % RANKS], Stored(hashes, None, ids)))
            if seed >= kept:
                old = seed - kept
                gone = [(old << 8 | at) * 0x9E3779B97F4A7C1 & HASH_MASK for at in range(run)]
                batch.append((names[old % RANKS], Removed(gone)))
            seed += 1
        began_s = time.process_time()
        for name, event in batch:
            index.on(name, event)
        spent_s += time.process_time() - began_s
        done += sum(len(event.hashes) for _, event in batch)
        if done >= report_at:
            report_at += 1_000_000
            yield {
                "what": "churn",
                "block_events": done,
                "events_per_cpu_s": round(done / spent_s),
                "indexed_blocks": len(index),
                "bytes_per_block": round((resident_bytes() - before) / len(index), 1),
            }


def wire(block: int, frames: int) -> dict[str, object]:
    """Block events per CPU second from vLLM's bytes into the index: decoding included."""
    index = PrefixIndex(block, 2 * BLOCKS)
    rank = RankId("r0")
    index.join(rank)
    run = 32
    payloads = [
        stored_frame(number, ids_of(number, run * block).tolist(), block)
        for number in range(frames)
    ]
    began_s = time.process_time()
    for number, payload in enumerate(payloads):
        batch = decode_batch(number.to_bytes(8), payload, block)
        for event in batch.events:
            index.on(rank, event)
    spent_s = time.process_time() - began_s
    assert len(index) == frames * run
    return {
        "what": "wire",
        "block": block,
        "events_per_cpu_s": round(frames * run / spent_s),
    }


def main() -> None:
    """Prints all measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=1000, help="decisions per window")
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--only", choices=("decision", "memory", "churn", "wire"))
    options = parser.parse_args()
    if options.only in (None, "memory"):
        print(json.dumps(memory(64)), flush=True)
    if options.only in (None, "wire"):
        print(json.dumps(wire(64, 3000)), flush=True)
    if options.only in (None, "decision"):
        for tokens in (32_768, 131_072):
            rounds = options.rounds if tokens < 100_000 else options.rounds // 4
            print(json.dumps(decisions(64, tokens, rounds)), flush=True)
    if options.only in (None, "churn"):
        for line in churn(64, options.events):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
