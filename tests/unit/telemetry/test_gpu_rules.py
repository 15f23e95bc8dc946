"""A GPU has the same series whoever reads it: NVML, or dcgm-exporter of either generation."""

from pathlib import Path

import pytest

from tests.unit.telemetry.promtool import case, check, run, series

OLD = {
    "DCGM_FI_PROF_SM_ACTIVE": 0.8,
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": 0.4,
    "DCGM_FI_PROF_DRAM_ACTIVE": 0.6,
    "DCGM_FI_DEV_GPU_UTIL": 100,
    "DCGM_FI_DEV_SM_CLOCK": 1980,
    "DCGM_FI_DEV_POWER_USAGE": 500,
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 7_000,
    "DCGM_FI_DEV_GPU_TEMP": 61,
    "DCGM_FI_DEV_FB_USED": 1024,
}
NEW = {
    "DCGM_FI_PROF_SM_UTIL_RATIO": 0.8,
    "DCGM_FI_PROF_TENSOR_UTIL_RATIO": 0.4,
    "DCGM_FI_PROF_DRAM_UTIL_RATIO": 0.6,
    "DCGM_FI_DEV_GPU_UTIL_RATIO": 1,
    "DCGM_FI_DEV_SM_CLOCK_HERTZ": 1.98e9,
    "DCGM_FI_DEV_BOARD_POWER_WATTS": 500,
    "DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL": 7,
    "DCGM_FI_DEV_GPU_TEMP_CELSIUS": 61,
    "DCGM_FI_DEV_FB_USED_BYTES": 1024 * 2**20,
}
OURS = {
    "r1_gpu_sm_active_ratio": 0.8,
    "r1_gpu_tensor_active_ratio": 0.4,
    "r1_gpu_dram_active_ratio": 0.6,
    "r1_gpu_any_kernel_ratio": 1,
    "r1_gpu_sm_clock_hertz": 1.98e9,
    "r1_gpu_power_watts": 500,
    "r1_gpu_energy_joules_total": 7,
    "r1_gpu_temperature_celsius": 61,
    "r1_gpu_memory_used_bytes": 1024 * 2**20,
}
READ = {
    "r1:gpu_sm_active:ratio": 0.8,
    "r1:gpu_tensor_active:ratio": 0.4,
    "r1:gpu_dram_active:ratio": 0.6,
    "r1:gpu_any_kernel:ratio": 1,
    "r1:gpu_sm_clock:hertz": 1.98e9,
    "r1:gpu_power:watts": 500,
    "r1:gpu_energy:joules_total": 7,
    "r1:gpu_temperature:celsius": 61,
    "r1:gpu_memory_used:bytes": 1024 * 2**20,
}


@pytest.mark.parametrize(
    ("there", "labels", "source"),
    [
        (OLD, {"gpu": "3", "UUID": "GPU-1", "Hostname": "h"}, "dcgm"),
        (OLD, {"gpu": "3", "UUID": "GPU-1", "hostname": "h"}, "dcgm"),  # from 4.8.3 on
        (NEW, {"gpu": "3", "UUID": "GPU-1", "hostname": "h"}, "dcgm"),
        (OURS, {"gpu": "3", "node": "h", "source": "nvml"}, "nvml"),
    ],
)
def test_a_reading_has_our_name_and_unit_whoever_took_it(
    there: dict[str, float], labels: dict[str, str], source: str, tmp_path: Path
) -> None:
    inputs = [series(name, f"{value}x60", **labels) for name, value in there.items()]
    want = f'{{node="h",gpu="3",source="{source}"}}'
    checks = [check(f"round({name}, 0.001)", (want, float(value))) for name, value in READ.items()]
    assert run(tmp_path, [case(inputs, checks)]) == ""


def test_our_own_reading_goes_before_the_exporters(tmp_path: Path) -> None:
    inputs = [
        series("r1_gpu_power_watts", "1x60", node="h", gpu="0", source="nvml"),
        series("DCGM_FI_DEV_POWER_USAGE", "2x60", gpu="0", hostname="h"),
        series("DCGM_FI_DEV_POWER_USAGE", "3x60", gpu="1", hostname="h"),
    ]
    both = check(
        "sum by (node, gpu) (r1:gpu_power:watts)",
        *(
            ('{node="h",gpu="0"}', 1.0),
            ('{node="h",gpu="1"}', 3.0),
        ),
    )
    assert run(tmp_path, [case(inputs, [both])]) == ""


@pytest.mark.parametrize("name", ["DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_XID_ERROR"])
def test_an_xid_that_only_the_exporter_saw_is_an_error_in_ten_minutes(
    name: str, tmp_path: Path
) -> None:
    inputs = [series(name, "0x20 79x60", gpu="0", hostname="h")]
    seen = check(
        "r1:gpu_xid:per_10m > 0", ('r1:gpu_xid:per_10m{node="h",gpu="0",source="dcgm"}', 1.0)
    )
    assert run(tmp_path, [case(inputs, [seen])]) == ""
