"""Reads GPUs with NVIDIA's library, through nvidia-ml-py.

Activities are from GPM, NVML's own counters of SMs, tensor cores, memory and links: from Hopper on,
without root. Each call may be refused (an older GPU, a container, MIG): what it would have told is
then not available, and nothing else.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from orchestrator.telemetry.gpu import GpuReading, HostReading
from orchestrator.telemetry.metrics.labels import Clock, Source

_MIB = 1 << 20
_XIDS_MAX = 64  # that one look takes; a GPU that floods is as broken as one that says it once
_Value = TypeVar("_Value")


class NvmlReader:
    """One process has one. `api` is the module `pynvml`, or what stands for it."""

    def __init__(self, api: Any) -> None:  # noqa: ANN401  # the module is untyped
        self._api = api
        self._devices: list[Any] = []
        self._samples: dict[int, Any] = {}  # GPM's last one of each GPU that has it
        self._events: Any = None
        self.cause = ""
        try:
            api.nvmlInit()
            count = api.nvmlDeviceGetCount()
            self._devices = [api.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except api.NVMLError as error:
            self.cause = f"NVML does not start: {error}"
            return
        if not self._devices:
            self.cause = "NVML knows of no GPU"
        for index, device in enumerate(self._devices):
            self._begin(index, device)

    @property
    def source(self) -> Source:
        """Who reads."""
        return Source.NVML if self._devices else Source.NONE

    def read(self) -> HostReading:
        """Looks."""
        gpus = tuple(self._gpu(index, device) for index, device in enumerate(self._devices))
        return HostReading(gpus, self._xids())

    def _begin(self, index: int, device: Any) -> None:  # noqa: ANN401
        api = self._api
        support = self._try(lambda: api.nvmlGpmQueryDeviceSupport(device))
        if support is not None and support.isSupportedDevice:
            sample = self._sample(device)
            if sample is not None:
                self._samples[index] = sample
        if self._events is None:
            self._events = self._try(api.nvmlEventSetCreate)
        if self._events is not None:
            xid = api.nvmlEventTypeXidCriticalError
            self._try(lambda: api.nvmlDeviceRegisterEvents(device, xid, self._events))

    def _gpu(self, index: int, device: Any) -> GpuReading:  # noqa: ANN401
        api, ask = self._api, self._try
        memory = ask(lambda: api.nvmlDeviceGetMemoryInfo(device))
        rates = ask(lambda: api.nvmlDeviceGetUtilizationRates(device))
        active = self._activity(index, device)
        return GpuReading(
            index,
            sm_active=_percent(active.get(api.NVML_GPM_METRIC_SM_UTIL)),
            tensor_active=_percent(active.get(api.NVML_GPM_METRIC_ANY_TENSOR_UTIL)),
            dram_active=_percent(active.get(api.NVML_GPM_METRIC_DRAM_BW_UTIL)),
            any_kernel=None if rates is None else _percent(rates.gpu),
            sm_clock_hz=_times(
                ask(lambda: api.nvmlDeviceGetClockInfo(device, api.NVML_CLOCK_SM)), 1e6
            ),
            clock_limits=self._clock_limits(device),
            power_w=_times(ask(lambda: api.nvmlDeviceGetPowerUsage(device)), 1e-3),
            power_limit_w=_times(ask(lambda: api.nvmlDeviceGetEnforcedPowerLimit(device)), 1e-3),
            energy_j=_times(ask(lambda: api.nvmlDeviceGetTotalEnergyConsumption(device)), 1e-3),
            temperature_c=ask(
                lambda: api.nvmlDeviceGetTemperatureV(device, api.NVML_TEMPERATURE_GPU)
            ),
            memory_used_bytes=None if memory is None else memory.used,
            memory_bytes=None if memory is None else memory.total,
            nvlink_sent=_times(active.get(api.NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC), _MIB),
            nvlink_received=_times(active.get(api.NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC), _MIB),
            pcie_sent=_times(active.get(api.NVML_GPM_METRIC_PCIE_TX_PER_SEC), _MIB),
            pcie_received=_times(active.get(api.NVML_GPM_METRIC_PCIE_RX_PER_SEC), _MIB),
            pcie_replays=ask(lambda: api.nvmlDeviceGetPcieReplayCounter(device)),
            ecc_corrected=self._ecc(device, api.NVML_MEMORY_ERROR_TYPE_CORRECTED),
            ecc_uncorrected=self._ecc(device, api.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
        )

    def _ecc(self, device: Any, kind: int) -> float | None:  # noqa: ANN401
        api = self._api
        return self._try(
            lambda: api.nvmlDeviceGetTotalEccErrors(device, kind, api.NVML_VOLATILE_ECC)
        )

    def _clock_limits(self, device: Any) -> tuple[Clock, ...] | None:  # noqa: ANN401
        api = self._api
        bits = self._try(lambda: api.nvmlDeviceGetCurrentClocksEventReasons(device))
        if bits is None:
            return None
        thermal = api.nvmlClocksEventReasonSwThermalSlowdown
        thermal |= api.nvmlClocksEventReasonHwThermalSlowdown
        hardware = api.nvmlClocksEventReasonHwSlowdown
        hardware |= api.nvmlClocksEventReasonHwPowerBrakeSlowdown
        masks = {
            Clock.POWER: api.nvmlClocksEventReasonSwPowerCap,
            Clock.THERMAL: thermal,
            Clock.HARDWARE: hardware,
        }
        return tuple(reason for reason, mask in masks.items() if bits & mask)

    # --- GPM -----------------------------------------------------------------------------------

    def _activity(self, index: int, device: Any) -> dict[int, float]:  # noqa: ANN401
        """GPM's metrics since the look before, by their id; those that the GPU has."""
        before = self._samples.get(index)
        now = None if before is None else self._sample(device)
        if now is None:
            return {}
        self._samples[index] = now
        api = self._api
        asked = api.c_nvmlGpmMetricsGet_t()
        asked.version = api.NVML_GPM_METRICS_GET_VERSION
        asked.sample1, asked.sample2 = before, now
        ids = _gpm_ids(api)
        asked.numMetrics = len(ids)
        for at, metric_id in enumerate(ids):
            asked.metrics[at].metricId = metric_id
        answer = self._try(lambda: api.nvmlGpmMetricsGet(asked))
        self._try(lambda: api.nvmlGpmSampleFree(before))
        if answer is None:
            return {}
        each = [answer.metrics[at] for at in range(len(ids))]
        return {one.metricId: one.value for one in each if one.nvmlReturn == api.NVML_SUCCESS}

    def _sample(self, device: Any) -> Any:  # noqa: ANN401
        def take() -> object:
            sample = self._api.nvmlGpmSampleAlloc()
            return self._api.nvmlGpmSampleGet(device, sample)

        return self._try(take)

    # --- XID -----------------------------------------------------------------------------------

    def _xids(self) -> tuple[tuple[int, int], ...]:
        """Those since the look before; nobody waits."""
        found: list[tuple[int, int]] = []
        while self._events is not None and len(found) < _XIDS_MAX:
            xid = self._try(self._next_xid)
            if xid is None:  # a time-out: there is no more
                break
            found.append(xid)
        return tuple(found)

    def _next_xid(self) -> tuple[int, int]:
        event = self._api.nvmlEventSetWait_v2(self._events, 0)
        return int(self._api.nvmlDeviceGetIndex(event.device)), int(event.eventData)

    def _try(self, ask: Callable[[], _Value]) -> _Value | None:
        """The answer, or None where NVML refuses it."""
        try:
            return ask()
        except self._api.NVMLError:
            return None


def _gpm_ids(api: Any) -> Sequence[int]:  # noqa: ANN401
    return (
        api.NVML_GPM_METRIC_SM_UTIL,
        api.NVML_GPM_METRIC_ANY_TENSOR_UTIL,
        api.NVML_GPM_METRIC_DRAM_BW_UTIL,
        api.NVML_GPM_METRIC_PCIE_TX_PER_SEC,
        api.NVML_GPM_METRIC_PCIE_RX_PER_SEC,
        api.NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC,
        api.NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC,
    )


def _percent(value: float | None) -> float | None:
    return None if value is None else value / 100


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
