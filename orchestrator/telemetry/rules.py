"""Recording rules: GPUs by one name whoever reads them, phases, SLOs, and what a token costs.

A rule's name is `r1:WHAT:UNIT`, of which boards and alerts are made. So a metric that an engine or
an exporter renames is mended here, once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

_5M = "[5m]"


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording rule."""

    name: str
    query: str


@dataclass(frozen=True, slots=True)
class RuleGroup:
    """Rules that are evaluated together, in order."""

    name: str
    rules: tuple[Recording, ...]


# --- GPUs ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Gpu:
    """A reading: our own name for it, and dcgm-exporter's of both generations, with the factor that
    brings it to our unit. DCGM 4.7 renamed 23 fields and changed eleven units: release notes of
    dcgm-exporter 4.9.0.
    """

    rule: str
    own: str
    until_4_8: str = ""
    factor: float = 1.0
    from_4_9: str = ""


_MIB, _MEGA, _MILLI, _PERCENT = float(1 << 20), 1e6, 1e-3, 1e-2

_GPUS = (
    _Gpu(
        "r1:gpu_sm_active:ratio",
        "r1_gpu_sm_active_ratio",
        "DCGM_FI_PROF_SM_ACTIVE",
        1.0,
        "DCGM_FI_PROF_SM_UTIL_RATIO",
    ),
    _Gpu(
        "r1:gpu_tensor_active:ratio",
        "r1_gpu_tensor_active_ratio",
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
        1.0,
        "DCGM_FI_PROF_TENSOR_UTIL_RATIO",
    ),
    _Gpu(
        "r1:gpu_dram_active:ratio",
        "r1_gpu_dram_active_ratio",
        "DCGM_FI_PROF_DRAM_ACTIVE",
        1.0,
        "DCGM_FI_PROF_DRAM_UTIL_RATIO",
    ),
    _Gpu(
        "r1:gpu_any_kernel:ratio",
        "r1_gpu_any_kernel_ratio",
        "DCGM_FI_DEV_GPU_UTIL",
        _PERCENT,
        "DCGM_FI_DEV_GPU_UTIL_RATIO",
    ),
    _Gpu(
        "r1:gpu_sm_clock:hertz",
        "r1_gpu_sm_clock_hertz",
        "DCGM_FI_DEV_SM_CLOCK",
        _MEGA,
        "DCGM_FI_DEV_SM_CLOCK_HERTZ",
    ),
    _Gpu(
        "r1:gpu_power:watts",
        "r1_gpu_power_watts",
        "DCGM_FI_DEV_POWER_USAGE",
        1.0,
        "DCGM_FI_DEV_BOARD_POWER_WATTS",
    ),
    _Gpu(
        "r1:gpu_energy:joules_total",
        "r1_gpu_energy_joules_total",
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        _MILLI,
        "DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL",
    ),
    _Gpu(
        "r1:gpu_temperature:celsius",
        "r1_gpu_temperature_celsius",
        "DCGM_FI_DEV_GPU_TEMP",
        1.0,
        "DCGM_FI_DEV_GPU_TEMP_CELSIUS",
    ),
    _Gpu(
        "r1:gpu_memory_used:bytes",
        "r1_gpu_memory_used_bytes",
        "DCGM_FI_DEV_FB_USED",
        _MIB,
        "DCGM_FI_DEV_FB_USED_BYTES",
    ),
    _Gpu(
        "r1:gpu_pcie_replays:total",
        "r1_gpu_pcie_replays_total",
        "DCGM_FI_DEV_PCIE_REPLAY_COUNTER",
    ),
    _Gpu("r1:gpu_nvlink_sent:bytes_per_second", 'r1_gpu_nvlink_bytes_per_second{direction="sent"}'),
    _Gpu(
        "r1:gpu_nvlink_received:bytes_per_second",
        'r1_gpu_nvlink_bytes_per_second{direction="received"}',
    ),
    _Gpu(
        "r1:gpu_ecc_uncorrected:total",
        'r1_gpu_ecc_errors_total{kind="uncorrected"}',
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
    ),
)


def _of_gpu(reading: _Gpu) -> str:
    """Ours, where there is one; else whichever of the exporter's names is there."""
    found = [f"max by (node, gpu, source) ({reading.own})"]
    if reading.until_4_8:
        found.append(_of_dcgm(reading.until_4_8, reading.factor))
    if reading.from_4_9:
        found.append(_of_dcgm(reading.from_4_9, 1.0))
    return " or on (node, gpu) ".join(found)


def _of_dcgm(name: str, factor: float) -> str:
    """With our labels. The exporter's label of the host was `Hostname` before 4.8.3."""
    with_node = f'label_replace({name}, "node", "$1", "Hostname", "(.+)")'
    with_node = f'label_replace({with_node}, "node", "$1", "hostname", "(.+)")'
    scaled = f"max by (node, gpu) ({with_node})" + ("" if factor == 1.0 else f" * {factor!r}")
    return f'label_replace({scaled}, "source", "dcgm", "", "")'


# A counter that appears has counted its first one already. The exporter has the number of the last
# one only.
_XID = " or on (node, gpu) ".join(
    [
        "sum by (node, gpu, source) (clamp_min(r1_gpu_xid_errors_total - "
        "r1_gpu_xid_errors_total offset 10m, 0) or r1_gpu_xid_errors_total)",
        _of_dcgm("changes(DCGM_FI_DEV_XID_ERRORS[10m])", 1.0),
        _of_dcgm("changes(DCGM_FI_DEV_XID_ERROR[10m])", 1.0),
    ]
)

# --- requests ------------------------------------------------------------------------------------

_PHASES = (
    ("queue", "r1_queue_seconds"),
    ("prefill", "r1_prefill_seconds"),
    ("transfer", "r1_transfer_seconds"),
    ("ttft", "r1_ttft_seconds"),
    ("first_answer", "r1_first_answer_seconds"),
    ("itl", "r1_itl_seconds"),
    ("tpot", "r1_tpot_seconds"),
    ("request", "r1_request_seconds"),
)


def _quantiles() -> Iterator[Recording]:
    for name, metric in _PHASES:
        for quantile in (50, 99):
            yield Recording(
                f"r1:{name}_p{quantile}:seconds",
                f"histogram_quantile(0.{quantile}, "
                f"sum by (model, class, le) (rate({metric}_bucket{_5M})))",
            )


_WINDOWS = ("5m", "30m", "1h", "6h")


def _slo() -> Iterator[Recording]:
    """The share of requests that did not keep their SLO, over windows; and in budgets: 1 is what
    the target allows.
    """
    for window in _WINDOWS:
        missed = f'sum by (model, class) (rate(r1_slo_requests_total{{slo!="kept"}}[{window}]))'
        every = f"sum by (model, class) (rate(r1_slo_requests_total[{window}]))"
        allowed = "(1 - max by (model) (r1_slo_target_ratio))"
        yield Recording(
            f"r1:slo_missed_{window}:ratio", f"({missed} or 0 * {every}) / ({every} > 0)"
        )
        yield Recording(
            f"r1:slo_burn_{window}:budgets",
            f"r1:slo_missed_{window}:ratio / on (model) group_left () {allowed}",
        )


_TOKENS = (
    Recording("r1:prompt_tokens:per_second", f"sum by (model) (rate(r1_prompt_tokens_total{_5M}))"),
    Recording("r1:output_tokens:per_second", f"sum by (model) (rate(r1_output_tokens_total{_5M}))"),
    Recording(
        "r1:prefix_hit:ratio",
        f"sum by (model, hit) (rate(r1_prefix_hit_tokens_total{_5M})) / on (model) group_left () "
        f"(sum by (model) (rate(r1_prefilled_tokens_total{_5M})) > 0)",
    ),
)

# --- ranks ---------------------------------------------------------------------------------------

# Every gateway says the same of a rank, each a little later.
_RANK = "max by (model, role, rank) (r1_rank_requests)"
_RANKS = (
    Recording(
        "r1:rank_skew:ratio",
        f"max by (model, role) ({_RANK}) / (avg by (model, role) ({_RANK}) >= 4) - 1",
    ),
    Recording("r1:rank_kv:ratio", "max by (model, role, rank) (r1_rank_kv_ratio)"),
    Recording(
        "r1:gang_sm_skew:ratio",
        "(max by (gang) ({0}) - min by (gang) ({0})) / (max by (gang) ({0}) > 0.05)".format(
            "avg_over_time(r1:gpu_sm_active:ratio[5m]) * on (node, gpu) group_left (gang) "
            "max by (node, gpu, gang) (r1_gpu_rank)"
        ),
    ),
    Recording(
        "r1:pool_steps:per_second",
        "avg by (model, role) (max by (model, role, rank) (rate(r1_rank_steps_total[5m])))",
    ),
)

# --- money ---------------------------------------------------------------------------------------

_WORK = f"sum by (model, role, class, part) (rate(r1_work_seconds_total{_5M}))"
_COSTS = (
    Recording(
        "r1:pool_cost:per_hour",
        "max by (model, role) (r1_pool_gpus) * on () group_left () max(r1_gpu_hour_price)",
    ),
    Recording(
        "r1:pool_busy:ratio",
        f"sum by (model, role) (rate(r1_rank_busy_seconds_total{_5M})) / "
        f"(sum by (model, role) (rate(r1_rank_held_seconds_total{_5M})) > 0)",
    ),
    # What busy ranks cost, where anybody has been charged for work of that pool.
    Recording(
        "r1:pool_paid:per_hour",
        f"r1:pool_cost:per_hour * r1:pool_busy:ratio and on (model, role) "
        f"(sum by (model, role) ({_WORK}) > 0)",
    ),
    # Of each class and part, and with part `idle` all the rest: together what the pools cost.
    Recording(
        "r1:cost:per_hour",
        f"sum by (model, class, part) ({_WORK} / on (model, role) group_left () "
        f"(sum by (model, role) ({_WORK}) > 0) * on (model, role) group_left () "
        "r1:pool_paid:per_hour) or "
        "label_replace(sum by (model) (r1:pool_cost:per_hour) - on (model) "
        "(sum by (model) (r1:pool_paid:per_hour) or 0 * sum by (model) (r1:pool_cost:per_hour)), "
        '"part", "idle", "", "")',
    ),
    Recording(
        "r1:cost_per_million:money",
        "r1:cost:per_hour / on (model, class, part) "
        f"(sum by (model, class, part) (rate(r1_paid_tokens_total{_5M})) * 3600 > 0) * 1e6",
    ),
    # All that the model costs, idle included, for what it has written.
    Recording(
        "r1:cost_per_million_output:money",
        "sum by (model) (r1:cost:per_hour) / on (model) (sum by (model) "
        f'(rate(r1_paid_tokens_total{{part=~"thinking|answer"}}{_5M})) * 3600 > 0) * 1e6',
    ),
)

# --- what is done, of what could be --------------------------------------------------------------

_EFFICIENCY = (
    Recording(
        "r1:pool_flops_used:ratio",
        # Prompts are the prefill pool's, or the only one's; output is the decode pool's.
        'label_replace(sum by (model) (rate(r1_paid_tokens_total{part="input"}[5m])), "role", '
        '"prefill", "", "") * on (model) group_left () max by (model) (r1_model_token_flops) / on '
        "(model, role) group_left () (max by (model, role) (r1_pool_peak_flops) > 0) or "
        'label_replace(sum by (model) (rate(r1_paid_tokens_total{part=~"thinking|answer"}[5m])), '
        '"role", "decode", "", "") * on (model) group_left () max by (model) '
        "(r1_model_token_flops) / on (model, role) group_left () "
        "(max by (model, role) (r1_pool_peak_flops) > 0) or "
        'label_replace(sum by (model) (rate(r1_paid_tokens_total{part!="cached_input"}[5m])), '
        '"role", "unified", "", "") * on (model) group_left () max by (model) '
        "(r1_model_token_flops) / on (model, role) group_left () "
        "(max by (model, role) (r1_pool_peak_flops) > 0)",
    ),
    Recording(
        "r1:pool_weights_read:ratio",
        "sum by (model, role) (max by (model, role, rank) (rate(r1_rank_steps_total[5m]))) * on "
        "(model, role) group_left () max by (model, role) (r1_pool_step_bytes) / on (model, role) "
        "group_left () (max by (model, role) (r1_pool_peak_bytes_per_second) > 0)",
    ),
    Recording(  # of the time in which the ranks had something to do
        "r1:pool_step:seconds",
        "r1:pool_busy:ratio / (r1:pool_steps:per_second > 0)",
    ),
    Recording(
        "r1:tokens_per_joule:ratio",
        'sum(r1:output_tokens:per_second) / (sum(r1:gpu_power:watts{source!="recorded"}) > 0)',
    ),
)


def recording_groups() -> tuple[RuleGroup, ...]:
    """All of them, in the order in which they need each other."""
    gpus = tuple(Recording(each.rule, _of_gpu(each)) for each in _GPUS)
    return (
        RuleGroup("r1-gpus", (*gpus, Recording("r1:gpu_xid:per_10m", _XID))),
        RuleGroup("r1-requests", (*_quantiles(), *_TOKENS, *_slo())),
        RuleGroup("r1-pools", (*_RANKS, *_COSTS, *_EFFICIENCY)),
    )
