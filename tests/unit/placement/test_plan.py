"""Whole plans: they fit, they are what they were, and what cannot be is said with numbers."""

from dataclasses import replace

import numpy as np
import pytest

from orchestrator.core import Role
from orchestrator.perf import EngineFamily, Kv, Layout, LayoutGrid, ledger
from orchestrator.placement import (
    Asked,
    Crew,
    Fleet,
    NoPlan,
    Objective,
    Plan,
    Reason,
    Shape,
    Slo,
    grouped,
    outdone,
    per_day,
    per_million,
    plan,
    pools_of,
    predict_fleets,
    reasons_for,
    what_ifs,
)
from orchestrator.placement.fleets import fleet_rates
from orchestrator.spec import Fabric
from orchestrator.workload import (
    DAY6_OUTPUT_TOKENS,
    PROFILES,
    at_rate,
)
from tests.unit.placement.planning import asked, machines

CASES = {
    "one node": asked("H200", 8),
    "within an SLO": asked("H200", 16, slo=Slo(1.0, 0.03)),
    "fewest GPUs": asked(
        "H200", 24, workload=at_rate(PROFILES["chat"], 6.0), objective=Objective.GPUS
    ),
    "fastest": asked("B200", 8, objective=Objective.LATENCY),
    "stages": asked("H100", 16, fabric=Fabric.TCP),
    "NVLink over nodes": asked("GB200", 8, workload=PROFILES["reasoning"], slo=Slo(itl_s=0.02)),
}


@pytest.fixture(scope="module", params=CASES)
def made(request: pytest.FixtureRequest) -> Plan:
    found = plan(CASES[request.param])
    assert isinstance(found, Plan)
    return found


def test_the_ledger_sums_to_its_total_and_never_exceeds_the_gpu(made: Plan) -> None:
    of = made.asked
    for crew, parts in zip(made.chosen.fleet.crews, made.ledgers, strict=True):
        grid = LayoutGrid.of([crew.shape.layout], of.model, of.gpu, of.precision(crew.shape.kv))
        assert sum(parts.values()) == pytest.approx(float(ledger(grid).total_bytes[0]))
        assert sum(parts.values()) <= of.gpu.memory_bytes * (1 + 1e-9)
        assert min(parts.values()) >= 0


def test_its_gangs_are_on_nodes_that_exist_and_no_gpu_is_used_twice(made: Plan) -> None:
    free = {node.name: node.gpus for node in made.asked.nodes}
    for gang in made.gangs:
        for name in gang.nodes:
            free[name] -= gang.gpus
    assert min(free.values()) >= 0
    assert sum(free.values()) == made.asked.gpus - made.chosen.fleet.gpus


def test_it_keeps_the_slo_at_the_rate_that_was_asked_for(made: Plan) -> None:
    of, chosen = made.asked, made.chosen
    assert of.slo.ttft_s is None or chosen.ttft_s <= of.slo.ttft_s
    assert of.slo.itl_s is None or chosen.itl_s <= of.slo.itl_s
    assert of.rate is None or chosen.rate_most >= of.rate


def test_it_is_the_same_plan_again_whatever_the_order_of_the_nodes(made: Plan) -> None:
    again = plan(replace(made.asked, nodes=made.asked.nodes[::-1]))
    assert isinstance(again, Plan)
    assert (again.chosen, again.gangs) == (made.chosen, made.gangs)


def test_every_choice_has_a_sentence_with_a_number(made: Plan) -> None:
    sentences = reasons_for(made, what_ifs(made))
    assert sentences
    assert all(any(c.isdigit() for c in s) or "equal" in s or "SLO" in s for s in sentences)


def test_every_layout_is_used_refused_or_outdone(made: Plan) -> None:
    others = outdone(made)
    used = {crew.shape for crew in made.chosen.fleet.crews}
    assert {r.shape for r in others} | used == set(made.legal)
    assert not {r.shape for r in made.refused} & set(made.legal)
    assert sum(count for _, count, _ in grouped((*made.refused, *others))) == len(
        made.refused
    ) + len(made.legal) - len(used)


def test_runners_up_are_other_kinds_and_not_better(made: Plan) -> None:
    kinds = [f.fleet.kind for f in (made.chosen, *made.runners_up)]
    assert len(set(kinds)) == len(kinds)
    assert all(forecast.rank >= made.chosen.rank for forecast in made.runners_up)


def test_stages_carry_the_word_extrapolated_and_their_reason() -> None:
    made = plan(CASES["stages"])
    assert isinstance(made, Plan)
    assert any("because the fabric (tcp)" in s for s in reasons_for(made, ()))
    assert "pipeline" in str(made.bands.itl)


@pytest.mark.parametrize(
    ("of", "reason", "words"),
    [
        (asked("H100", 8), Reason.MEMORY, "fits no layout of 8 x H100"),
        (asked("H200", 8, slo=Slo(itl_s=1e-3)), Reason.ITL, "the best ITL is"),
        (asked("H200", 8, slo=Slo(ttft_s=1e-3)), Reason.TTFT, "the best TTFT is"),
        (
            asked("H200", 8, workload=at_rate(PROFILES["chat"], 1e4)),
            Reason.RATE,
            "these 8 GPUs carry at most",
        ),
    ],
)
def test_what_cannot_be_has_its_reason_and_the_nearest_value(
    of: Asked, reason: Reason, words: str
) -> None:
    refused = plan(of)
    assert isinstance(refused, NoPlan)
    assert refused.violation.reason is reason
    assert words in refused.nearest


def test_nodes_unlike_the_others_are_planned_without_where_they_do_not_help() -> None:
    odd = replace(machines("H200", 4)[0], name="odd")
    made = plan(asked(nodes=(*machines("H200", 16), odd)))
    assert isinstance(made, Plan)
    assert not any("odd" in gang.nodes for gang in made.gangs)


def test_an_allowed_reason_refuses_nothing() -> None:
    made = plan(asked("H200", 8, allowed=frozenset({Reason.FP8_KV})))
    assert isinstance(made, Plan)
    assert not any(r.violation.reason is Reason.FP8_KV for r in made.refused)
    assert any(shape.kv is Kv.FP8 for shape in made.legal)


def test_flags_follow_from_the_layout() -> None:
    shape = Shape(
        Role.DECODE,
        Layout(dp=32, ep=32, redundant_experts=32, mtp_drafts=2, overlap=True, chunk_tokens=2_048),
        Kv.FP8,
        4,
    )
    prefill = replace(shape, role=Role.PREFILL, layout=replace(shape.layout, mtp_drafts=1))
    made = plan(asked("H200", 8))
    assert isinstance(made, Plan)
    fleet = Fleet((Crew(prefill, 1), Crew(shape, 2)))
    pools = pools_of(made.asked, replace(made.chosen, fleet=fleet, batch_most=70.2))
    assert [(pool.role, pool.replicas, pool.gang.nodes) for pool in pools] == [
        (Role.PREFILL, 1, 4),
        (Role.DECODE, 2, 4),
    ]
    decode = " ".join(pools[1].args)
    assert "--max-num-seqs 71" in decode
    assert "--kv-cache-dtype fp8" in decode
    assert '"num_redundant_experts": 32' in decode
    assert "--all2all-backend deepep_low_latency --enable-dbo" in decode
    # The layer that drafts has KV too: both sides of a transfer have it, or neither.
    assert all('"num_speculative_tokens": 2' in " ".join(pool.args) for pool in pools)


def test_the_day_that_deepseek_published_needs_its_nodes_and_costs_its_dollars() -> None:
    """open-infra-index, day 6: 226.75 nodes on average, EP32 prefill and EP144 decode units with 32
    redundant experts, 20-22 tokens/s a user, $87,072 a day at $2 a GPU-hour.
    """
    chat = PROFILES["chat"]
    rate = DAY6_OUTPUT_TOKENS / 86_400 / chat.output_tokens.mean
    of = asked("H800", 1_600, workload=at_rate(chat, rate), engine=EngineFamily.IN_HOUSE)
    prefill = Layout(dp=32, ep=32, redundant_experts=32, overlap=True, chunk_tokens=16_384)
    decode = Layout(dp=144, ep=144, redundant_experts=32, overlap=True, chunk_tokens=2_048)
    many = 1_000  # of the other, so that one is the limit

    def nodes(prefill_gangs: int, decode_gangs: int, slo: Slo) -> float:
        crews = (
            Crew(Shape(Role.PREFILL, prefill, Kv.BF16, 4), prefill_gangs),
            Crew(Shape(Role.DECODE, decode, Kv.BF16, 18), decode_gangs),
        )
        carried = float(fleet_rates(replace(of, slo=slo), [Fleet(crews)])[0])
        return rate / carried * (4 if decode_gangs == many else 18)

    needed = nodes(1, many, Slo()) + nodes(many, 1, Slo(itl_s=1 / 21))
    assert needed == pytest.approx(226.75, rel=0.10)
    assert per_day(226.75 * 8, 2.0) == 87_072.0
    assert per_million(8, 2.0, 1_000.0) == pytest.approx(16 / 3.6)


def test_predictions_do_not_get_better_with_load() -> None:
    made = plan(CASES["within an SLO"])
    assert isinstance(made, Plan)
    rates = [[made.chosen.rate_most * share for share in (0.2, 0.5, 0.8, 1.0)]]
    seen = predict_fleets(made.asked, [made.chosen.fleet])(np.array(rates))
    assert np.all(np.diff(seen.ttft_s[0]) >= 0)
    assert np.all(np.diff(seen.tpot_s[0]) >= 0)
