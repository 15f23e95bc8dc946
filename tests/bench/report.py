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
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.codec import Begin, Conversation, Splitter, Tokenizer, UserMessage, render
from orchestrator.engines.tiny_checkpoint import published_tokenizer
from orchestrator.gateway.wire import FinishReason, ReplyHead, StreamReply, Usage
from orchestrator.spec import SystemPrompt, TemplateKind
from tests.bench import (
    loadtest_cost,
    placing,
    plan_speed,
    rank_cost,
    relay_cost,
    routing_cost,
    simulator_speed,
    stream_cost,
    telemetry_cost,
    trace_race,
)
from tests.live.local_stack import local_stack, printed_gib, printed_seconds, stream

ROUNDS = 3
PEER_ROUNDS = 5
TEXT = "Let me think about this step by step: 17 × 23 is 391, because 17 × 20 = 340. " * 200


def spread(values: list[float], digits: int = 2) -> str:
    """Median and range."""
    ordered = sorted(values)
    middle = ordered[len(ordered) // 2]
    return f"{middle:.{digits}f} [{ordered[0]:.{digits}f}..{ordered[-1]:.{digits}f}]"


def channel_rows() -> list[str]:
    """CPU microseconds per token of the token channel, by requests per step."""
    runs = [_printed("channel_cost") for _ in range(ROUNDS)]
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


def stream_rows(rounds: int) -> list[str]:
    """CPU microseconds per streamed token and what is added in time, bare uvicorn in each run."""
    rows = []
    for setting in stream_cost.SETTINGS:
        runs = [stream_cost.measure(setting) for _ in range(rounds)]
        for run in runs:
            run["all_us"] = run["gateway_us"] + run["engines_us"] + run["haproxy_us"]
        keys = ("gateway_us", "engines_us", "haproxy_us", "all_us", "bare_us")
        cells = [spread([run[key] for run in runs], 1) for key in keys]
        times = (
            "busy",
            "itl_ms_p99",
            "bare_itl_ms_p99",
            "probed_itl_ms_p99",
            "ttft_ms_p50",
            "ttft_ms_p99",
            "encode_ms",
            "request_ms",
        )
        cells += [spread([run[key] for run in runs]) for key in times]
        gateways = f"{setting.gateways}{' behind HAProxy' if setting.haproxy else ''}"
        rows.append(f"| {gateways} | {setting.engines} | {setting.streams} | {' | '.join(cells)} |")
    return rows


def stream_section(rounds: int) -> list[str]:
    """The codec's path."""
    return [
        "## Streamed tokens, CPU µs per token",
        "",
        "From the engines' output to the clients' sockets, codec included; every stream gets a "
        f"token each 20 ms. Beside it, in each of the {rounds} runs, bare uvicorn, which sends "
        "constant chunks at the same pace. The engines' column has the timers that pace them; "
        "`busy` is the share of a "
        "core that the busiest gateway took. What a gap between tokens has beyond 20 ms is added "
        "ITL. The last five columns are of a second window, in which "
        f"{stream_cost.PROBES} more requests of {stream_cost.PROBE_WORDS:,} words come one after "
        "the other: the engines answer a first token at once, so their TTFT is all added, but that "
        "any server has to encode the prompt, which alone takes as long as the next column says; "
        "the CPU is the gateways' for one such request.",
        "",
        "| gateways | engines | streams | gateways' | engines' | HAProxy's | all | bare uvicorn "
        "| busy | added ITL ms p99 | bare uvicorn's | ITL with requests | TTFT ms p50 | "
        "TTFT ms p99 | encoding ms | CPU ms a request |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
        *stream_rows(rounds),
        "",
    ]


def relay_rows(rounds: int) -> list[str]:
    """What stands in front of the same engines, a row for each load and contender."""
    measured: dict[tuple[str, str], list[dict[str, float]]] = {}
    for load in relay_cost.LOADS:
        for _ in range(rounds):
            for name in relay_cost.CONTENDERS:
                if (row := relay_cost.one(load, name)) is not None:
                    measured.setdefault((load.name, name), []).append(row)
    rows = []
    for (load_name, name), runs in measured.items():
        cells = [
            spread([run[key] for run in runs], digits)
            for key, digits in (
                ("cpu_us_per_token", 1),
                ("streams_per_cpu_s", 0),
                ("ttft_ms_p50", 2),
                ("ttft_ms_p99", 1),
            )
        ]
        rows.append(f"| {load_name} | {name} | {' | '.join(cells)} |")
    return rows


def relay_section(rounds: int) -> list[str]:
    """The pass-through between HAProxy and other people's routers."""
    return [
        "## Passed through, in front of the same eight engines",
        "",
        f"`r1-serve gateway` and others between one load and engines with HTTP servers; "
        f"median [least..most] of {rounds} alternating rounds. Prompts of 1,000 words; "
        "short streams are 32 tokens, 2 ms apart, from 32 clients; paced ones 200 tokens, 20 ms "
        "apart, from 64; light load is 10 requests a second of 64 tokens, 10 ms apart.",
        "",
        "| load | what | CPU µs/token | streams per CPU s | TTFT ms p50 | TTFT ms p99 |",
        "|---|---|---|---|---|---|",
        *relay_rows(rounds),
        "",
    ]


def trace_rows(rounds: int) -> list[str]:
    """Where routers send a trace, a row for each."""
    asks = trace_race.asks_of(trace_race.played(trace_race.TRACE))
    measured: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        for name in trace_race.CONTENDERS:
            if (row := trace_race.one(asks, name)) is not None:
                measured.setdefault(name, []).append(row)
    rows = []
    for name, runs in measured.items():
        cells = [
            spread([run[key] for run in runs], digits)
            for key, digits in (
                ("hit", 3),
                ("ttft_ms_mean", 0),
                ("ttft_ms_p50", 0),
                ("ttft_ms_p99", 0),
                ("busiest", 2),
                ("cpu_ms_per_request", 2),
                ("failed", 0),
            )
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def trace_section(rounds: int) -> list[str]:
    """Routing by what reaches the client, beside other people's routers."""
    model = trace_race.Model()
    return [
        "## A prefix-heavy trace over HTTP, in front of the same eight engines",
        "",
        f"1,200 requests of Mooncake's synthetic trace, {trace_race.FASTER} times as fast as they "
        "came and with a quarter of their prompt tokens, in real time. "
        f"Simulated engines: {1 / model.token_s:,.0f} tokens/s of serial prefill, a step of "
        f"{1e3 * model.step_s:.0f} ms, {model.blocks:,} blocks of 64 tokens: all eight caches hold "
        "about a third of the text. Median [least..most] of "
        f"{rounds} alternating rounds; `busiest` is the most requests at one engine over the "
        "mean.",
        "",
        "| what | hit | TTFT ms mean | p50 | p99 | busiest | CPU ms per request | failed |",
        "|---|---|---|---|---|---|---|---|",
        *trace_rows(rounds),
        "",
    ]


def placing_section(_: int = 0) -> list[str]:
    """Routing in virtual time."""
    return [
        "## Where requests go",
        "",
        "`r1-serve bench routing` in front of simulated engines, in virtual time: the same numbers "
        "on every machine. The oracle sees every cache and queue as it is, and takes the least "
        "TTFT.",
        "",
        *placing.lines(),
    ]


def routing_rows() -> list[str]:
    """One decision's time at 128 ranks and a million blocks, block keys included."""
    rows = []
    for tokens, rounds in ((32_768, 1_000), (131_072, 250)):
        run = routing_cost.decisions(64, tokens, rounds)
        booking, packing = run["booking_us"], run["packing_us"]
        assert isinstance(booking, list)
        for clock in ("cpu_us", "wall_us"):
            windows = run[clock]
            assert isinstance(windows, list)
            cells = " | ".join(spread([each[key] for each in windows], 0) for key in ("p50", "p99"))
            rest = f"{spread(booking, 0)} | {packing:.0f}" if clock == "cpu_us" else " | "
            rows.append(f"| {tokens:,} | {clock.partition('_')[0]} | {cells} | {rest} |")
    return rows


def index_rows() -> list[str]:
    """What the index holds and takes; memory is that of processes of its own."""
    (held,) = _printed("routing_cost", "--only", "memory")
    wired = [routing_cost.wire(64, 3_000)["events_per_cpu_s"] for _ in range(ROUNDS)]
    turned = _printed("routing_cost", "--only", "churn")
    sizes = [each["bytes_per_block"] for each in turned]
    speeds = [each["events_per_cpu_s"] for each in turned]
    return [
        f"| resident bytes per block, of {held['indexed_blocks']:,.0f} blocks | "
        f"{held['bytes_per_block']} |",
        f"| the same after 2 million block events, and after 10 million | {sizes[1]:.1f}, "
        f"{sizes[-1]:.1f} |",
        f"| block events per CPU second, stored and removed in turn | {spread(speeds, 0)} |",
        "| the same, stored ones from vLLM's bytes | "
        f"{spread([float(str(each)) for each in wired], 0)} |",
    ]


def _printed(module: str, *arguments: str) -> list[dict[str, float]]:
    """What a bench of this folder prints, in a process of its own."""
    command = [sys.executable, "-m", f"tests.bench.{module}", *arguments]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in out.splitlines()]


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


def channel_section(_: int = 0) -> list[str]:
    """The token channel alone."""
    return [
        "## Token channel, CPU µs per token",
        "",
        "Engine listener to gateway sink, two processes over loopback, one token per request and "
        "step; the engine's column includes the timer that paces its steps.",
        "",
        "| requests per step | engine process | gateway process |",
        "|---|---|---|",
        *channel_rows(),
        "",
    ]


def codec_section(_: int = 0) -> list[str]:
    """The codec alone."""
    return [
        "## Codec, CPU µs per token",
        "",
        "| what | µs |",
        "|---|---|",
        *codec_rows(Tokenizer.load(published_tokenizer())),
        "",
    ]


def decision_section(_: int = 0) -> list[str]:
    """Routing's time."""
    return [
        "## A routing decision, µs",
        "",
        f"{routing_cost.RANKS} ranks, {routing_cost.BLOCKS:,} indexed blocks of 64 tokens, the "
        "keys of the prompt's blocks included; of a third of the prompts each all blocks are held "
        "somewhere, half of them, and none. Quantiles are of "
        f"{routing_cost.WINDOWS} windows. The booking is what else a request costs the router over "
        "its life; packing its ids costs the codec's thread once.",
        "",
        "| prompt tokens | clock | p50 | p99 | booking | packing |",
        "|---|---|---|---|---|---|",
        *routing_rows(),
        "",
        "| the prefix index | |",
        "|---|---|",
        *index_rows(),
        "",
    ]


def plan_section(_: int = 0) -> list[str]:
    """The planner's time."""
    return [
        "## `r1-serve plan`",
        "",
        "Process start included; one core; the least of the runs.",
        "",
        "| plan | CPU s | wall s |",
        "|---|---|---|",
        *plan_speed.rows(),
        "",
    ]


def simulator_section(rounds: int) -> list[str]:
    """How fast virtual time passes."""
    return [
        "## `r1-serve simulate` on one core",
        "",
        "One gateway with KV events, gangs of DP8 EP8 on H200 with one draft; CPU time of the "
        f"process, median [least..most] of {rounds} rounds. Memory is what Python holds when a run "
        "has ended: KV blocks and their index fill up, requests do not stay.",
        "",
        "| what | unit | measured | target |",
        "|---|---|---|---|",
        *simulator_speed.rows(rounds),
        "",
    ]


def telemetry_section(_: int = 0) -> list[str]:
    """What is counted, and what a scrape takes."""
    runs = [telemetry_cost.measure() for _ in range(ROUNDS)]
    gpus = [telemetry_cost.reading_s() for _ in range(ROUNDS)]
    most, busy = telemetry_cost.BUSY_MAX, [100 * run.busy for run in runs]
    told = (
        ("a token, ns", [1e9 * run.token_s for run in runs], 0),
        ("a request, µs", [1e6 * run.request_s for run in runs], 1),
        ("a tick, twice a second, µs", [1e6 * run.tick_s for run in runs], 0),
        ("charging an open request, each 10 s, µs", [1e6 * run.charge_s for run in runs], 1),
        ("a scrape, each 15 s, ms", [1e3 * run.scrape_s for run in runs], 2),
        ("of it at once, before the loop turns, ms", [1e3 * run.piece_s for run in runs], 2),
        (f"all of it, % of the gateway's core (at most {100 * most:.0f})", busy, 2),
        ("four recorded GPUs read once a second, % of a core", [100 * each for each in gpus], 3),
    )
    return [
        "## Telemetry, CPU time",
        "",
        f"Of a gateway with {telemetry_cost.STREAMS:,} streams, each with a token every "
        f"{1e3 * telemetry_cost.ITL_S:.0f} ms and {telemetry_cost.OUTPUT_TOKENS:,} tokens long, in "
        f"front of {telemetry_cost.RANKS} ranks: its own code for counting, timed apart. The last "
        "row is of the telemetry process of a host, which plays a recording: decoding and setting "
        "samples are in it, the driver's own time is not, and needs a GPU to be known.",
        "",
        "| what | measured |",
        "|---|---|",
        *(f"| {name} | {spread(values, digits)} |" for name, values, digits in told),
        "",
    ]


def loadtest_section(_: int = 0) -> list[str]:
    """What the load test's generator costs."""
    rows = []
    for streams in loadtest_cost.STREAMS:
        runs = [loadtest_cost.measure(streams) for _ in range(ROUNDS)]
        told = (
            ("events_per_s", 0),
            ("cpu_us_per_event", 1),
            ("core", 2),
            ("lag_ms_p50", 1),
            ("lag_ms_p99", 1),
        )
        cells = [spread([run[key] for run in runs], digits) for key, digits in told]
        rows.append(f"| {streams:,} | {' | '.join(cells)} |")
    return [
        "## The load test's generator",
        "",
        f"Streams at once in one process, each with an event every {1e3 * loadtest_cost.STEP_S:.0f}"
        " ms, read, told apart by phase and measured; a process of its own sends constant chunks. "
        "CPU is the generator's, user and system; lag is how late its loop is, evenly in time, and "
        "has in it what the server's process and the machine take from it.",
        "",
        "| streams | events/s | CPU µs an event | of a core | lag ms p50 | lag ms p99 |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def gang_section(_: int = 0) -> list[str]:
    """What a gang of real vLLM takes here."""
    return [
        "## A gang of real vLLM on this machine",
        "",
        "The tiny checkpoint of R1's architecture, fp32, eager, without Ray; wall and CPU seconds "
        "from the command until every rank serves, proportional set size, CPU share while idle; "
        "one run of each.",
        "",
        "| gang | processes | start, wall s | start, CPU s | memory, GiB | idle CPU |",
        "|---|---|---|---|---|---|",
        *rank_cost.rows(),
        "",
    ]


def up_section(_: int = 0) -> list[str]:
    """What the local stack takes."""
    return [
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


SECTIONS: Mapping[str, Callable[[int], list[str]]] = {  # in the report's order
    "channel": channel_section,
    "codec": codec_section,
    "stream": stream_section,
    "relay": relay_section,
    "trace": trace_section,
    "placing": placing_section,
    "decision": decision_section,
    "plan": plan_section,
    "simulator": simulator_section,
    "telemetry": telemetry_section,
    "loadtest": loadtest_section,
    "gang": gang_section,
    "up": up_section,
}
PEERS = {"relay", "trace"}  # beside other people's routers
_STAMP = "Measured on "


def main() -> None:
    """Measures the sections that are asked for, and leaves the report's others as they are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/performance.md"))
    parser.add_argument(
        "--relay", action="store_true", help="the pass-through beside others too: 40 minutes more"
    )
    parser.add_argument("--rounds", type=int, default=PEER_ROUNDS, help="of alternating runs")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION")
    options = parser.parse_args()
    report = _sections(options.out) if options.only else {}
    for name in options.only or SECTIONS:
        if options.only or options.relay or name not in PEERS:
            stamp = f"{_STAMP}{datetime.now(UTC):%Y-%m-%d}, load {os.getloadavg()[0]:.1f}."
            title, _, *lines = SECTIONS[name](options.rounds)
            report[title] = [title, "", stamp, "", *lines]
    lines = [
        "# Performance",
        "",
        f"Written by `make bench`: {os.cpu_count()} cores, {platform.machine()}, Python "
        f"{platform.python_version()}. Median [least..most] of {ROUNDS} runs unless a section says "
        "otherwise; a section has the machine's load when it began.",
        "No GPU was there: nothing here says how fast R1 is.",
        "",
    ]
    for title in sorted(report, key=_place):
        lines += report[title]
    options.out.write_text("\n".join(lines), encoding="utf-8")


def _place(title: str) -> int:
    """Where a section stands; one that is no longer measured stands last."""
    titles = [
        "Token channel", "Codec", "Streamed", "Passed through", "A prefix-heavy", "Where",
        "A routing", "`r1-serve plan`", "`r1-serve simulate`", "Telemetry",
        "The load test", "A gang", "`r1-serve up`",
    ]  # fmt: skip
    found = [at for at, start in enumerate(titles) if title.startswith(f"## {start}")]
    return found[0] if found else len(titles)


def _sections(path: Path) -> dict[str, list[str]]:
    """The report's sections by their titles."""
    sections: dict[str, list[str]] = {}
    title = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            title = line
        if title:
            sections.setdefault(title, []).append(line)
    for lines in sections.values():
        if lines[-1]:
            lines.append("")
    return sections


if __name__ == "__main__":
    main()
