"""What one gang asks of the cluster: how many nodes, and how many GPUs of each."""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core import Role
from orchestrator.spec import GangSpec, PoolSpec


@dataclass(frozen=True, slots=True)
class Bundles:
    """What one gang asks of the cluster: `nodes` different hosts with `gpus` GPUs each."""

    role: Role
    nodes: int
    gpus: int  # per node


@dataclass(frozen=True, slots=True)
class Impossible:
    """The first constraint that the layout violates, and what would lift it."""

    cause: str
    cure: str


def bundles(pool: PoolSpec) -> Bundles | Impossible:
    """What a gang of the pool asks for.

    Stages and data-parallel ranks are dealt evenly to the gang's nodes and a tensor-parallel group
    never leaves its node, since its all-reduce in every layer needs NVLink, unless the spec says
    that the nodes share that.
    """
    gang = pool.gang
    if pool.role is not Role.UNIFIED and gang.pipeline_parallel > 1:
        # vLLM 0.32's NixlConnector refuses to send from stages, and of several stages that receive
        # the first to have read makes the prefill rank free the blocks of all.
        return Impossible(
            f"pools.{pool.role}: vLLM transfers no KV from or to a gang with "
            f"{gang.pipeline_parallel} pipeline stages",
            "leave gang.pipeline_parallel at 1 in prefill and decode pools, or make one pool "
            "`unified`",
        )
    if gang.tensor_across_nodes and gang.nodes > 1:
        return _tensor_across(pool)
    if gang.pipeline_parallel * gang.data_parallel % gang.nodes:
        return Impossible(
            f"pools.{pool.role}: {gang.pipeline_parallel} pipeline stages x {gang.data_parallel} "
            f"data-parallel ranks cannot be dealt evenly to {gang.nodes} nodes",
            "make gang.pipeline_parallel x gang.data_parallel a multiple of gang.nodes, since "
            "these go across nodes and tensor parallelism stays inside one",
        )
    return Bundles(pool.role, gang.nodes, gang.gpus_per_node)


def _tensor_across(pool: PoolSpec) -> Bundles | Impossible:
    gang = pool.gang
    groups = gang.pipeline_parallel * gang.data_parallel
    if groups > 1 or gang.tensor_parallel % gang.nodes:
        return Impossible(
            f"pools.{pool.role}: {groups} tensor-parallel groups of {gang.tensor_parallel} cannot "
            f"each be dealt evenly to {gang.nodes} nodes",
            "with gang.tensor_across_nodes make gang.tensor_parallel a multiple of gang.nodes and "
            "leave gang.pipeline_parallel and gang.data_parallel at 1",
        )
    return Bundles(pool.role, gang.nodes, gang.gpus_per_node)


def spread(gang: GangSpec) -> str:
    """Ray's placement strategy: a gang's bundles go to as many hosts as it has nodes."""
    return "STRICT_SPREAD" if gang.nodes > 1 else "STRICT_PACK"


NODE_GROUP = "r1-serve/"  # begins the name of each such label


def node_label(group: str) -> Mapping[str, str]:
    """The label that a node has for being in a group, in Ray and on a worker group of KubeRay."""
    return {f"{NODE_GROUP}{group}": "true"}
