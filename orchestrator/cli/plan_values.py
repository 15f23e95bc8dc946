"""A plan as Helm values, which `r1-serve up --plan` reads too."""

import yaml
from typing_extensions import override

from orchestrator import __version__
from orchestrator.cli.plan_json import asked_tree, predicted_tree
from orchestrator.cli.plan_report import Report, band_text
from orchestrator.core import SpecError
from orchestrator.perf import EngineFamily
from orchestrator.placement import Plan, node_label, pools_of
from orchestrator.spec import EngineSpec, Fabric, HandoffSpec, LocalSpec, ModelSpec, Spec, spec_tree


def values(report: Report) -> str:
    """YAML: `plan` says how it came about, `workerGroups` are KubeRay's, `spec` is r1-serve's."""
    plan = report.plan
    if plan.asked.engine is not EngineFamily.VLLM:
        raise SpecError(
            f"r1-serve does not start {plan.asked.engine}: values are for vLLM",
            "use --format commands, start those, and put `r1-serve gateway` in front",
        )
    tree = {
        "plan": {
            "made_by": f"r1-serve {__version__}",
            "command": report.command,
            "asked": asked_tree(report),
            "predicted": {
                **predicted_tree(report, plan.chosen),
                "error_bands": {
                    "ttft": band_text(plan.bands.ttft),
                    "itl": band_text(plan.bands.itl),
                    "rate": band_text(plan.bands.rate),
                },
            },
        },
        "workerGroups": _worker_groups(report),
        "spec": spec_tree(spec_of(plan)),
    }
    return f"# {report.command}\n" + yaml.dump(tree, Dumper=_Plain, sort_keys=False, width=100)


def spec_of(plan: Plan) -> Spec:
    """The spec that runs the plan; the checkpoint is expected in /models under the model's name."""
    asked, chosen = plan.asked, plan.chosen
    # Fake engines of such a fleet keep the predicted pace.
    engine = EngineSpec(
        fake_step_s=round(chosen.itl_s, 6),
        fake_prefill_s_per_token=round(chosen.ttft_s / max(asked.fresh_tokens, 1.0), 9),
    )
    model = ModelSpec(
        path=f"/models/{asked.model.name}",
        pools=pools_of(asked, chosen),
        name=asked.model.name,
        max_model_len=asked.context_tokens,
        engine=engine,
    )
    apart = len(model.pools) > 1 and len(asked.nodes) > 1
    return Spec(
        models=(model,),
        handoff=HandoffSpec(fabric=asked.fabric if apart else None),
        local=LocalSpec(nodes=len(asked.nodes), gpus_per_node=asked.gpus_per_node),
    )


def _worker_groups(report: Report) -> dict[str, object]:
    """A KubeRay group a pool: each replica of it is a gang of `numOfHosts` hosts."""
    plan = report.plan
    named = " --inventory " in report.command
    groups: dict[str, object] = {}
    pools = len(plan.chosen.fleet.crews)
    for at, (crew, pool) in enumerate(
        zip(plan.chosen.fleet.crews, pools_of(plan.asked, plan.chosen), strict=True)
    ):
        assert pool.node_group is not None
        group: dict[str, object] = {
            "replicas": pool.replicas,
            "numOfHosts": pool.gang.nodes,
            "gpu": plan.asked.gpu.name,
            "gpusPerHost": pool.gang.gpus_per_node,
            # For experts across nodes, and for KV between pools.
            "rdma": plan.asked.fabric is Fabric.RDMA and (crew.shape.nodes > 1 or pools > 1),
            "oneNvlinkDomain": pool.gang.tensor_across_nodes,
            "labels": dict(node_label(pool.node_group)),
        }
        if named:
            own = [gang for gang in plan.gangs if gang.pool == at]
            group["hosts"] = {str(gang.replica): list(gang.nodes) for gang in own}
        groups[pool.node_group] = group
    return groups


class _Plain(yaml.SafeDumper):
    """Writes enums as their text, and no anchors."""

    @override
    def ignore_aliases(self, data: object) -> bool:
        """Never an alias."""
        return True


def _as_text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_str(str(value))


_Plain.add_multi_representer(str, _as_text)
