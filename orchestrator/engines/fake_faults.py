"""What a fake engine's silent faults do to what it says; what they do to its work is in it."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from orchestrator.engines.engine import EngineInfo
from orchestrator.engines.fake_script import END_OF_SENTENCE, FakeEngineSpec
from orchestrator.fleet.doctor import Disk, Features, SilentFault, Vitals

CONNECTOR = "FakeKvStore"
KV_TYPE = "bfloat16"
SLOWER = 20  # times the pace of a healthy one
_SLOW_STEP_S = 0.03
_CLOCK_OFF_S = 90.0
_FALLBACK = "allgather_reducescatter"  # what vLLM takes where a backend is missing
_FULL_DISK = Disk("/var/log", 12 << 20, 1 << 40)


def told(info: EngineInfo, spec: FakeEngineSpec) -> EngineInfo:
    """What the engine says of itself, with its faults."""
    features = Features(
        kv_connector=CONNECTOR,
        kv_dtype=KV_TYPE,
        all2all=spec.all2all,
        draft_tokens=spec.draft_tokens,
        prefix_cache=spec.prefix_blocks > 0,
    )
    for fault in spec.faults:
        match fault:
            case SilentFault.OTHER_CONNECTOR:
                features = replace(features, kv_connector="")
            case SilentFault.OTHER_KV_TYPE:
                features = replace(features, kv_dtype="fp8_e4m3")
            case SilentFault.OTHER_EXPERT_BACKEND:
                features = replace(features, all2all=_FALLBACK)
            case SilentFault.OTHER_BLOCK_SIZE:
                info = msgspec.structs.replace(info, block_size=2 * info.block_size)
            case SilentFault.OTHER_VERSION:
                info = msgspec.structs.replace(info, engine="fake 0")
            case SilentFault.LITTLE_KV:
                info = msgspec.structs.replace(info, kv_blocks=info.kv_blocks // 2)
            case SilentFault.SHORT_CONTEXT:
                info = msgspec.structs.replace(info, max_model_len=info.max_model_len // 2)
            case _:
                pass  # it shows elsewhere
    return msgspec.structs.replace(info, features=features)


def shown(vitals: Vitals, spec: FakeEngineSpec) -> Vitals:
    """How the engine and its node do, with its faults."""
    vitals = replace(vitals, link_bytes_per_s=spec.link_bytes_per_s)
    for fault in spec.faults:
        match fault:
            case SilentFault.CLOCK_OFF:
                vitals = replace(vitals, unix_s=vitals.unix_s + _CLOCK_OFF_S)
            case SilentFault.SHM_FULL:
                vitals = replace(vitals, shm_free_bytes=1 << 20)
            case SilentFault.DISK_FULL:
                vitals = replace(vitals, disks=(*vitals.disks, _FULL_DISK))
            case SilentFault.SLOW_FABRIC:
                speed = spec.link_bytes_per_s or 0.0
                vitals = replace(vitals, link_bytes_per_s=speed / SLOWER)
            case _:
                pass
    return vitals


def step_s(spec: FakeEngineSpec) -> float:
    """What a step takes."""
    slow = SilentFault.SLOW in spec.faults
    return max(_SLOW_STEP_S, SLOWER * spec.step_s) if slow else spec.step_s


def foreign(script: Sequence[int]) -> tuple[int, ...]:
    """What is drawn from KV of something else: other ids, as many."""
    return tuple(id_ + 1 if id_ > END_OF_SENTENCE else id_ for id_ in script)
