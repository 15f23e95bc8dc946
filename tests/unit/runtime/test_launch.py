"""From a pool of the spec to the command lines of its gangs."""

import json
from dataclasses import replace

import pytest

from orchestrator.core import LayoutError, Role, SpecError
from orchestrator.engines.command import EngineCommand
from orchestrator.runtime.launch import NodeFacts, gang_commands, ports_per_node
from orchestrator.runtime.simulated import check_layout, node_labels
from orchestrator.spec import (
    EngineKind,
    EngineSpec,
    Fabric,
    GangSpec,
    HandoffSpec,
    KvHandoff,
    LocalSpec,
    ModelSpec,
    PoolSpec,
    Spec,
    parse_spec,
    pool_part,
    spec_text,
)

NODES = tuple(NodeFacts("", f"10.0.0.{i}", "eth0", tuple(range(7000, 7025))) for i in (1, 2))


def model(kind: EngineKind, gang: GangSpec, **pool: object) -> ModelSpec:
    engine = EngineSpec(kind, args=("--enforce-eager",))
    return ModelSpec("/models/r1", (PoolSpec(Role.UNIFIED, 1, gang, **pool),), engine=engine)  # type: ignore[arg-type]


def fake_options(command: EngineCommand) -> dict[str, int]:
    options: dict[str, int] = json.loads(command.argv[command.argv.index("--fake-options") + 1])
    return options


def test_a_fake_gang_has_the_room_of_all_its_data_parallel_ranks() -> None:
    one, sixteen = (
        fake_options(
            gang_commands(
                model(EngineKind.FAKE, GangSpec(data_parallel=ranks, nodes=nodes)),
                Role.UNIFIED,
                "g",
                NODES[:nodes],
                HandoffSpec(),
            )[0][0]
        )
        for ranks, nodes in ((1, 1), (16, 2))
    )
    for size in ("max_running", "kv_blocks"):
        assert sixteen[size] == 16 * one[size]


def test_the_flags_of_a_pool_come_behind_those_of_its_model() -> None:
    asked = model(EngineKind.VLLM, GangSpec(8), args=("--max-num-seqs", "64"))
    [[command]] = gang_commands(asked, Role.UNIFIED, "g", NODES[:1], HandoffSpec())
    assert command.argv[-3:] == ("--enforce-eager", "--max-num-seqs", "64")


def test_a_data_parallel_gang_has_a_process_a_rank_and_no_port_twice() -> None:
    gang = GangSpec(tensor_parallel=2, data_parallel=4, expert_parallel=True, nodes=2)
    asked = model(EngineKind.VLLM, gang)
    ports = ports_per_node(asked, Role.UNIFIED)
    nodes = tuple(replace(node, free_ports=node.free_ports[:ports]) for node in NODES)
    commands = gang_commands(asked, Role.UNIFIED, "g", nodes, HandoffSpec())
    assert [[command.rank for command in of_node] for of_node in commands] == [[0, 1], [2, 3]]
    gpus = [command.argv[command.argv.index("--device-ids") + 1] for command in sum(commands, ())]
    assert gpus == ["0,1", "2,3", "0,1", "2,3"], "of the gang's GPUs on their node"
    for of_node in commands:
        used = [
            command.argv[command.argv.index(flag) + 1]
            for command in of_node
            for flag in ("--listen", "--metrics")
        ]
        assert len(set(used)) == len(used)


def test_a_data_parallel_rank_may_not_span_nodes() -> None:
    asked = model(EngineKind.VLLM, GangSpec(pipeline_parallel=2, data_parallel=3, nodes=2))
    with pytest.raises(LayoutError, match="3 data-parallel ranks cannot be dealt evenly to 2"):
        check_layout(Spec((asked,), local=LocalSpec(nodes=2)))


def test_nodes_are_labelled_for_the_groups_that_use_them() -> None:
    pools = (
        PoolSpec(Role.PREFILL, 1, GangSpec(data_parallel=16, nodes=2), node_group="prefill"),
        PoolSpec(Role.DECODE, 1, GangSpec(data_parallel=8), node_group="decode"),
    )
    spec = Spec((ModelSpec("/models/r1", pools),), local=LocalSpec(nodes=4))
    labels = node_labels(spec)
    assert sorted(str(sorted(of_node)) for of_node in labels) == [
        "['r1-serve/decode']",
        "['r1-serve/prefill']",
        "['r1-serve/prefill']",
        "[]",
    ]


def test_pools_whose_kv_would_differ_are_refused_before_anything_starts() -> None:
    pools = (PoolSpec(Role.PREFILL, args=("--kv-cache-dtype", "fp8")), PoolSpec(Role.DECODE))
    asked = ModelSpec("/models/r1", pools, name="DeepSeek-R1")
    with pytest.raises(SpecError, match="--kv-cache-dtype says fp8 to prefill and nothing to deco"):
        check_layout(Spec((asked,), local=LocalSpec(nodes=2)))


@pytest.mark.parametrize("kv", [KvHandoff.PULL, KvHandoff.PUSH])
def test_a_gang_is_started_from_its_part_of_the_spec_as_from_the_whole(kv: KvHandoff) -> None:
    """Gangs read a part only, so that they outlive a change of the rest."""
    pools = (PoolSpec(Role.PREFILL, 2, GangSpec(8)), PoolSpec(Role.DECODE, args=("--x",)))
    asked = ModelSpec("/models/r1", pools, name="DeepSeek-R1", aliases=("a",))
    whole = Spec((asked,), handoff=HandoffSpec(kv=kv, fabric=Fabric.TCP, attempts_max=9))
    for role in (Role.PREFILL, Role.DECODE):
        part = parse_spec(spec_text(pool_part(whole, asked, role)))
        found, wanted = (
            gang_commands(spec.models[0], role, "g", NODES[:1], spec.handoff)
            for spec in (part, whole)
        )
        assert found == wanted


def test_weights_of_a_hub_are_fetched_by_each_process_into_the_nodes_cache() -> None:
    asked = replace(model(EngineKind.VLLM, GangSpec(8)), path="hf://deepseek-ai/DeepSeek-R1@v1")
    [[command]] = gang_commands(asked, Role.UNIFIED, "g", NODES[:1], HandoffSpec())
    words = command.argv
    assert words[words.index("--fetch") + 1] == "hf://deepseek-ai/DeepSeek-R1@v1"
    folder = "/var/cache/r1-serve/deepseek-ai--DeepSeek-R1@v1"
    assert words[words.index("--model") + 1] == folder
