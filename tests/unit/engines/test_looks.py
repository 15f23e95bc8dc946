"""A gateway may ask an engine how it does; old engines and old gateways are not disturbed by it."""

import msgspec

from orchestrator.engines import ChannelLimits, EngineLoad
from orchestrator.engines.channel import frames
from orchestrator.engines.vitals import counters_of
from orchestrator.fleet.doctor import Disk, Vitals
from orchestrator.fleet.doctor.vitals import ACCEPTED_TOKENS, DRAFTS, MOVED_TOKENS

VITALS = Vitals(1.5, True, 7, 1, 0, 0.25, 1 << 30, (Disk("/tmp", 1, 2),), None, {"drafts": 3.0})
LIMITS = ChannelLimits()


def test_vitals_come_with_a_heartbeat_as_they_were_sent() -> None:
    sent = frames.Beat(EngineLoad(1, 0, 0.25, 7), vitals=VITALS)
    (got,) = frames.engine_reader(LIMITS.max_frame_bytes).feed(frames.frame(sent))
    assert got == sent


def test_a_pulse_of_older_gateways_asks_for_nothing_and_a_newer_one_is_understood() -> None:
    reader = frames.gateway_reader(LIMITS.max_frame_bytes)
    old = msgspec.msgpack.encode([4, None, None])
    new = msgspec.msgpack.encode([4, None, None, True, "later"])
    pulses = [len(raw).to_bytes(4) + raw for raw in (old, new)]
    assert list(reader.feed(b"".join(pulses))) == [frames.Pulse(), frames.Pulse(look=True)]


def test_counters_are_read_from_vllms_exposition_and_summed_over_its_labels() -> None:
    text = b"""# TYPE vllm:prompt_tokens_by_source_total counter
vllm:prompt_tokens_by_source_total{engine="0",model_name="r1",source="local_compute"} 40.0
vllm:prompt_tokens_by_source_total{engine="0",model_name="r1",source="external_kv_transfer"} 30.0
vllm:prompt_tokens_by_source_total{engine="1",model_name="r1",source="external_kv_transfer"} 2.0
vllm:spec_decode_num_drafts_total{engine="0",model_name="r1"} 1.2e+02
vllm:spec_decode_num_drafts_created{engine="0",model_name="r1"} 1.7e+09
"""
    assert counters_of(text) == {MOVED_TOKENS: 32.0, DRAFTS: 120.0}
    assert ACCEPTED_TOKENS not in counters_of(text)
