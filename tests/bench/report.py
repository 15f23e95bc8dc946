"""`make bench`: measures, and writes docs/performance.md from what it measured.

Everything is CPU time of our own processes, but for the local stack, which is wall time.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.codec import Begin, Conversation, Splitter, Tokenizer, UserMessage, render
from orchestrator.engines.tiny_checkpoint import published_tokenizer
from orchestrator.gateway.wire import FinishReason, ReplyHead, StreamReply, Usage
from orchestrator.spec import SystemPrompt, TemplateKind
from tests.bench import plan_speed
from tests.live.local_stack import local_stack, printed_gib, printed_seconds, stream

ROUNDS = 3
TEXT = "Let me think about this step by step: 17 × 23 is 391, because 17 × 20 = 340. " * 200


def spread(values: list[float], digits: int = 2) -> str:
    """Median and range."""
    ordered = sorted(values)
    middle = ordered[len(ordered) // 2]
    return f"{middle:.{digits}f} [{ordered[0]:.{digits}f}..{ordered[-1]:.{digits}f}]"


def channel_rows() -> list[str]:
    """CPU microseconds per token of the token channel, by requests per step."""
    runs: list[list[dict[str, float]]] = []
    for _ in range(ROUNDS):
        out = subprocess.run(
            [sys.executable, "-m", "tests.bench.channel_cost"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        runs.append([json.loads(line) for line in out.splitlines()])
    rows = []
    for row in zip(*runs, strict=True):
        engine = spread([run["engine_us_per_token"] for run in row])
        gateway = spread([run["gateway_us_per_token"] for run in row])
        rows.append(f"| {row[0]['batch']} | {engine} | {gateway} |")
    return rows


def codec_rows(tokenizer: Tokenizer) -> list[str]:
    """CPU microseconds per token from ids to the bytes of the stream, and of prompt encoding."""
    ids = tokenizer.encode(TEXT)
    rows = []
    for batch in (1, 8):
        spent = [_split_us(tokenizer, ids, batch) for _ in range(ROUNDS)]
        rows.append(f"| ids to stream bytes, {batch} a push | {spread(spent)} |")
    encoded = []
    for _ in range(ROUNDS):
        began_s = time.process_time()
        prompt = render(
            tokenizer,
            TemplateKind.R1,
            Conversation((UserMessage(TEXT * 4),)),
            system_prompt=SystemPrompt.FOLD,
            force_think=True,
        )
        encoded.append(1e6 * (time.process_time() - began_s) / len(prompt.ids))
    rows.append(f"| messages to prompt ids | {spread(encoded)} |")
    return rows


def _split_us(tokenizer: Tokenizer, ids: list[int], batch: int) -> float:
    splitter = Splitter(tokenizer, begin=Begin.THOUGHT)
    reply = StreamReply(ReplyHead("id", 1, "deepseek-reasoner", "fp"))
    began_s = time.process_time()
    for at in range(0, len(ids), batch):
        reply.push(splitter.push(ids[at : at + batch]))
    reply.end(FinishReason.STOP, Usage(1, 0, len(ids), len(ids)))
    return 1e6 * (time.process_time() - began_s) / len(ids)


def stack_rows() -> list[str]:
    """What `r1-serve up` costs: time to its first token, memory, and one request's time."""
    rows = []
    for name, arguments in (
        ("vLLM on the CPU, 3 nodes", ()),
        ("fake engines, 3 nodes", ("--engine", "fake")),
    ):
        with (
            tempfile.TemporaryDirectory() as folder,
            local_stack(Path(folder), *arguments) as stack,
        ):
            asked = []
            for _ in range(ROUNDS):
                began_s = time.monotonic()
                completion = stream(stack.client(), "Who are you, and what is real here?")
                asked.append((time.monotonic() - began_s) / completion.output_tokens * 1e3)
        rows.append(
            f"| {name} | {printed_seconds(stack.said):.0f} | {printed_gib(stack.said):.1f} "
            f"| {spread(asked, 1)} |"
        )
    return rows


def main() -> None:
    """Writes the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/performance.md"))
    options = parser.parse_args()
    tokenizer = Tokenizer.load(published_tokenizer())
    load = os.getloadavg()[0]
    lines = [
        "# Performance",
        "",
        f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, "
        f"{platform.machine()}, Python {platform.python_version()}, load {load:.1f} at the start. "
        f"Median [least..most] of {ROUNDS} runs.",
        "No GPU was there: nothing here says how fast R1 is.",
        "",
        "## Token channel, CPU µs per token",
        "",
        "Engine listener to gateway sink, two processes over loopback, one token per request and "
        "step; the engine's column includes the timer that paces its steps.",
        "",
        "| requests per step | engine process | gateway process |",
        "|---|---|---|",
        *channel_rows(),
        "",
        "## Codec, CPU µs per token",
        "",
        "| what | µs |",
        "|---|---|",
        *codec_rows(tokenizer),
        "",
        "## `r1-serve plan`",
        "",
        "Process start included; one core; the least of the runs.",
        "",
        "| plan | CPU s | wall s |",
        "|---|---|---|",
        *plan_speed.rows(),
        "",
        "## `r1-serve up`",
        "",
        "Wall time from the command to the first streamed token, everything already installed; "
        "proportional set size of all its processes; wall ms per token of one request alone.",
        "",
        "| fleet | first token, s | memory, GiB | ms per token |",
        "|---|---|---|---|",
        *stack_rows(),
        "",
    ]
    options.out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
