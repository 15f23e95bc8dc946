"""Whether a spec fits simulated nodes, and what these are labelled; without Ray."""

from pathlib import Path

from orchestrator.core import LayoutError
from orchestrator.gateway import load_tokenizers, read_keys
from orchestrator.placement import Impossible, Node, node_label, place
from orchestrator.runtime.launch import NodeFacts, gang_commands, ports_per_node
from orchestrator.spec import LOOPBACK, Spec, load_tenants


def check_files(spec: Spec) -> None:
    """Raises SpecError if tokenizers, keys or tenants cannot be read, as every gateway must."""
    load_tokenizers(spec)
    if spec.api.keys_path is not None:
        read_keys(Path(spec.api.keys_path))
    if spec.api.tenants_path is not None:
        load_tenants(Path(spec.api.tenants_path), spec)


def check_layout(spec: Spec) -> None:
    """Raises SpecError if the local nodes cannot hold the spec's pools, or their engines could not
    be given a command line.
    """
    node_labels(spec)
    for model in spec.models:
        for pool in model.pools:
            ports = tuple(range(1, 1 + ports_per_node(model, pool.role)))
            node = NodeFacts("", LOOPBACK, "lo", ports)
            nodes = (node,) * pool.gang.nodes
            gang_commands(model, pool.role, "dry-run", nodes, spec.handoff)


def node_labels(spec: Spec) -> tuple[dict[str, str], ...]:
    """For each simulated node the labels of the groups whose gangs placement puts there.

    Raises LayoutError if the nodes cannot hold the pools.
    """
    pools = [pool for model in spec.models for pool in model.pools]
    # One machine: whatever its nodes share they all share.
    nodes = [
        Node(f"node-{index:04}", spec.local.gpus_per_node, nvlink_domain="simulated")
        for index in range(spec.local.nodes)
    ]
    placed = place(pools, nodes)
    if isinstance(placed, Impossible):
        raise LayoutError(placed.cause, placed.cure)
    labels: dict[str, dict[str, str]] = {node.name: {} for node in nodes}
    for gang in placed:
        if (group := pools[gang.pool].node_group) is not None:
            for name in gang.nodes:
                labels[name] |= node_label(group)
    return tuple(labels.values())
