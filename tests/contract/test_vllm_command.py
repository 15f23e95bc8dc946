"""Every flag that a gang's command line has means to the installed vLLM what we mean by it.

vLLM builds its whole configuration from the flags; no weights are read and no engine starts.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core import EngineStartError, Role
from orchestrator.engines.command import (
    EngineCommand,
    GangLaunch,
    ProcessLaunch,
    engine_commands,
)
from orchestrator.engines.kv_connector import KvConnector
from orchestrator.engines.recitation import TinyShape
from orchestrator.engines.server import parse
from orchestrator.engines.tiny_checkpoint import r1_config, write_tokenizer
from orchestrator.spec import Device, KvHandoff

pytest.importorskip("vllm", reason="vLLM is not installed: install r1-serve[cpu] or [gpu]")

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

R1_SHAPE = TinyShape(  # DeepSeek-V3 inference/configs/config_671B.json
    hidden=7168,
    layers=61,
    dense_layers=3,
    intermediate=18432,
    moe_intermediate=2048,
    heads=128,
    experts=256,
    experts_per_token=8,
    expert_groups=8,
    expert_groups_per_token=4,
    q_lora_rank=1536,
    nope_dim=128,
    v_dim=128,
    mtp_layers=1,
)
NODES = tuple(
    ProcessLaunch(host="127.0.0.1", channel_port=7000 + index, kv_port=5600, interface="lo")
    for index in range(2)
)
TINY = GangLaunch(
    engine_id="gang-1",
    model_path="",
    served_model_name="deepseek-reasoner",
    role=Role.UNIFIED,
    processes=NODES[:1],
    master_port=29500,
    device=Device.CPU,
    max_model_len=1024,
    block_size=16,
    dtype="bfloat16",
    reasoning_parser="deepseek_r1",
    engine_args=("--enforce-eager", "--kv-cache-memory-bytes", "33554432"),
)


def _model(out: Path, shape: TinyShape) -> str:
    write_tokenizer(out)
    (out / "config.json").write_text(json.dumps(r1_config(shape)), encoding="utf-8")
    return str(out)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> GangLaunch:
    return replace(TINY, model_path=_model(tmp_path_factory.mktemp("model") / "tiny", TinyShape()))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> GangLaunch:
    path = _model(tmp_path_factory.mktemp("model") / "r1", R1_SHAPE)
    return replace(TINY, model_path=path, max_model_len=65536)


@pytest.fixture(autouse=True)
def vllm_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `engine_commands` puts into the environment of the process."""
    (command,) = engine_commands(replace(TINY, model_path="/unused"))
    for name, value in command.env.items():
        monkeypatch.setenv(name, value)


def _config(command: EngineCommand):  # type: ignore[no-untyped-def]  # vLLM's is untyped
    from orchestrator.engines.vllm_engine import engine_config

    options = parse(list(command.argv[3:]))
    return engine_config(options.flags, headless=options.node_rank > 0)


@pytest.mark.parametrize(
    ("change", "ranks_per_node"),
    [
        ({}, 1),
        ({"tensor_parallel": 2}, 2),
        ({"tensor_parallel": 2, "processes": NODES}, 1),
        ({"pipeline_parallel": 2, "processes": NODES}, 1),
        ({"tensor_parallel": 2, "pipeline_parallel": 2, "processes": NODES}, 2),
        ({"tensor_parallel": 2, "expert_parallel": True}, 2),
    ],
    ids=["TP1", "TP2", "TP2 on two nodes", "PP2", "TP2 PP2", "EP2"],
)
def test_sizes_and_ranks_arrive(
    tiny: GangLaunch, change: dict[str, object], ranks_per_node: int
) -> None:
    launch = replace(tiny, **change)  # type: ignore[arg-type]  # a table of fields
    for rank, command in enumerate(engine_commands(launch)):
        config = _config(command)
        parallel = config.parallel_config
        assert parallel.tensor_parallel_size == launch.tensor_parallel
        assert parallel.pipeline_parallel_size == launch.pipeline_parallel
        assert parallel.data_parallel_size == 1
        assert parallel.enable_expert_parallel is launch.expert_parallel
        assert (parallel.nnodes, parallel.node_rank) == (len(launch.processes), rank)
        assert parallel.local_world_size == ranks_per_node
        if len(launch.processes) > 1:
            assert (parallel.master_addr, parallel.master_port) == ("127.0.0.1", 29500)
        single = launch.tensor_parallel * launch.pipeline_parallel == 1
        assert parallel.distributed_executor_backend == ("uni" if single else "mp")


def test_a_data_parallel_rank_arrives_as_one_of_external_load_balancing(tiny: GangLaunch) -> None:
    launch = replace(tiny, data_parallel=2, expert_parallel=True, processes=NODES)
    for rank, command in enumerate(engine_commands(launch)):
        parallel = _config(command).parallel_config
        assert (parallel.data_parallel_size, parallel.data_parallel_rank) == (2, rank)
        assert parallel.data_parallel_size_local == 1
        assert parallel.data_parallel_external_lb
        assert parallel.data_parallel_master_ip == "127.0.0.1"
        assert parallel.data_parallel_rpc_port == 29500
        assert parallel.distributed_executor_backend == "uni"
        assert parallel.nnodes == 1


def test_the_model_fields_arrive(tiny: GangLaunch) -> None:
    (command,) = engine_commands(tiny)
    config = _config(command)
    assert config.model_config.model == tiny.model_path
    assert config.model_config.served_model_name in ("deepseek-reasoner", ["deepseek-reasoner"])
    assert config.model_config.max_model_len == 1024
    assert str(config.model_config.dtype) == "torch.bfloat16"
    assert config.model_config.use_mla
    assert config.cache_config.block_size == 16
    assert config.kv_transfer_config is None
    assert config.reasoning_config.enabled
    assert config.reasoning_config.reasoning_end_token_ids == [128799]
    assert config.structured_outputs_config.reasoning_parser == "deepseek_r1"
    assert config.structured_outputs_config.backend == "xgrammar"


def test_a_prefill_and_a_decode_gang_transfer_by_nixl(tiny: GangLaunch) -> None:
    nixl = KvConnector(KvHandoff.PULL)
    for role, kv_role in ((Role.PREFILL, "kv_producer"), (Role.DECODE, "kv_consumer")):
        for command in engine_commands(
            replace(tiny, role=role, connector=nixl, tensor_parallel=2, processes=NODES)
        ):
            transfer = _config(command).kv_transfer_config
            assert transfer.kv_connector == "NixlConnector"
            assert (transfer.kv_role, transfer.engine_id) == (kv_role, "gang-1")
            assert transfer.kv_load_failure_policy == "fail"
            assert transfer.kv_connector_extra_config == {"num_threads": 0}


def test_a_prefill_and_a_decode_gang_transfer_by_mooncake(tiny: GangLaunch) -> None:
    mooncake = KvConnector(KvHandoff.PUSH)
    for role, kv_role in ((Role.PREFILL, "kv_producer"), (Role.DECODE, "kv_consumer")):
        (command,) = engine_commands(replace(tiny, role=role, connector=mooncake))
        transfer = _config(command).kv_transfer_config
        assert (transfer.kv_connector, transfer.kv_role) == ("MooncakeConnector", kv_role)
        assert transfer.kv_connector_extra_config == {"mooncake_protocol": "tcp"}


@pytest.mark.parametrize(
    "change",
    [
        {"tensor_parallel": 8},
        {"tensor_parallel": 8, "expert_parallel": True},
        {"tensor_parallel": 8, "pipeline_parallel": 2, "processes": NODES},
        {"tensor_parallel": 16, "processes": NODES},
    ],
    ids=["TP8", "TP8 EP8", "TP8 PP2", "TP16"],
)
def test_layouts_of_the_real_r1_are_accepted(real: GangLaunch, change: dict[str, object]) -> None:
    for command in engine_commands(replace(real, **change)):  # type: ignore[arg-type]  # fields
        assert _config(command).model_config.max_model_len == 65536


def test_a_refusal_of_vllms_names_its_reason(tiny: GangLaunch) -> None:
    with pytest.raises(EngineStartError, match="divisible"):
        _config(engine_commands(replace(tiny, tensor_parallel=3))[0])
    with pytest.raises(EngineStartError, match="--no-such-flag"):
        _config(engine_commands(replace(tiny, engine_args=("--no-such-flag",)))[0])
    with pytest.raises(EngineStartError, match=r"no config\.json"):
        _config(engine_commands(replace(tiny, model_path="/nowhere"))[0])
