"""From a spec and the nodes a gang was given to the command line of each node's engine process."""

import sys

import msgspec

from orchestrator.core import Role
from dataclasses import dataclass
from orchestrator.engines import FakeEngineSpec


@dataclass
class EngineCommand:
    argv: tuple[str, ...]
    env: dict[str, str]


from orchestrator.runtime.node_agent import NodeFacts
from orchestrator.spec import EngineKind, Spec

PORTS_PER_NODE = 3  # token channel, KV side channel, and on node 0 the gang's rendezvous


def gang_commands(
    spec: Spec, role: Role, gang_id: str, nodes: tuple[NodeFacts, ...]
) -> tuple[EngineCommand, ...]:
    """One command per node, in the order of `nodes`; node 0 serves the token channel."""
    pool = spec.pool(role)
    assert pool is not None
    assert len(nodes) == pool.gang.nodes
    match spec.engine.kind:
        case EngineKind.FAKE:
            return tuple(
                _fake_command(spec, role, gang_id, nodes, rank) for rank in range(len(nodes))
            )
        case EngineKind.VLLM:
            raise NotImplementedError


def _fake_command(
    spec: Spec, role: Role, gang_id: str, nodes: tuple[NodeFacts, ...], rank: int
) -> EngineCommand:
    options = FakeEngineSpec(
        max_model_len=spec.model.max_model_len,
        step_s=spec.engine.fake_step_s,
        prefill_s_per_token=spec.engine.fake_prefill_s_per_token,
        kv_host=nodes[rank].host,
        model=spec.model.name,
    )
    argv = (
        *(sys.executable, "-m", "orchestrator.engines.server"),
        *("--listen", f"{nodes[rank].host}:{nodes[rank].free_ports[0]}"),
        *("--engine-id", gang_id),
        *("--role", role.value),
        *("--engine", "fake"),
        *("--node-rank", str(rank)),
        *("--nnodes", str(len(nodes))),
        *("--fake-options", msgspec.json.encode(options).decode()),
    )
    return EngineCommand(argv, {})
