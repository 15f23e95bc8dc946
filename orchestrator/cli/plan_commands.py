"""The command lines that a plan's engines are started with, node by node."""

import shlex

from orchestrator.cli.plan_report import Report
from orchestrator.cli.plan_values import spec_of
from orchestrator.engines.sglang_command import sglang_commands
from orchestrator.perf import EngineFamily
from orchestrator.placement import PlacedGang, Plan
from orchestrator.runtime.launch import NodeFacts, gang_commands, ports_per_node
from orchestrator.runtime.ports import PORTS
from orchestrator.spec import PoolSpec, Spec


def commands(report: Report) -> str:
    """A shell text: for each gang and node a comment, then its command lines.

    vLLM's are what `r1-serve` itself starts below each node's agent, here with the first free ports
    and the nodes' names as addresses; SGLang's are for the operator to start.
    """
    plan = report.plan
    spec = spec_of(plan)
    lines = [f"# {report.command}"]
    for gang in plan.gangs:
        pool = spec.models[0].pools[gang.pool]
        for host, of_host in zip(gang.nodes, _of_gang(plan, spec, pool, gang), strict=True):
            lines += ["", f"# {pool.role} gang {gang.replica}, on {host}", *of_host]
    return "\n".join(lines) + "\n"


def _of_gang(plan: Plan, spec: Spec, pool: PoolSpec, gang: PlacedGang) -> list[list[str]]:
    [model] = spec.models
    if plan.asked.engine is EngineFamily.SGLANG:
        found = sglang_commands(model.path, model.name, model.max_model_len, pool, gang.nodes)
        return [[shlex.join(command)] for command in found]
    count = ports_per_node(model, pool.role)
    nodes = tuple(
        NodeFacts("", host, "eth0", tuple(PORTS[:count]), model.engine.version)
        for host in gang.nodes
    )
    engine_id = f"{model.name}-{pool.role}-{gang.replica}"
    return [
        [
            shlex.join(("env", *(f"{k}={v}" for k, v in sorted(command.env.items()))))
            + " "
            + shlex.join(("python", *command.argv[1:]))
            for command in of_node
        ]
        for of_node in gang_commands(model, pool.role, engine_id, nodes, spec.handoff)
    ]
