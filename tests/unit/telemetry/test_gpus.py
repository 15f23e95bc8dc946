"""Readings of GPUs: what is there becomes samples, what is not available becomes none."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.core import SpecError
from orchestrator.telemetry import Metrics, metrics
from orchestrator.telemetry.gpu import GpuReading, HostReading, NoGpus, set_gpu_ranks, set_gpus
from orchestrator.telemetry.metrics.labels import Clock, Source
from orchestrator.telemetry.nvml import NvmlReader
from orchestrator.telemetry.recorded import RecordedReader, head_line, line_of

SHIPPED = Path(__file__).parents[3] / "orchestrator/telemetry/gpus-made.jsonl"


class NvmlRefusal(Exception):
    """What the library raises."""


@dataclass
class FakeNvml:
    """Stands for the module `pynvml`, with one GPU: each call answers or is refused."""

    refused: frozenset[str] = frozenset()
    answers: dict[str, Any] = field(default_factory=dict)
    xids: list[int] = field(default_factory=list)
    NVMLError: type[Exception] = NvmlRefusal
    NVML_SUCCESS: int = 0
    NVML_GPM_METRICS_GET_VERSION: int = 1

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # as a module
        if name.startswith("NVML_GPM_METRIC_"):
            return GPM[name]
        if name.startswith(("NVML_", "nvmlClocksEventReason", "nvmlEventType")):
            return CONSTANTS[name]
        if name.startswith("nvml"):
            return lambda *arguments: self._call(name, *arguments)
        if name == "c_nvmlGpmMetricsGet_t":
            return lambda: SimpleNamespace(metrics=[SimpleNamespace() for _ in range(20)])
        raise AttributeError(name)

    def _call(self, name: str, *arguments: Any) -> Any:  # noqa: ANN401
        if name in self.refused:
            raise NvmlRefusal(name)
        if name == "nvmlGpmMetricsGet":
            (asked,) = arguments
            for at in range(asked.numMetrics):
                one = asked.metrics[at]
                one.nvmlReturn = 0 if one.metricId != GPM[NO_NVLINK] else 3
                one.value = 10.0 * (at + 1)
            return asked
        if name == "nvmlEventSetWait_v2":
            if not self.xids:
                raise NvmlRefusal("time-out")
            return SimpleNamespace(device="gpu0", eventData=self.xids.pop(0))
        return {**ANSWERS, **self.answers}[name]


NO_NVLINK = "NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC"
GPM = {
    "NVML_GPM_METRIC_SM_UTIL": 2,
    "NVML_GPM_METRIC_ANY_TENSOR_UTIL": 5,
    "NVML_GPM_METRIC_DRAM_BW_UTIL": 10,
    "NVML_GPM_METRIC_PCIE_TX_PER_SEC": 20,
    "NVML_GPM_METRIC_PCIE_RX_PER_SEC": 21,
    "NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC": 60,
    NO_NVLINK: 61,
}
CONSTANTS = {
    "NVML_CLOCK_SM": 1,
    "NVML_TEMPERATURE_GPU": 0,
    "NVML_VOLATILE_ECC": 0,
    "NVML_MEMORY_ERROR_TYPE_CORRECTED": 0,
    "NVML_MEMORY_ERROR_TYPE_UNCORRECTED": 1,
    "nvmlEventTypeXidCriticalError": 8,
    "nvmlClocksEventReasonSwPowerCap": 0x4,
    "nvmlClocksEventReasonHwSlowdown": 0x8,
    "nvmlClocksEventReasonSwThermalSlowdown": 0x20,
    "nvmlClocksEventReasonHwThermalSlowdown": 0x40,
    "nvmlClocksEventReasonHwPowerBrakeSlowdown": 0x80,
}
ANSWERS = {
    "nvmlInit": None,
    "nvmlDeviceGetCount": 1,
    "nvmlDeviceGetHandleByIndex": "gpu0",
    "nvmlDeviceGetIndex": 0,
    "nvmlGpmQueryDeviceSupport": SimpleNamespace(isSupportedDevice=1),
    "nvmlGpmSampleAlloc": "sample",
    "nvmlGpmSampleGet": "sample",
    "nvmlGpmSampleFree": None,
    "nvmlEventSetCreate": "events",
    "nvmlDeviceRegisterEvents": None,
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=7, total=9),
    "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=100),
    "nvmlDeviceGetClockInfo": 1980,
    "nvmlDeviceGetPowerUsage": 350_000,
    "nvmlDeviceGetEnforcedPowerLimit": 700_000,
    "nvmlDeviceGetTotalEnergyConsumption": 5_000,
    "nvmlDeviceGetTemperatureV": 61,
    "nvmlDeviceGetPcieReplayCounter": 2,
    "nvmlDeviceGetTotalEccErrors": 0,
    "nvmlDeviceGetCurrentClocksEventReasons": 0x44,
}


def test_a_gpu_is_read_in_our_units() -> None:
    reader = NvmlReader(FakeNvml(xids=[79, 48]))
    assert (reader.source, reader.cause) == (Source.NVML, "")
    seen = reader.read()
    (gpu,) = seen.gpus
    assert gpu.sm_active == pytest.approx(0.1)
    assert gpu.tensor_active == pytest.approx(0.2)
    assert gpu.dram_active == pytest.approx(0.3)
    assert gpu.any_kernel == 1.0
    assert gpu.sm_clock_hz == pytest.approx(1.98e9)
    assert gpu.power_w == pytest.approx(350)
    assert gpu.power_limit_w == pytest.approx(700)
    assert gpu.energy_j == pytest.approx(5)
    assert gpu.pcie_sent == pytest.approx(40 * 2**20)
    assert gpu.nvlink_received == pytest.approx(60 * 2**20)
    assert gpu.clock_limits == (Clock.POWER, Clock.THERMAL)
    assert seen.xids == ((0, 79), (0, 48))
    assert reader.read().xids == ()


def test_what_the_gpu_refuses_alone_is_not_available() -> None:
    (gpu,) = NvmlReader(FakeNvml(refused=frozenset({"nvmlDeviceGetPowerUsage"}))).read().gpus
    assert gpu.power_w is None
    assert gpu.nvlink_sent is None  # GPM says that it has not this one
    assert gpu.temperature_c == 61


def test_a_gpu_before_hopper_has_no_activities_and_all_the_rest() -> None:
    old = FakeNvml(answers={"nvmlGpmQueryDeviceSupport": SimpleNamespace(isSupportedDevice=0)})
    (gpu,) = NvmlReader(old).read().gpus
    assert (gpu.sm_active, gpu.tensor_active, gpu.nvlink_received) == (None, None, None)
    assert gpu.any_kernel == 1.0


@pytest.mark.parametrize(
    ("api", "cause"),
    [
        (FakeNvml(refused=frozenset({"nvmlInit"})), "does not start"),
        (FakeNvml(answers={"nvmlDeviceGetCount": 0}), "knows of no GPU"),
    ],
)
def test_a_host_without_gpus_or_without_permission_is_not_available(
    api: FakeNvml, cause: str
) -> None:
    reader = NvmlReader(api)
    assert reader.source is Source.NONE
    assert cause in reader.cause
    assert reader.read() == HostReading(())


def test_not_available_is_no_sample_and_never_zero() -> None:
    counted = Metrics()
    set_gpus(counted, "host", Source.NONE, NoGpus("none here").read())
    text = counted.exposition().decode()
    assert 'r1_gpu_telemetry{node="host",source="none"} 1.0' in text
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(samples) == 1

    set_gpus(counted, "host", Source.NVML, HostReading((GpuReading(0, power_w=0.0),)))
    text = counted.exposition().decode()
    assert 'r1_gpu_power_watts{node="host",gpu="0",source="nvml"} 0.0' in text
    assert "r1_gpu_sm_active_ratio" not in text
    assert 'source="none"' not in text


def test_a_gpu_that_is_gone_has_no_sample_any_more() -> None:
    counted = Metrics()
    set_gpus(counted, "h", Source.NVML, HostReading((GpuReading(0, power_w=1), GpuReading(1))))
    set_gpus(counted, "h", Source.NVML, HostReading((GpuReading(1, power_w=2),)))
    text = counted.exposition().decode()
    assert 'r1_gpu_power_watts{node="h",gpu="1"' in text
    assert 'r1_gpu_power_watts{node="h",gpu="0"' not in text


def test_xid_errors_add_up_by_number() -> None:
    counted = Metrics()
    for _ in range(2):
        set_gpus(counted, "h", Source.NVML, HostReading((), ((3, 79),)))
    assert b'r1_gpu_xid_errors_total{node="h",gpu="3",source="nvml",xid="79"} 2.0' in (
        counted.exposition()
    )


def test_the_rank_of_a_gpu_is_told() -> None:
    counted = Metrics()
    set_gpu_ranks(counted, "h", [(0, "R1", "decode", "gang-1", "0")])
    set_gpu_ranks(counted, "h", [(1, "R1", "decode", "gang-2", "0")])
    text = counted.exposition().decode()
    assert text.count("r1_gpu_rank{") == 1
    assert 'gpu="1",model="R1",role="decode",gang="gang-2",rank="0"' in text


def test_a_recording_is_played_and_labelled_as_such(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    seconds = [HostReading((GpuReading(0, power_w=watts),)) for watts in (100.0, 200.0)]
    path.write_bytes(head_line("a test") + b"".join(map(line_of, seconds)))
    reader = RecordedReader(path)
    assert reader.head.taken_from == "a test"
    assert [reader.read().gpus[0].power_w for _ in range(3)] == [100.0, 200.0, 100.0]
    counted = Metrics()
    set_gpus(counted, "recorded", reader.source, reader.read())
    assert b'source="recorded"' in counted.exposition()


@pytest.mark.parametrize("text", [b"", b"{}\n", b'{"taken_from": "x"}\n', b"not JSON\n{}\n"])
def test_what_is_no_recording_is_named(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "recording"
    path.write_bytes(text)
    with pytest.raises(SpecError, match=r"recording|second"):
        RecordedReader(path)


def test_the_shipped_recording_says_that_it_is_of_no_gpu_and_has_no_fault() -> None:
    reader = RecordedReader(SHIPPED)
    assert reader.head.taken_from.startswith("no GPU")
    for _ in range(30):
        seen = reader.read()
        assert seen.xids == ()
        for gpu in seen.gpus:
            assert gpu.ecc_uncorrected == 0
            assert gpu.clock_limits == ()
            assert gpu.sm_active is not None
            assert 0 < gpu.sm_active < 1


def test_every_name_that_is_asked_of_nvidias_module_is_there() -> None:
    pynvml = pytest.importorskip("pynvml")
    for name in (*GPM, *CONSTANTS, *ANSWERS, "c_nvmlGpmMetricsGet_t", "nvmlEventSetWait_v2"):
        assert hasattr(pynvml, name), name
    for name, number in GPM.items():
        assert getattr(pynvml, name) == number
    assert metrics.SM_ACTIVE.name == "r1_gpu_sm_active_ratio"
