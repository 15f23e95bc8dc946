"""What a router costs between the same engines and the same load: ours, HAProxy, other people's.

`python -m tests.bench.relay_cost`: a line of JSON for each contender, round and load. Rounds
alternate the contenders; a ratio is of one round only.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import uvloop

from tests.bench.contenders import Contender, Missing, contender, engines
from tests.bench.http_load import (
    Ask,
    Outcome,
    closed,
    cpu_s,
    open_loop,
    percentile,
    request_bytes,
)

CONTENDERS = (
    "direct",
    "haproxy",
    "r1-serve",
    "sglang-router:round_robin",
    "vllm-router:round_robin",
    "dynamo:round-robin",
)
WORDS = 1_000


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of load."""

    name: str
    tokens: int  # of each answer
    step_s: float  # between two tokens of an engine
    clients: int = 0  # closed loop
    rate: float = 0.0  # or requests a second, evenly
    seconds: float = 4.0


LOADS = (
    Load("short streams", 32, 0.002, clients=32),
    Load("paced streams", 200, 0.02, clients=64, seconds=6.0),
    Load("light load", 64, 0.01, rate=10.0, seconds=6.0),
)


def options_of(load: Load) -> Sequence[str]:
    """Eight engines that begin at once."""
    options = ("--engines", "8", "--base-s", "0.0005", "--token-s", "0", "--slots", "1024")
    return (*options, "--step-s", str(load.step_s))


def body_of(load: Load) -> bytes:
    """A prompt of WORDS words."""
    content = "word " * WORDS
    message = {"role": "user", "content": content}
    return json.dumps(
        {"model": "mock", "stream": True, "max_tokens": load.tokens, "messages": [message]}
    ).encode()


def measure(load: Load, runs: Contender) -> dict[str, float]:
    """One round of one contender."""
    before_s = cpu_s(runs.pids)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcomes = runner.run(_ask(load, runs.addresses))
    spent_s = cpu_s(runs.pids) - before_s
    good = [outcome for outcome in outcomes if not outcome.failed]
    tokens = load.tokens * len(good)  # as asked: others frame them as they like
    ttfts_ms = [1e3 * outcome.ttft_s for outcome in good]
    return {
        "requests": len(good),
        "failed": len(outcomes) - len(good),
        "cpu_us_per_token": round(1e6 * spent_s / max(1, tokens), 2),
        "streams_per_cpu_s": round(len(good) / spent_s) if spent_s else 0,
        "ttft_ms_p50": round(percentile(ttfts_ms, 0.5), 3),
        "ttft_ms_p99": round(percentile(ttfts_ms, 0.99), 3),
        "gap_ms_p99": round(percentile([1e3 * outcome.gap_max_s for outcome in good], 0.99), 2),
    }


async def _ask(load: Load, addresses: Sequence[str]) -> list[Outcome]:
    body = body_of(load)
    if load.clients:
        return await closed(addresses, load.clients, load.seconds, request_bytes(body))
    count = int(load.rate * load.seconds)
    asks = [Ask(number / load.rate, body, load.tokens) for number in range(count)]
    return await open_loop(addresses, asks, 10.0)


def one(load: Load, name: str) -> dict[str, float] | None:
    """One round of one contender with engines of its own; None if it is not installed here."""
    try:
        with engines(name, *options_of(load)) as addresses, contender(name, addresses) as runs:
            return measure(load, runs)
    except Missing as reason:
        sys.stderr.write(f"left out: {reason}\n")
        return None


def main() -> None:
    """Runs all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contenders", nargs="+", default=CONTENDERS)
    parser.add_argument("--loads", nargs="+", default=[load.name for load in LOADS])
    options = parser.parse_args()
    for load in LOADS:
        for turn in range(options.rounds if load.name in options.loads else 0):
            for name in options.contenders:
                if (row := one(load, name)) is not None:
                    about = {"load": load.name, "contender": name, "round": turn}
                    sys.stdout.write(json.dumps(about | row) + "\n")
                    sys.stdout.flush()


if __name__ == "__main__":
    main()
