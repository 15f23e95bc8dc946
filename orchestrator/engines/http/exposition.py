"""What an engine's own metrics, in Prometheus text format, say of its cache and its load."""

import re
from collections.abc import Sequence

_GAUGE = re.compile(rb"^(?:vllm|sglang):(\w+)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
_CACHE = re.compile(rb"^vllm:cache_config_info\{([^}]*)\}", re.MULTILINE)
_LABEL = re.compile(rb'(\w+)="([^"]*)"')
# vLLM's names, then SGLang's.
_RUNNING = (b"num_requests_running", b"num_running_reqs")
_WAITING = (b"num_requests_waiting", b"num_queue_reqs")
_USAGE = (b"kv_cache_usage_perc", b"token_usage")


def cache_config(metrics: bytes) -> tuple[int, int]:
    """Tokens per KV block, and blocks; 0 where the metrics have none."""
    found = _CACHE.search(metrics)
    labels = dict(_LABEL.findall(found[1])) if found else {}
    return _whole(labels.get(b"block_size")), _whole(labels.get(b"num_gpu_blocks"))


def load_of(metrics: bytes) -> tuple[int, int, float]:
    """Requests that run and that wait, and the fraction of the KV blocks in use."""
    gauges = dict(_GAUGE.findall(metrics))
    running, waiting = _number(gauges, _RUNNING), _number(gauges, _WAITING)
    return int(running), int(waiting), min(1.0, _number(gauges, _USAGE))


def _whole(text: bytes | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0


def _number(gauges: dict[bytes, bytes], names: Sequence[bytes]) -> float:
    for name in names:
        if name in gauges:
            try:
                return max(0.0, float(gauges[name]))
            except ValueError:
                return 0.0
    return 0.0
