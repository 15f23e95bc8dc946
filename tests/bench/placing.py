"""Where routing sends traces, in virtual time: `r1-serve bench routing` on the slices here."""

import subprocess
import sys
from pathlib import Path

TRACES = Path(__file__).parent / "traces"
HEAVY = ("--trace", str(TRACES / "mooncake_synthetic_slice.jsonl.gz"), "--rate", "10")
CONVERSATION = ("--trace", str(TRACES / "mooncake_conversation_slice.jsonl.gz"), "--rate", "10")
# Requests as long as they were, so decode is what the ranks are full of; a larger batch is slower.
REASONING = (
    *("--trace", str(TRACES / "servegen_r1_slice.jsonl.gz"), "--ranks", "32", "--blocks", "8000"),
    *("--input-scale", "1", "--output-scale", "1", "--step-request-s", "0.0003"),
)
KV = ("--policy", "kv")
NO_PREFIX = (
    *("--policy", "round_robin", "--policy", "least_requests", "--policy", "least_tokens"),
    *("--policy", "power_of_two"),
)
LOSSES = tuple(
    (
        f"5 % of the batches of events lost, asked for again (kv) or not; seed {seed}",
        (*HEAVY, "--event-loss", "0.05", "--seed", str(seed), *KV, "--policy", "kv_no_replay"),
    )
    for seed in range(5)
)
CASES = (
    ("Prefix-heavy, cache for a third of it", (*HEAVY, *KV, *NO_PREFIX)),
    (
        "The same, engines that look a prompt up when it arrives, not when its prefill begins",
        (*HEAVY, *KV, "--hit-at", "admission"),
    ),
    ("The same, events 500 ms late", (*HEAVY, *KV, "--event-delay-s", "0.5")),
    *LOSSES,
    ("Conversations that all share their first block", (*CONVERSATION, *KV, *NO_PREFIX)),
    ("Reasoning, bound by decode", (*REASONING, *KV, *NO_PREFIX)),
)


def lines() -> list[str]:
    """What the command printed for each case."""
    printed: list[str] = []
    for title, arguments in CASES:
        command = [sys.executable, "-m", "orchestrator.cli", "bench", "routing", *arguments]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        printed += [f"{title}:", "", "```", *out.rstrip().splitlines(), "```", ""]
    return printed
