"""What plans for GPUs become is taken by the installed vLLM: every flag of every process.

Its own parser reads the command lines and its own configuration is built from them, on a machine
without GPUs: no weights are read and no kernel is loaded. Where vLLM asks for the platform's kind,
it is told that it is a GPU's.
"""

import json
from pathlib import Path

import pytest

from orchestrator.core import Role
from orchestrator.engines.command import EngineCommand
from orchestrator.engines.server import parse
from orchestrator.engines.tiny_checkpoint import r1_config, write_tokenizer
from orchestrator.perf import Weight
from orchestrator.placement import Asked, Plan, Reason, Slo, plan, pools_of
from orchestrator.runtime.launch import NodeFacts, gang_commands, ports_per_node
from orchestrator.spec import EngineSpec, Fabric, HandoffSpec, ModelSpec, PoolSpec
from tests.contract.test_vllm_command import R1_SHAPE
from tests.unit.placement.planning import asked

pytest.importorskip("vllm", reason="vLLM is not installed: install r1-serve[cpu] or [gpu]")

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

PROFILES: dict[str, Asked] = {
    "h100-2x8": asked("H100", 16, fabric=Fabric.TCP),
    "h200-wide-ep": asked("H200", 32, slo=Slo(ttft_s=2.0, itl_s=0.05)),
    "b200": asked("B200", 8),
    "gb200-nvl72": asked("GB200", 72, weights=Weight.NVFP4),
    "mi300x": asked("MI300X", 8),
    "mi300x-wide-ep": asked("MI300X", 32, slo=Slo(ttft_s=2.0, itl_s=0.05)),
    "h200-fp8-kv": asked("H200", 16, allowed=frozenset({Reason.FP8_KV})),
}


@pytest.fixture(scope="module")
def r1(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with R1's configuration and tokenizer, and no weights."""
    path: Path = tmp_path_factory.mktemp("model") / "r1"
    write_tokenizer(path)
    (path / "config.json").write_text(json.dumps(r1_config(R1_SHAPE)), encoding="utf-8")
    return str(path)


@pytest.fixture(autouse=True)
def gpu_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's checks of parallel settings see a GPU's platform."""
    import vllm.config.parallel as parallel

    class Gpu(type(parallel.current_platform)):  # type: ignore[misc]  # untyped
        def is_cuda_alike(self) -> bool:
            return True

    monkeypatch.setattr(parallel, "current_platform", Gpu())


def commands_of(asked_for: Asked, path: str) -> list[tuple[PoolSpec, list[EngineCommand]]]:
    """The command lines of one gang of each pool of the plan."""
    made = plan(asked_for)
    assert isinstance(made, Plan), made
    pools = pools_of(asked_for, made.chosen)
    model = ModelSpec(path, pools, "DeepSeek-R1", max_model_len=32_768, engine=EngineSpec())
    found = []
    for pool in pools:
        count = ports_per_node(model, pool.role)
        nodes = tuple(
            NodeFacts("", f"10.0.0.{at + 1}", "eth0", tuple(range(20_000, 20_000 + count)))
            for at in range(pool.gang.nodes)
        )
        commands = gang_commands(
            model, pool.role, "gang-1", nodes, HandoffSpec(fabric=asked_for.fabric)
        )
        found.append((pool, [command for of_node in commands for command in of_node]))
    return found


@pytest.mark.parametrize("profile", PROFILES)
def test_every_command_of_a_plan_is_taken(profile: str, r1: str) -> None:
    from orchestrator.engines.vllm_engine import engine_config

    for pool, commands in commands_of(PROFILES[profile], r1):
        gang = pool.gang
        for index in {0, len(commands) - 1}:
            options = parse(list(commands[index].argv[3:]))
            config = engine_config(_portable(options.flags), headless=options.node_rank > 0)
            parallel = config.parallel_config
            assert parallel.tensor_parallel_size == gang.tensor_parallel
            assert parallel.pipeline_parallel_size == gang.pipeline_parallel
            assert parallel.data_parallel_size == gang.data_parallel
            assert parallel.enable_expert_parallel is gang.expert_parallel
            if gang.data_parallel > 1:
                assert parallel.data_parallel_rank == index
                assert parallel.data_parallel_external_lb
            if "--all2all-backend" in pool.args:
                named = pool.args[pool.args.index("--all2all-backend") + 1]
                assert parallel.all2all_backend == named
            assert parallel.enable_eplb is ("--enable-eplb" in pool.args)
            if pool.role is not Role.UNIFIED:
                assert config.kv_transfer_config.kv_connector == "NixlConnector"


def _portable(flags: tuple[str, ...]) -> tuple[str, ...]:
    """Without the GPUs' numbers, which vLLM looks up; it does read them."""
    if "--device-ids" not in flags:
        return flags
    at = flags.index("--device-ids")
    assert all(number.isdecimal() for number in flags[at + 1].split(","))
    return (*flags[:at], *flags[at + 2 :])


def test_the_widest_settings_are_taken_together(r1: str) -> None:
    """EP32 across four nodes: exchange by RDMA, redundant experts, drafts, an FP8 cache."""
    from orchestrator.engines.vllm_engine import engine_config

    found = commands_of(PROFILES["h200-wide-ep"], r1)
    (pool, commands) = found[-1]
    extra = (
        *("--enable-eplb", "--eplb-config"),
        '{"num_redundant_experts": 32, "step_interval": 6000, "window_size": 1000}',
        *("--all2all-backend", "deepep_low_latency"),
        *("--speculative-config", '{"method": "mtp", "num_speculative_tokens": 1}'),
        *("--max-cudagraph-capture-size", "768"),
    )
    options = parse([*commands[0].argv[3:], *extra])
    flags = _portable(options.flags)
    if not pool.gang.expert_parallel:
        flags = (*flags, "--enable-expert-parallel", "--data-parallel-size", "32")
    config = engine_config((*flags, "--enforce-eager"), headless=False)
    assert config.parallel_config.eplb_config.num_redundant_experts == 32
    assert config.parallel_config.eplb_config.step_interval == 6_000
    assert config.speculative_config.num_speculative_tokens == 1
