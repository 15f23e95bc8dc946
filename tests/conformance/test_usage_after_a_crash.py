"""A gateway is killed while it streams: its journal loses no more than it says.

The real gateway is a process of its own, and dies by SIGKILL. Clients note when each token came.
"""

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import httpx
import msgspec
import pytest

from orchestrator.admission import (
    PICO,
    Ended,
    OpenRequest,
    Record,
    Usage,
    cost_pico,
    money_text,
)
from orchestrator.core import TokenCounts
from orchestrator.gateway import key_line, read_usage
from orchestrator.gateway.journal import LifeReader, lives
from orchestrator.spec import PricesSpec
from tests.conformance.conftest import started
from tests.conformance.server import Settings
from tests.scripted_gateway import Json

pytestmark = pytest.mark.timeout(180)

PROGRESS_S = 0.2  # the promise: a killed gateway loses of open requests what came since then
LATE_S = 3.0  # by which an event loop on shared cores may be behind its timers
STREAMS = 6
PRICES = {"input": "55", "cached_input": "14", "thinking": "219", "answer": "219"}
BUDGET = 1_000
KEY = {"authorization": "Bearer sk-ada"}


@dataclass
class Stream:
    """What one client saw of a thought that its gateway's death cut off."""

    request_id: str = ""
    came_at: list[float] = field(default_factory=list)  # one instant a token
    broken: bool = False

    def follow(self, url: str, enough: Event, tokens: int) -> None:
        body = _body("THINK 100000", stream=True, max_tokens=60_000)
        try:
            with httpx.stream("POST", url, json=body, headers=KEY, timeout=30) as answer:
                for line in answer.iter_lines():
                    if line.startswith("data: {"):
                        self._take(json.loads(line[6:]))
                    if len(self.came_at) >= tokens:
                        enough.set()
        except httpx.HTTPError:
            self.broken = True

    def _take(self, chunk: Json) -> None:
        self.request_id = str(chunk["id"])
        [choice] = chunk["choices"]
        text = choice["delta"].get("reasoning_content") or ""
        self.came_at += [time.monotonic()] * text.count(" ")  # each token begins with one


def _body(question: str, **fields: object) -> Json:
    messages = [{"role": "user", "content": question}]
    return {"model": "deepseek-reasoner", "messages": messages} | fields


def _settings(folder: Path) -> Settings:
    keys, tenants = folder / "keys", folder / "tenants.yaml"
    keys.write_text(f"{key_line('ada', 'sk-ada')}\n")
    tenants.write_text(f"tenants: {{ada: {{budget: {{topped_up: {BUDGET}}}}}}}")
    return Settings(
        api={"keys_path": str(keys), "tenants_path": str(tenants)},
        usage={
            "dir": str(folder / "usage"),
            "progress_s": PROGRESS_S,
            "sync_s": 0.2,
            "segment_bytes": 4_000,  # several segments, so that open requests are carried over
        },
        prices=PRICES,
        step_s=0.005,
    )


def _records(folder: Path) -> Iterator[Record]:
    decode = msgspec.json.Decoder(Record).decode
    for path in sorted(folder.glob("*.jsonl")):
        yield from (decode(line) for line in path.read_bytes().splitlines(keepends=False) if line)


def test_a_killed_gateway_loses_no_ended_request_and_little_of_the_open_ones(
    tmp_path: Path,
) -> None:
    settings = _settings(tmp_path)
    streams = [Stream() for _ in range(STREAMS)]
    whole: dict[str, TokenCounts] = {}
    with started(settings, tmp_path) as server, ThreadPoolExecutor(STREAMS) as pool:
        url = f"{server.url}/chat/completions"
        begun, enough = Event(), Event()
        pool.submit(streams[0].follow, url, begun, 20)
        assert begun.wait(60)
        for number in range(12):  # these end while the others stream
            answer = httpx.post(url, json=_body(f"THINK {number} LONG 9"), headers=KEY, timeout=30)
            usage = answer.json()["usage"]
            thinking = usage["completion_tokens_details"]["reasoning_tokens"]
            whole[answer.json()["id"]] = TokenCounts(
                usage["prompt_cache_miss_tokens"],
                usage["prompt_cache_hit_tokens"],
                thinking,
                usage["completion_tokens"] - thinking,
            )
        for stream in streams[1:]:
            pool.submit(stream.follow, url, enough, 300)
        assert enough.wait(60)
        server.process.kill()
        killed_at = time.monotonic()
    assert all(stream.broken for stream in streams)

    folder = tmp_path / "usage"
    [life] = lives(folder)
    reader = LifeReader(folder, life, by_day=False)
    reader.read()
    assert (reader.damaged, reader.fold.faults) == (0, 0)
    ended: dict[str, Ended] = {}
    for record in _records(folder):
        if isinstance(record, Ended):
            assert record.request_id not in ended, "a request ends once"
            ended[record.request_id] = record
    assert {name: each.tokens for name, each in ended.items()} == whole, "of these nothing is lost"

    still: dict[str, OpenRequest] = {each.request_id: each for each in reader.fold.open}
    assert set(still) == {stream.request_id for stream in streams}
    losses = []
    for stream in streams:
        known = still[stream.request_id].tokens.thinking
        sure = sum(at <= killed_at - PROGRESS_S - LATE_S for at in stream.came_at)
        assert sure <= known <= len(stream.came_at)
        losses.append(len(stream.came_at) - known)
    sys.stdout.write(f"tokens that the journal lost of each open stream: {losses}\n")

    prices = msgspec.convert(PRICES, PricesSpec)
    spent = sum(cost_pico(prices, tokens) for tokens in whole.values())
    spent += sum(each.cost_pico for each in still.values())
    total = sum(read_usage(folder).rows.values(), Usage())
    assert (total.requests, total.open, total.cost_pico) == (12 + STREAMS, STREAMS, spent)
    with started(settings, tmp_path) as server:
        answer = httpx.get(f"{server.url}/user/balance", headers=KEY, timeout=30)
        [info] = answer.json()["balance_infos"]
        assert info["total_balance"] == money_text(BUDGET * PICO - spent)
