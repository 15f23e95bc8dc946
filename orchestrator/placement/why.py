"""Why the plan is as it is: what each choice is for, and what it would be with another."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from orchestrator.core import Role
from orchestrator.perf import Kv, Layout
from orchestrator.placement.asked import Asked, Objective
from orchestrator.placement.fleets import Crew, Fleet
from orchestrator.placement.legality import judge
from orchestrator.placement.plan import Plan, paid_gpus
from orchestrator.placement.pools import batch_limit
from orchestrator.placement.reasons import Reason
from orchestrator.placement.search import Forecast, forecasts
from orchestrator.placement.shapes import DRAFTS_MAX
from orchestrator.spec import Fabric


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The plan with one choice changed; `forecast` is None if it would not keep the SLO."""

    change: str
    forecast: Forecast | None


def what_ifs(plan: Plan) -> tuple[WhatIf, ...]:
    """Other numbers of drafts and redundant experts, and an FP8 cache, where these are legal."""
    asked, fleet = plan.asked, plan.chosen.fleet
    free = replace(asked, allowed=asked.allowed | {Reason.FP8_KV})
    changes = [*_other_drafts(asked, fleet), *_other_experts(asked, fleet), *_fp8(fleet)]
    legal = [
        (label, changed)
        for label, changed in changes
        if not any(judge(free, [crew.shape for crew in changed.crews]))
    ]
    seen = {
        forecast.fleet: forecast
        for kv in Kv
        for forecast in forecasts(free, [f for _, f in legal if f.crews[0].shape.kv is kv])
    }
    return tuple(WhatIf(label, seen.get(changed)) for label, changed in legal)


def reasons_for(plan: Plan, others: tuple[WhatIf, ...]) -> tuple[str, ...]:
    """Sentences, each with the number that it rests on."""
    return (
        *_of_layout(plan),
        *_of_mode(plan),
        *_of_choices(plan, others),
        *_of_limit(plan),
    )


def measure(asked: Asked, forecast: Forecast) -> float:
    """What the objective looks at, so that more is better."""
    match asked.objective:
        case Objective.COST:
            rate = forecast.rate_most if asked.rate is None else asked.rate
            return rate / paid_gpus(asked, forecast)
        case Objective.THROUGHPUT:
            return forecast.rate_most
        case Objective.LATENCY:
            return 1 / forecast.rank.exact
        case Objective.GPUS:
            return 1 / forecast.fleet.gpus


def compared(asked: Asked, forecast: Forecast, with_: Forecast) -> str:
    """How `forecast` does against `with_` in what the objective looks at, and else in load."""
    change = measure(asked, forecast) / measure(asked, with_) - 1
    if abs(change) >= _VISIBLE:
        return f"{change:+.0%} {_MEASURES[asked.objective]}"
    change = forecast.rate_most / with_.rate_most - 1
    return f"{change:+.0%} load at most" if abs(change) >= _VISIBLE else "equal"


_VISIBLE = 0.005
_BUSY = 0.8  # of prefill's time, from where on it is what a fleet waits for
_MEASURES = {
    Objective.COST: "requests/$",
    Objective.THROUGHPUT: "requests/s",
    Objective.LATENCY: "speed",
    Objective.GPUS: "thrift",
}


def _of_layout(plan: Plan) -> Iterator[str]:
    asked = plan.asked
    model = asked.model
    for crew in plan.chosen.fleet.crews:
        layout, who = crew.shape.layout, f"{crew.shape.role}: "
        if layout.dp > 1:
            ranks = f"TP{layout.tp} x DP{layout.dp}" if layout.tp > 1 else f"DP{layout.dp}"
            copies = layout.tp if layout.tp > 1 else 1
            yield (
                f"{who}{ranks} keeps {copies} cop{'y' if copies == 1 else 'ies'} of the latent "
                f"KV; TP over the same {layout.tp * layout.dp} GPUs would keep "
                f"{layout.tp * layout.dp}"
            )
        if layout.ep > 1 and model.experts is not None:
            slots = (model.experts.routed + layout.redundant_experts) // layout.ep
            yield (
                f"{who}EP{layout.ep} puts {slots} of {model.experts.routed} experts a layer on "
                f"each GPU, read once for the tokens of all {layout.dp} ranks"
            )
        if layout.pp > 1:
            yield from _stages(asked, crew)


def _stages(asked: Asked, crew: Crew) -> Iterator[str]:
    layout, model = crew.shape.layout, asked.model
    hop = 2 * 2 * model.hidden  # activations and residual, BF16
    why = f"{crew.shape.role}: PP{layout.pp} because "
    if asked.fabric is not Fabric.RDMA:
        why += f"the fabric ({asked.fabric}) carries no expert exchange: "
    yield (
        f"{why}a stage hands over {hop / 1e3:.1f} kB a token once, where EP would send 173.8 kB in "
        f"each of {model.moe_layers} layers"
    )


def _of_mode(plan: Plan) -> Iterator[str]:
    asked, chosen = plan.asked, plan.chosen
    crews = len(chosen.fleet.crews)
    other = next((f for f in plan.runners_up if len(f.fleet.crews) != crews), None)
    if other is not None:
        names = ("prefill and decode on the same GPUs", "prefill and decode on GPUs of their own")
        mine, theirs = names if crews == 1 else names[::-1]
        yield f"{mine}; at best {theirs}: {compared(asked, other, chosen)}"


def _of_choices(plan: Plan, others: tuple[WhatIf, ...]) -> Iterator[str]:
    for other in others:
        if other.forecast is None:
            yield f"{other.change}: would not keep the SLO"
        else:
            yield f"{other.change}: {compared(plan.asked, other.forecast, plan.chosen)}"


def _of_limit(plan: Plan) -> Iterator[str]:
    asked, chosen = plan.asked, plan.chosen
    crew = chosen.fleet.crews[-1]
    ranks = crew.shape.layout.dp * crew.gangs
    batch = f"{batch_limit(asked, crew, chosen)} sequences a rank ({ranks} ranks)"
    full = forecasts(replace(asked, slo=replace(asked.slo, itl_s=None)), [chosen.fleet])
    if asked.slo.itl_s is not None and full and full[0].rate_most > chosen.rate_most * 1.01:
        yield f"at most {batch}: more would break the ITL of {asked.slo.itl_s * 1e3:g} ms"
    elif chosen.prefill_load_most > _BUSY:
        load = f"{chosen.prefill_load_most:.0%} of its time"
        yield f"at most {batch}: prefill, busy {load} then, brings no more"
    else:
        yield f"at most {batch}: no more have room for their KV"


def _other_drafts(asked: Asked, fleet: Fleet) -> Iterator[tuple[str, Fleet]]:
    now = max(crew.shape.layout.mtp_drafts for crew in fleet.crews[-1:])
    if not asked.model.mtp_layers:
        return
    for drafts in range(DRAFTS_MAX + 1):
        if drafts == now:
            continue
        crews = []
        for crew in fleet.crews:
            own = min(drafts, 1) if crew.shape.role is Role.PREFILL else drafts
            crews.append(_with(crew, replace(crew.shape.layout, mtp_drafts=own)))
        yield f"MTP{drafts} instead of MTP{now}" if drafts else "without MTP", Fleet(tuple(crews))


def _other_experts(asked: Asked, fleet: Fleet) -> Iterator[tuple[str, Fleet]]:
    for at, crew in enumerate(fleet.crews):
        layout = crew.shape.layout
        if layout.ep == 1 or asked.model.experts is None:
            continue
        least = -asked.model.experts.routed % layout.ep
        for redundant in (least, least + layout.ep):
            if redundant != layout.redundant_experts:
                changed = _with(crew, replace(layout, redundant_experts=redundant))
                crews = (*fleet.crews[:at], changed, *fleet.crews[at + 1 :])
                yield f"{crew.shape.role} with {redundant} redundant experts", Fleet(crews)


def _fp8(fleet: Fleet) -> Iterator[tuple[str, Fleet]]:
    if all(crew.shape.kv is not Kv.FP8 for crew in fleet.crews):
        crews = tuple(Crew(replace(c.shape, kv=Kv.FP8), c.gangs) for c in fleet.crews)
        yield "an FP8 KV cache (--allow fp8-kv)", Fleet(crews)


def _with(crew: Crew, layout: Layout) -> Crew:
    return Crew(replace(crew.shape, layout=layout), crew.gangs)
