"""Which nodes a gang asks for, and whether the nodes there are can hold the whole fleet."""

from collections import Counter
from collections.abc import Sequence
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

    Pipeline stages are dealt evenly to the gang's nodes and a tensor-parallel group never leaves
    its node, since its all-reduce in every layer needs NVLink, unless the spec says that the
    nodes share that.
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
    if gang.pipeline_parallel % gang.nodes:
        return Impossible(
            f"pools.{pool.role}: {gang.pipeline_parallel} pipeline stages cannot be dealt evenly "
            f"to {gang.nodes} nodes",
            "make gang.pipeline_parallel a multiple of gang.nodes, since stages go across nodes "
            "and tensor parallelism stays inside one",
        )
    return Bundles(pool.role, gang.nodes, gang.gpus_per_node)


def _tensor_across(pool: PoolSpec) -> Bundles | Impossible:
    gang = pool.gang
    if gang.pipeline_parallel > 1 or gang.tensor_parallel % gang.nodes:
        return Impossible(
            f"pools.{pool.role}: a tensor-parallel group of {gang.tensor_parallel} with "
            f"{gang.pipeline_parallel} stages cannot be dealt evenly to {gang.nodes} nodes",
            "with gang.tensor_across_nodes make gang.tensor_parallel a multiple of gang.nodes and "
            "leave gang.pipeline_parallel at 1",
        )
    return Bundles(pool.role, gang.nodes, gang.gpus_per_node)


def place(
    pools: Sequence[PoolSpec], node_gpus: Sequence[int]
) -> tuple[tuple[Bundles, ...], ...] | Impossible:
    """For each pool, the bundles of each of its gangs; or why the nodes cannot hold them all.

    `node_gpus` holds the free GPUs of each node. Gangs are tried widest bundle first, each on the
    fullest nodes that fit, which is how the cluster's own scheduler packs.
    """
    wanted: list[tuple[Bundles, ...]] = []
    for pool in pools:
        asked = bundles(pool)
        if isinstance(asked, Impossible):
            return asked
        wanted.append((asked,) * pool.replicas)
    free = sorted(node_gpus)
    gangs = sorted((b for row in wanted for b in row), key=lambda b: (-b.gpus, -b.nodes, b.role))
    for gang in gangs:
        fits = [index for index, gpus in enumerate(free) if gpus >= gang.gpus][: gang.nodes]
        if len(fits) < gang.nodes:
            return _too_small(gang, pools, node_gpus)
        for index in fits:
            free[index] -= gang.gpus
        free.sort()
    return tuple(wanted)


def _too_small(gang: Bundles, pools: Sequence[PoolSpec], node_gpus: Sequence[int]) -> Impossible:
    asked = sum(pool.replicas * pool.gang.gpus for pool in pools)
    have = ", ".join(f"{n} x {gpus} GPUs" for gpus, n in sorted(Counter(node_gpus).items()))
    return Impossible(
        f"pools.{gang.role}: no room for a gang of {gang.nodes} nodes x {gang.gpus} GPUs; "
        f"the fleet asks for {asked} GPUs and the nodes have {have or 'none'}",
        "lower the replicas or the gang's parallelism, or add nodes",
    )


def spread(gang: GangSpec) -> str:
    """Ray's placement strategy: a gang's bundles go to as many hosts as it has nodes."""
    return "STRICT_SPREAD" if gang.nodes > 1 else "STRICT_PACK"
