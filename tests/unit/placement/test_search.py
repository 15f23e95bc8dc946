"""The planner's choice is that of trying everything."""

from collections.abc import Sequence
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core import Role
from orchestrator.placement import (
    Asked,
    Crew,
    Fleet,
    Forecast,
    Objective,
    Shape,
    Slo,
    forecasts,
    judge,
    search,
    shapes,
)
from orchestrator.workload import constant
from tests.unit.placement.planning import asked

FLEETS = {"H200": 24, "H100": 24, "GB200": 12}


def fits(of: Asked, crews: Sequence[Crew]) -> bool:
    whole = sum(c.shape.nodes * c.gangs for c in crews if c.shape.gpus >= of.gpus_per_node)
    return whole <= of.full_nodes and sum(crew.gpus for crew in crews) <= of.gpus


def everything(of: Asked, legal: Sequence[Shape]) -> list[Forecast]:
    """Every fleet there is, one after the other."""
    most = range(1, of.gpus + 1)
    crews = [Crew(s, n) for s, n in product(legal, most) if fits(of, [Crew(s, n)])]
    by_role = {role: [crew for crew in crews if crew.shape.role is role] for role in Role}
    found = forecasts(of, [Fleet((crew,)) for crew in by_role[Role.UNIFIED]])
    pairs = [
        Fleet((p, d))
        for p, d in product(by_role[Role.PREFILL], by_role[Role.DECODE])
        if fits(of, (p, d))
        and p.shape.kv is d.shape.kv
        and (p.shape.layout.mtp_drafts > 0) == (d.shape.layout.mtp_drafts > 0)
    ]
    return found + forecasts(of, pairs)


@st.composite
def requests(draw: st.DrawFn) -> tuple[Asked, list[Shape]]:
    gpu = draw(st.sampled_from(sorted(FLEETS)))
    workload = constant(
        "drawn",
        "",
        input_tokens=draw(st.sampled_from([200, 3_000, 20_000])),
        output_tokens=draw(st.sampled_from([50, 1_000])),
        prefix_hit=draw(st.sampled_from([0.0, 0.6])),
        requests_per_s=draw(st.sampled_from([None, 0.5, 6.0])),
    )
    slo = Slo(
        draw(st.sampled_from([None, 0.4, 1.0, 4.0])), draw(st.sampled_from([None, 0.015, 0.05]))
    )
    of = asked(
        gpu,
        FLEETS[gpu],
        workload=workload,
        slo=slo,
        objective=draw(st.sampled_from(list(Objective))),
        context_tokens=8_192,
    )
    every = shapes(of)
    legal = [s for s, verdict in zip(every, judge(of, every), strict=True) if verdict is None]
    some = draw(
        st.lists(
            st.sampled_from(legal),
            min_size=1,
            max_size=9,
            unique_by=lambda s: s.role.value + s.name,
        )
    )
    return of, some


@given(requests())
@settings(max_examples=12, deadline=None)
def test_the_choice_is_the_best_of_all_fleets(drawn: tuple[Asked, list[Shape]]) -> None:
    of, legal = drawn
    everyone = everything(of, legal)
    found = search(of, legal)
    if not everyone:
        assert found == ()
        return
    best = min(everyone, key=lambda forecast: forecast.rank)
    assert found[0].fleet.name == best.fleet.name
    assert found[0].rank == best.rank


@given(requests())
@settings(max_examples=6, deadline=None)
def test_what_is_found_keeps_the_slo_and_fits(drawn: tuple[Asked, list[Shape]]) -> None:
    of, legal = drawn
    found = search(of, legal)
    for forecast in found:
        assert fits(of, forecast.fleet.crews)
        assert forecast.rate <= forecast.rate_most * (1 + 1e-3) or of.objective is Objective.LATENCY
        assert of.rate is None or forecast.rate == of.rate
        if of.slo.itl_s is not None:
            assert forecast.itl_s <= of.slo.itl_s
        if of.slo.ttft_s is not None:
            assert forecast.ttft_s <= of.slo.ttft_s
    assert len({forecast.fleet.kind for forecast in found}) == len(found)
    assert found == search(of, legal[::-1])
