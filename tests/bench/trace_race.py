"""Where routers send a prefix-heavy trace, over HTTP and in real time: TTFT, hits and balance.

`python -m tests.bench.trace_race`: a line of JSON for each contender and round. Eight simulated
engines with a prefix cache that is far too small for all, a serial prefill and batched decode; a
slice of Mooncake's synthetic trace, its token counts a quarter and its time a tenth, so that a run
takes half a minute and other people's tokenizers keep up. Rounds alternate the contenders.
"""

import argparse
import asyncio
import hashlib
import itertools
import json
import random
import string
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import islice
from pathlib import Path

import uvloop

from orchestrator.codec import Tokenizer
from orchestrator.engines.tiny_checkpoint import published_tokenizer
from orchestrator.workload import TraceRequest, open_trace
from tests.bench.contenders import Contender, Missing, contender, engines
from tests.bench.http_load import Ask, cpu_s, open_loop, percentile

TRACE = Path(__file__).parent / "traces" / "mooncake_synthetic_slice.jsonl.gz"
CONTENDERS = (
    "r1-serve",
    "sglang-router:cache_aware",
    "vllm-router:cache_aware",
    "vllm-router:kv_aware",
)
ENGINES = 8
FASTER = 10  # than the trace's own time
BLOCK_CHARS = 512  # of the prompt for one hash id: 128 of its 512 tokens, at 4 characters each
OUTPUT_SHARE = 1 / 16
DRAIN_S = 20.0


@dataclass(frozen=True, slots=True)
class Model:
    """The engines; times in seconds."""

    base_s: float = 0.002
    token_s: float = 40e-6  # 25,000 tokens/s
    step_s: float = 0.04
    blocks: int = 2_000  # of 64 tokens
    slots: int = 64


def words() -> list[str]:
    """Four characters each, and one token to R1's tokenizer wherever they stand."""
    tokenizer = Tokenizer.load(published_tokenizer())
    letters = itertools.product(string.ascii_lowercase, repeat=3)
    found = [" " + "".join(three) for three in letters]
    return [word for word in found if len(tokenizer.encode(word)) == 1]


def block_text(known: Sequence[str], hash_id: int) -> str:
    """The same for the same id."""
    drawn = hashlib.shake_128(str(hash_id).encode()).digest(2 * BLOCK_CHARS // 4)
    return "".join(
        known[int.from_bytes(drawn[at : at + 2]) % len(known)] for at in range(0, len(drawn), 2)
    )


def played(trace: Path, most: int | None = None) -> list[TraceRequest]:
    """The first requests of the trace."""
    return list(islice(open_trace(trace, random.Random), most))


def asks_of(requests: Sequence[TraceRequest]) -> list[Ask]:
    """The trace as it is sent."""
    known = words()
    texts = {
        hash_id: block_text(known, hash_id) for request in requests for hash_id in request.hash_ids
    }
    asks = []
    for request in requests:
        text = "".join(texts[hash_id] for hash_id in request.hash_ids)[: request.input_tokens]
        tokens = max(1, round(request.output_tokens * OUTPUT_SHARE))
        message = {"role": "user", "content": text}
        body = {"model": "mock", "stream": True, "max_tokens": tokens, "messages": [message]}
        asks.append(Ask(request.at_s / FASTER, json.dumps(body).encode(), tokens))
    return asks


def options_of(model: Model) -> Sequence[str]:
    """The engines' options."""
    times = ("--base-s", str(model.base_s), "--token-s", str(model.token_s))
    steps = ("--step-s", str(model.step_s), "--slots", str(model.slots))
    return ("--engines", str(ENGINES), *times, *steps, "--blocks", str(model.blocks), "--events")


@dataclass(frozen=True, slots=True)
class Stats:
    """What one engine counted."""

    requests: int
    prompt_tokens: int
    cached_tokens: int


def stats_of(address: str) -> Stats:
    """Of the engine at this host:port."""
    connection = HTTPConnection(address, timeout=60)
    connection.request("GET", "/stats")
    return Stats(**json.loads(connection.getresponse().read()))


def measure(asks: Sequence[Ask], runs: Contender, addresses: Sequence[str]) -> dict[str, float]:
    """One round of one contender."""
    before = [stats_of(address) for address in addresses]
    before_s = cpu_s(runs.pids)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcomes = runner.run(open_loop(runs.addresses, asks, DRAIN_S))
    spent_s = cpu_s(runs.pids) - before_s
    after = [stats_of(address) for address in addresses]
    requests = [now.requests - then.requests for now, then in zip(after, before, strict=True)]
    prompts = sum(
        now.prompt_tokens - then.prompt_tokens for now, then in zip(after, before, strict=True)
    )
    cached = sum(
        now.cached_tokens - then.cached_tokens for now, then in zip(after, before, strict=True)
    )
    good = [outcome for outcome in outcomes if not outcome.failed]
    ttfts_ms = [1e3 * outcome.ttft_s for outcome in good]
    return {
        "requests": len(good),
        "failed": len(outcomes) - len(good),
        "hit": round(cached / max(1, prompts), 3),
        "ttft_ms_mean": round(sum(ttfts_ms) / max(1, len(good)), 1),
        "ttft_ms_p50": round(percentile(ttfts_ms, 0.5), 1),
        "ttft_ms_p99": round(percentile(ttfts_ms, 0.99), 1),
        "busiest": round(max(requests) * len(requests) / max(1, sum(requests)), 2),
        "cpu_ms_per_request": round(1e3 * spent_s / max(1, len(good)), 2),
        "late_ms_p99": round(percentile([1e3 * each.late_s for each in outcomes], 0.99), 1),
    }


def one(asks: Sequence[Ask], name: str) -> dict[str, float] | None:
    """One round of one contender with engines of its own; None if it is not installed here."""
    try:
        options = options_of(Model())
        with engines(name, *options) as published, contender(name, published) as runs:
            return measure(asks, runs, [each.partition("=")[0] for each in published])
    except Missing as reason:
        sys.stderr.write(f"left out: {reason}\n")
        return None


def main() -> None:
    """Runs all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", default=CONTENDERS)
    parser.add_argument("--trace", type=Path, default=TRACE)
    parser.add_argument("--requests", type=int)
    options = parser.parse_args()
    asks = asks_of(played(options.trace, options.requests))
    for turn in range(options.rounds):
        for name in options.contenders:
            if (row := one(asks, name)) is not None:
                sys.stdout.write(json.dumps({"contender": name, "round": turn} | row) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
