"""The specs of `r1-serve up`: simulated nodes on one machine."""

from dataclasses import replace
from decimal import Decimal

from orchestrator.core import Role
from orchestrator.spec.observing import DoctorSpec
from orchestrator.spec.spec import (
    ApiSpec,
    Device,
    EngineKind,
    EngineSpec,
    FleetSpec,
    GangSpec,
    GatewaySpec,
    LocalSpec,
    ModelSpec,
    PoolSpec,
    Spec,
)
from orchestrator.spec.telemetry import TelemetrySpec

LOOPBACK = "127.0.0.1"
CPU_CONTEXT = 2_048  # tokens of the longest request of a tiny checkpoint
# Compiling would take minutes, and without a size vLLM takes 92 % of the memory for KV.
CPU_VLLM_ARGS = ("--enforce-eager", "--kv-cache-memory-bytes", str(64 << 20))


def local_spec(kind: EngineKind, nodes: int, model_path: str) -> Spec:
    """A fleet on this machine's loopback: half of the nodes prefill, the rest decodes.

    A prefill gang has two nodes, a decode gang one, so that even the smallest fleet, three nodes,
    has a gang that spans nodes: tensor parallel, as on nodes of one NVLink domain, since vLLM's
    NIXL connector moves no KV from or to pipeline stages. Not the decode gang: a step of it would
    cost a rendezvous of processes that share two cores. `nodes` below 3 leaves no room for both;
    placement then says so.
    """
    prefill_gangs = max(1, nodes // 4)
    decode_gangs = max(1, nodes - 2 * prefill_gangs)
    wide = GangSpec(tensor_parallel=2, nodes=2, tensor_across_nodes=True)
    pools = (
        PoolSpec(Role.PREFILL, prefill_gangs, wide),
        PoolSpec(Role.DECODE, decode_gangs),
    )
    return Spec(
        models=(
            ModelSpec(
                model_path, pools, "DeepSeek-R1", max_model_len=CPU_CONTEXT, engine=_engine(kind)
            ),
        ),
        gateway=GatewaySpec(host=LOOPBACK),
        # who tries it out may want the same answer twice
        api=ApiSpec(honor_sampling=kind is EngineKind.VLLM),
        fleet=_FLEET,
        doctor=DoctorSpec(None),  # its probes would take the two cores that all engines share
        local=LocalSpec(nodes=nodes),
        telemetry=TelemetrySpec(gpu_hour_price=_GPU_HOUR_PRICE),
    )


def simulated(spec: Spec, kind: EngineKind, model_path: str) -> Spec:
    """The same pools and gangs with engines of `kind` on simulated nodes of this machine.

    What the engines of real GPUs are told is left out; fake ones keep the pace that is given.
    """
    models = []
    for model in spec.models:
        pace = (model.engine.fake_step_s, model.engine.fake_prefill_s_per_token)
        context = CPU_CONTEXT if kind is EngineKind.VLLM else model.max_model_len
        models.append(
            replace(
                model,
                path=model_path,
                pools=tuple(replace(pool, args=()) for pool in model.pools),
                max_model_len=min(model.max_model_len, context),
                engine=replace(
                    _engine(kind), fake_step_s=pace[0], fake_prefill_s_per_token=pace[1]
                ),
            )
        )
    gateway = replace(spec.gateway, host=LOOPBACK)
    doctor = DoctorSpec(None)
    return replace(spec, models=tuple(models), gateway=gateway, fleet=_FLEET, doctor=doctor)


# Of GPUs that are simulated, so that boards show how cost is shared out: open-infra-index, day 6.
_GPU_HOUR_PRICE = Decimal(2)
_FLEET = FleetSpec(
    health_period_s=1.0, start_attempts=1, stuck_after_s=60.0, drain_wait_s=10.0, drain_s=60.0
)


def _engine(kind: EngineKind) -> EngineSpec:
    return EngineSpec(
        kind=kind,
        device=Device.CPU,
        args=CPU_VLLM_ARGS if kind is EngineKind.VLLM else (),
        dtype="float32",
        start_timeout_s=300.0,
    )
