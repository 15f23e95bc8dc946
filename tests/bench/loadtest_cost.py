"""What the load test itself costs: many streams at once in one process, and how late it gets.

`python -m tests.bench.loadtest_cost`: a line of JSON for each number of streams. Another process
sends constant chunks, as our gateway frames them, to all of them at one pace.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time

from typing_extensions import override

STEP_S = 0.045  # between two tokens of a stream: 22 a second, as R1 has at a full batch
STREAMS = (500, 2_000)
WINDOW_S = 10.0
_BURST_S = 0.005  # the server wakes that often, and serves those whose turn it is

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = (
    b'data: {"id":"5f3f1a3e-8d5b-4c9e-a6f2-0c4d5e6f7a8b","object":"chat.completion.chunk",'
    b'"created":1764150000,"model":"deepseek-reasoner","system_fingerprint":"fp_0123456789abcdef",'
    b'"choices":[{"index":0,"delta":{"content":null,"reasoning_content":" word"},"logprobs":null,'
    b'"finish_reason":null}],"usage":null}\n\n'
)
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)


class _Session(asyncio.Protocol):
    def __init__(self, ready: "list[asyncio.Transport]") -> None:
        self._ready = ready
        self._head = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        if not self._head:
            self._head = data
            self._transport.write(HEAD)
            self._ready.append(self._transport)


async def _serve() -> None:
    """Streams without an end; the turns of the streams are spread evenly over a step."""
    streams: list[asyncio.Transport] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Session(streams), "127.0.0.1", 0, backlog=4096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    bursts = round(STEP_S / _BURST_S)
    turn, due = 0, loop.time()
    while True:
        for transport in streams[turn::bursts]:
            if not transport.is_closing():
                transport.write(CHUNK)
        turn = (turn + 1) % bursts
        due += _BURST_S
        await asyncio.sleep(max(0.0, due - loop.time()))


def _load(port: int, count: int) -> dict[str, float]:
    """So many streams for a while, from the code that a load test runs."""
    import gevent

    from loadtest.connections import Connections
    from loadtest.engine import Engine, Limits
    from loadtest.gevent_host import GeventHost
    from loadtest.load import LoadSpec, read_load
    from loadtest.meter import Span, WindowMeter
    from loadtest.result import Slo
    from loadtest.shapes import soak
    from loadtest.target import target_of

    opening_s = count / 400
    load = read_load(LoadSpec("input=100,output=100000", "", None, None, 0, "s", "m"))
    host = GeventHost()
    span = Span(0.0, opening_s + 2.0 + WINDOW_S, 400.0)
    engine = Engine(
        host,
        Connections(target_of(f"http://127.0.0.1:{port}"), host.now),
        Slo(None, None),
        Limits(3_600.0, 3_600.0),
        (ask for ask, _ in zip(load.asks(soak(400.0, 3_600.0), 0), range(count), strict=False)),
        [WindowMeter(span)],
    )
    engine.start()
    gevent.sleep(opening_s + 2.0)
    meter = engine.meter()
    assert meter is not None
    gaps = [part.itl_thinking for part in meter.parts]
    events = sum(gap.count for gap in gaps)
    host.watch_lag(engine.lag)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    gevent.sleep(WINDOW_S)
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    events = sum(gap.count for gap in gaps) - events
    lag = meter.lag
    open_streams = engine.open_streams
    engine.stop()
    host.close()
    return {
        "streams": open_streams,
        "events_per_s": events / wall_s,
        "cpu_us_per_event": 1e6 * cpu_s / events,
        "core": cpu_s / wall_s,
        "lag_ms_p50": 1e3 * lag.quantile(0.5),
        "lag_ms_p99": 1e3 * lag.quantile(0.99),
    }


def measure(count: int) -> dict[str, float]:
    """One run, server and load in processes of their own."""
    command = [sys.executable, "-m", "tests.bench.loadtest_cost"]
    with subprocess.Popen([*command, "serve"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            port = server.stdout.readline().strip()
            out = subprocess.run(
                [*command, "load", port, str(count)], capture_output=True, text=True, check=True
            )
        finally:
            server.kill()
    row: dict[str, float] = json.loads(out.stdout)
    return row


def main() -> None:
    """One line of JSON for each number of streams."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="?", choices=("serve", "load"))
    parser.add_argument("numbers", nargs="*", type=int)
    options = parser.parse_args()
    match options.what:
        case "serve":
            asyncio.run(_serve())
        case "load":
            print(json.dumps(_load(*options.numbers)))
        case _:
            for count in STREAMS:
                print(json.dumps({key: round(v, 2) for key, v in measure(count).items()}))


if __name__ == "__main__":
    main()
