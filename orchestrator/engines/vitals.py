"""How an engine process and its node do: looked at when somebody asks.

The engine's exposition is what costs: some milliseconds with vLLM.
"""

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from orchestrator.engines.engine import EngineLoad
from orchestrator.fleet.doctor import Disk, Vitals
from orchestrator.fleet.doctor.vitals import ACCEPTED_TOKENS, DRAFTS, MOVED_TOKENS

SHM = "/dev/shm"
# vLLM 0.32's families (v1/metrics/loggers.py, v1/spec_decode/metrics.py), by our names.
_COUNTED: Mapping[str, re.Pattern[bytes]] = {
    MOVED_TOKENS: re.compile(
        rb'^vllm:prompt_tokens_by_source_total\{[^}]*source="external_kv_transfer"[^}]*\} (\S+)',
        re.MULTILINE,
    ),
    DRAFTS: re.compile(rb"^vllm:spec_decode_num_drafts_total\{[^}]*\} (\S+)", re.MULTILINE),
    ACCEPTED_TOKENS: re.compile(
        rb"^vllm:spec_decode_num_accepted_tokens_total\{[^}]*\} (\S+)", re.MULTILINE
    ),
}


def vitals_of(
    load: EngineLoad, failure: str | None, metrics: bytes, folders: Iterable[str]
) -> Vitals:
    """As of now; `folders` are what the process writes to, those that are not there are left out.

    `metrics` is the engine's exposition.
    """
    return Vitals(
        unix_s=datetime.now(UTC).timestamp(),
        healthy=failure is None,
        steps=load.steps,
        running=load.running,
        waiting=load.waiting,
        kv_usage=load.kv_usage,
        shm_free_bytes=_free(SHM).free_bytes if os.path.isdir(SHM) else None,
        disks=tuple(_free(folder) for folder in folders if os.path.isdir(folder)),
        counters=counters_of(metrics),
    )


def counters_of(metrics: bytes) -> dict[str, float]:
    """Those that the doctor reads, each the sum over its labels; absent ones are left out."""
    found = {}
    for name, family in _COUNTED.items():
        if values := family.findall(metrics):
            found[name] = sum(map(float, values))
    return found


def _free(folder: str) -> Disk:
    usage = shutil.disk_usage(folder)
    return Disk(folder, usage.free, usage.total)
