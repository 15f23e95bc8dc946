"""From a placed gang to the command lines of its nodes."""

import json
from dataclasses import replace

import pytest

from orchestrator.core import LayoutError, Role, SpecError
from orchestrator.engines.command import (
    EngineCommand,
    GangLaunch,
    ProcessLaunch,
    engine_commands,
)
from orchestrator.engines.kv_connector import KvConnector
from orchestrator.spec import Device, Fabric, KvHandoff

NODES = tuple(
    ProcessLaunch(host=f"10.0.0.{index}", channel_port=7000, kv_port=5600, interface="eth0")
    for index in range(1, 5)
)
UNIFIED = GangLaunch(
    engine_id="unified-1",
    model_path="/models/r1",
    served_model_name="deepseek-reasoner",
    role=Role.UNIFIED,
    processes=NODES[:1],
    master_port=29500,
    device=Device.GPU,
    max_model_len=4096,
    tensor_parallel=8,
)
NIXL = KvConnector(KvHandoff.PULL)
DECODE = replace(UNIFIED, engine_id="decode-1", role=Role.DECODE, connector=NIXL)


def _flags(command: EngineCommand) -> dict[str, str]:
    """vLLM's flags with their values; a flag without one has an empty value."""
    argv = command.argv[command.argv.index("--") + 1 :]
    flags: dict[str, str] = {}
    for word, following in zip(argv, (*argv[1:], "--"), strict=True):
        if word.startswith("--"):
            flags[word] = "" if following.startswith("--") else following
    return flags


def _options(command: EngineCommand) -> tuple[str, ...]:
    return command.argv[3 : command.argv.index("--")]


def test_one_node_serves_the_channel_and_needs_no_rendezvous() -> None:
    (command,) = engine_commands(UNIFIED)
    assert command.argv[1:3] == ("-m", "orchestrator.engines.server")
    assert _options(command) == (
        *("--listen", "10.0.0.1:7000", "--engine-id", "unified-1", "--role", "unified"),
        *("--engine", "vllm", "--node-rank", "0", "--nnodes", "1"),
    )
    assert _flags(command) == {
        "--model": "/models/r1",
        "--served-model-name": "deepseek-reasoner",
        "--max-model-len": "4096",
        "--dtype": "auto",
        "--tensor-parallel-size": "8",
        "--pipeline-parallel-size": "1",
        "--distributed-executor-backend": "mp",
        "--prefix-caching-hash-algo": "sha256_cbor",
        "--kv-events-config": '{"enable_kv_cache_events": true, "endpoint": "tcp://*:0", '
        '"publisher": "zmq", "replay_endpoint": "tcp://*:0"}',
    }


def test_a_reasoning_parser_is_named_for_models_that_think_only() -> None:
    (command,) = engine_commands(replace(UNIFIED, reasoning_parser="deepseek_r1"))
    assert _flags(command)["--reasoning-parser"] == "deepseek_r1"
    (command,) = engine_commands(UNIFIED)
    assert "--reasoning-parser" not in _flags(command)
    without = ("--skip-tokenizer-init",)
    (command,) = engine_commands(
        replace(UNIFIED, reasoning_parser="deepseek_r1", engine_args=without)
    )
    assert "--reasoning-parser" not in _flags(command), "vLLM would not start"


def test_every_node_of_a_pipeline_meets_at_node_0() -> None:
    launch = replace(UNIFIED, processes=NODES[:2], pipeline_parallel=2)
    commands = engine_commands(launch)
    assert [_flags(command)["--node-rank"] for command in commands] == ["0", "1"]
    for command in commands:
        flags = _flags(command)
        assert flags["--nnodes"] == "2"
        assert (flags["--master-addr"], flags["--master-port"]) == ("10.0.0.1", "29500")
        assert flags["--tensor-parallel-size"] == "8"
    assert [command.env["VLLM_HOST_IP"] for command in commands] == ["10.0.0.1", "10.0.0.2"]


def test_every_data_parallel_rank_serves_and_is_led_by_the_first() -> None:
    launch = replace(
        UNIFIED, processes=NODES[:2], tensor_parallel=1, data_parallel=2, expert_parallel=True
    )
    commands = engine_commands(launch)
    assert [command.rank for command in commands] == [0, 1]
    for rank, command in enumerate(commands):
        assert _options(command)[-4:] == ("--node-rank", "0", "--nnodes", "1")
        flags = _flags(command)
        assert (flags["--data-parallel-size"], flags["--data-parallel-rank"]) == ("2", str(rank))
        assert flags["--data-parallel-address"] == "10.0.0.1"
        assert flags["--data-parallel-rpc-port"] == "29500"
        assert flags["--device-ids"] == "0"
        assert "--nnodes" not in flags


def test_vllm_finds_the_kv_port_of_a_data_parallel_rank_by_adding_it() -> None:
    launch = replace(DECODE, processes=NODES[:2], tensor_parallel=1, data_parallel=2)
    ports = [command.env["VLLM_NIXL_SIDE_CHANNEL_PORT"] for command in engine_commands(launch)]
    assert [int(port) + rank for rank, port in enumerate(ports)] == [5600, 5600]


def test_only_the_first_node_of_a_rank_serves() -> None:
    commands = engine_commands(replace(UNIFIED, processes=NODES[:2], pipeline_parallel=2))
    assert [command.rank for command in commands] == [0, None]


def test_a_gang_transfers_kv_under_its_own_id_and_role() -> None:
    for role, kv_role in ((Role.PREFILL, "kv_producer"), (Role.DECODE, "kv_consumer")):
        (command,) = engine_commands(replace(DECODE, role=role))
        config = json.loads(_flags(command)["--kv-transfer-config"])
        assert config["kv_connector"] == "NixlConnector"
        assert (config["kv_role"], config["engine_id"]) == (kv_role, "decode-1")
        assert command.env["VLLM_NIXL_SIDE_CHANNEL_HOST"] == "10.0.0.1"
        assert command.env["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "5600"


def test_mooncake_s_peers_ask_at_the_first_process_of_a_rank() -> None:
    launch = replace(
        DECODE,
        role=Role.PREFILL,
        connector=KvConnector(KvHandoff.PUSH),
        processes=(NODES[0], replace(NODES[1], kv_port=5700)),
    )
    apart = engine_commands(replace(launch, tensor_parallel=1, data_parallel=2))
    across = engine_commands(replace(launch, tensor_parallel=2))
    for commands, ports in ((apart, ["5600", "5700"]), (across, ["5600", "5600"])):
        assert [c.env["VLLM_MOONCAKE_BOOTSTRAP_PORT"] for c in commands] == ports
        assert all("VLLM_NIXL_SIDE_CHANNEL_PORT" not in c.env for c in commands)
    config = json.loads(_flags(apart[0])["--kv-transfer-config"])
    assert (config["kv_connector"], config["kv_role"]) == ("MooncakeConnector", "kv_producer")


@pytest.mark.parametrize(
    ("fabric", "device", "protocol", "transports"),
    [
        (None, Device.GPU, "rdma", None),
        (Fabric.RDMA, Device.GPU, "rdma", "^tcp"),
        (Fabric.TCP, Device.GPU, "tcp", "tcp,cuda_copy,cuda_ipc,self,sm"),
        (Fabric.RDMA, Device.CPU, "tcp", "tcp,self"),
    ],
)
def test_kv_goes_over_the_fabric_that_the_spec_names(
    fabric: Fabric | None, device: Device, protocol: str, transports: str | None
) -> None:
    (pushed,) = engine_commands(
        replace(DECODE, device=device, connector=KvConnector(KvHandoff.PUSH, fabric))
    )
    extra = json.loads(_flags(pushed)["--kv-transfer-config"])["kv_connector_extra_config"]
    assert extra == {"mooncake_protocol": protocol}
    (pulled,) = engine_commands(
        replace(DECODE, device=device, connector=KvConnector(KvHandoff.PULL, fabric))
    )
    assert pulled.env.get("UCX_TLS") == transports


def test_the_cpu_plugin_is_named_on_cpus_and_shut_out_on_gpus() -> None:
    (gpu,) = engine_commands(UNIFIED)
    (cpu,) = engine_commands(replace(UNIFIED, device=Device.CPU))
    assert gpu.env["VLLM_PLUGINS"] == ""
    assert cpu.env["VLLM_PLUGINS"] == "r1_serve_cpu"
    assert gpu.env["NCCL_SOCKET_IFNAME"] == "eth0"
    assert not any(name.startswith("UCX_") for name in gpu.env)


def test_a_single_rank_on_a_cpu_saves_the_worker_process() -> None:
    one = replace(UNIFIED, device=Device.CPU, tensor_parallel=1)
    (single,) = engine_commands(one)
    (double,) = engine_commands(replace(one, tensor_parallel=2))
    assert single.env["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in double.env


def test_metrics_are_served_by_node_0_alone_and_on_request() -> None:
    nodes = tuple(replace(node, metrics_port=9000) for node in NODES[:2])
    first, second = engine_commands(replace(UNIFIED, processes=nodes, pipeline_parallel=2))
    assert "10.0.0.1:9000" in _options(first)
    assert "--metrics" not in _options(second)


def test_an_ipv6_host_is_bracketed_where_a_port_follows() -> None:
    (command,) = engine_commands(replace(UNIFIED, processes=(replace(NODES[0], host="fd00::1"),)))
    assert "[fd00::1]:7000" in _options(command)
    assert command.env["VLLM_HOST_IP"] == "fd00::1"


def test_other_flags_pass_through_behind_ours() -> None:
    args = ("--enforce-eager", "--max-num-seqs", "64", "--hf-overrides", '{"a":-1}')
    (command,) = engine_commands(replace(UNIFIED, engine_args=args))
    assert command.argv[-len(args) :] == args


@pytest.mark.parametrize(
    "argument",
    [
        "--tensor-parallel-size",
        "--tensor_parallel_size=4",
        "--tensor-par",
        "-tp",
        "-dpn",
        "--data-parallel-size",
        "--kv-transfer-config.kv_role",
        "--config",
        "--model",
        "--no-enable-expert-parallel",
        "--headless",
        "--reasoning-parser",
        "--reasoning_parser=deepseek_r1",
    ],
)
def test_naming_a_flag_that_follows_from_the_gang_is_an_error(argument: str) -> None:
    launch = replace(UNIFIED, engine_args=("--enforce-eager", argument, "1"))
    with pytest.raises(SpecError, match=argument) as caught:
        engine_commands(launch)
    assert caught.value.cure


@pytest.mark.parametrize(
    ("launch", "cause"),
    [
        (replace(UNIFIED, processes=NODES[:3]), "8 ranks do not divide over 3 nodes"),
        (replace(UNIFIED, processes=NODES, pipeline_parallel=2), "8 ranks does not fit a node's 4"),
        (replace(DECODE, processes=NODES[:2], pipeline_parallel=2), "pipeline stages"),
    ],
)
def test_a_layout_that_cannot_run_is_refused_with_cause_and_cure(
    launch: GangLaunch, cause: str
) -> None:
    with pytest.raises(LayoutError, match=cause) as caught:
        engine_commands(launch)
    assert caught.value.cure


def test_a_single_stage_may_span_nodes() -> None:
    commands = engine_commands(replace(DECODE, processes=NODES[:2]))
    assert len(commands) == 2
    assert len({_flags(command)["--kv-transfer-config"] for command in commands}) == 1
