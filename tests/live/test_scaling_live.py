"""The scaling policy in Serve's own controller: gangs come with the load and go with it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.engines.tiny_checkpoint import write_tokenizer
from tests.live.local_stack import LocalStack, local_stack, until
from tests.live.traffic import Tally, Traffic

pytestmark = [pytest.mark.live, pytest.mark.long, pytest.mark.timeout(500)]

# A decode rank keeps 0.25 s a token with up to 15 requests: (0.25 - 0.1) / 0.01.
SPEC = """
models:
  - path: {path}
    name: DeepSeek-R1
    max_model_len: 2048
    engine: {{kind: fake, device: cpu, fake_step_s: 0.1, storage_bytes_per_s: 1.0e+10}}
    pools:
      - role: prefill
        node_weights_bytes: 1.0e+9
        costs: {{prefill_base_s: 0.001, prefill_token_s: 0.00001}}
      - role: decode
        node_weights_bytes: 1.0e+9
        costs: {{prefill_base_s: 0.001, prefill_token_s: 0.00001, step_base_s: 0.1,
                step_request_s: 0.01}}
    scaling:
      ttft_s: 5.0
      tpot_s: 0.25
      pools: [{{role: prefill, gangs_max: 1}}, {{role: decode, gangs_max: 3}}]
      dwell_s: 3.0
      period_s: 2.0
gateway: {{host: 127.0.0.1}}
fleet: {{health_period_s: 1, start_attempts: 1, stuck_after_s: 60, drain_wait_s: 2, drain_s: 60}}
local: {{nodes: 4, gpus_per_node: 1}}
"""
MANY, FEW = 12, 2


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LocalStack]:
    checkpoint = tmp_path / "tokenizer"
    write_tokenizer(checkpoint)
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.format(path=checkpoint))
    with local_stack(tmp_path, "--spec", str(spec)) as stack:
        yield stack


def decode_gangs(fleet: LocalStack) -> int:
    return fleet.ranks().get("decode", 0)


def test_gangs_come_with_the_load_and_go_with_it_and_no_stream_breaks(fleet: LocalStack) -> None:
    assert fleet.ranks() == {"prefill": 1, "decode": 1}
    questions = [f"Client {n} asks: how is the weather, and how was it? " * 4 for n in range(MANY)]
    many = Traffic(fleet.url, questions[FEW:], {})
    few = Traffic(fleet.url, questions[:FEW], {})
    many.learn()
    few.learn()
    few.start()
    many.start()
    until(lambda: decode_gangs(fleet) >= 2, 120)
    many.stop()
    until(lambda: decode_gangs(fleet) == 1, 200)  # arrivals are counted over a minute
    few.stop()
    total = Tally()
    for traffic in (many, few):
        total.add(traffic.tally(0.0, float("inf")))
    assert total.streams > MANY
    assert (total.broken, total.different) == ([], [])
    text = (fleet.log_dir / "decisions-scaling.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    decode = [line for line in lines if line["role"] == "decode"]
    assert max(line["decision"] for line in decode) >= 2
    assert decode[-1]["decision"] == 1
    assert all(line["reason"] for line in lines)
