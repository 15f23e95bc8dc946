"""What tokens cost adds up to what GPUs cost, to the cent; DeepSeek's published day comes out."""

import random
from decimal import Decimal
from pathlib import Path

import pytest

from orchestrator.admission import PICO, cost_pico
from orchestrator.core import Role, TokenClass, TokenCounts
from orchestrator.gateway import work_s
from orchestrator.spec import ModelSpec, PoolSpec, PricesSpec
from tests.unit.telemetry.promtool import case, check, run, series

DAY_S = 86_400
# DeepSeek, open-infra-index, day 6: nodes on average, tokens of the day, dollars.
NODES, PREFILL_NODES = 226.75, 95.5
INPUT, CACHED, OUTPUT = 608e9, 342e9, 168e9
COST_DAY, REVENUE_DAY = 87_072.0, 562_027.0
GPUS_PER_NODE, PRICE = 8, 2.0
PRICES = PricesSpec(Decimal("0.55"), Decimal("0.14"), Decimal("2.19"), Decimal("2.19"))
MODEL = ModelSpec("", (PoolSpec(Role.PREFILL), PoolSpec(Role.DECODE)), "DeepSeek-R1")


def rising(per_s: float) -> str:
    """A counter of that rate, in promtool's notation."""
    return f"0+{per_s * 15!r}x60"


def day_six() -> list[dict[str, str]]:
    pools = {
        "prefill": PREFILL_NODES * GPUS_PER_NODE,
        "decode": (NODES - PREFILL_NODES) * GPUS_PER_NODE,
    }
    found = [series("r1_gpu_hour_price", f"{PRICE}x60", process="g")]
    for role, gpus in pools.items():
        found.append(series("r1_pool_gpus", f"{gpus}x60", model="R1", role=role, process="g"))
        for name in ("held", "busy"):
            metric = f"r1_rank_{name}_seconds_total"
            found.append(series(metric, rising(gpus), model="R1", role=role, process="g"))
    a_second = TokenCounts(*(round(t / DAY_S) for t in (INPUT - CACHED, CACHED, 0, OUTPUT)))
    for part in TokenClass:
        labels = {"model": "R1", "class": "", "part": part.value, "process": "g"}
        found.append(series("r1_paid_tokens_total", rising(a_second.of(part)), **labels))
    usual = TokenCounts(round((INPUT - CACHED) / 1e8), round(CACHED / 1e8), 0, round(OUTPUT / 1e8))
    for (role, part), seconds in work_s(MODEL, TokenCounts(), usual, 64).items():
        labels = {"model": "R1", "role": role.value, "class": "", "part": part.value}
        found.append(series("r1_work_seconds_total", rising(seconds), process="g", **labels))
    money = cost_pico(PRICES, a_second) / PICO
    found.append(series("r1_revenue_total", rising(money), **{"model": "R1", "class": ""}))
    return [dict(each) for each in found]


def test_deepseeks_day_comes_out(tmp_path: Path) -> None:
    output_million = COST_DAY / (OUTPUT / 1e6)
    checks = [
        check("round(sum(r1:cost:per_hour) * 24, 0.01)", ("{}", COST_DAY)),
        check(
            'round(sum(r1:cost:per_hour{part="idle"}), 0.01)',
            ("{}", 0.0),
        ),
        check(
            'round(sum(r1:cost:per_hour{part=~"input|cached_input"}) * 24, 0.01)',
            ("{}", PREFILL_NODES * GPUS_PER_NODE * PRICE * 24),
        ),
        check(
            "round(r1:cost_per_million_output:money, 0.001)",
            ('{model="R1"}', round(output_million, 3)),
        ),
        # The published revenue is of tokens that were rounded to a billion.
        check(
            f"abs(sum(rate(r1_revenue_total[5m])) * 86400 / {REVENUE_DAY} - 1) < bool 0.0005",
            ("{}", 1.0),
        ),
    ]
    assert run(tmp_path, [case(day_six(), checks)]) == ""


def test_a_day_that_did_not_come_out_is_noticed(tmp_path: Path) -> None:
    wrong = check("round(sum(r1:cost:per_hour) * 24, 0.01)", ("{}", COST_DAY + 0.01))
    assert "FAILED" in run(tmp_path, [case(day_six(), [wrong])])


IDENTITY = check(
    "abs(sum(r1:cost:per_hour) - sum(r1:pool_cost:per_hour)) < bool 0.005", ("{}", 1.0)
)


def any_fleet(chance: random.Random) -> list[dict[str, str]]:
    """Some models, pools, classes and parts, any of which may have nothing to do."""
    found = [series("r1_gpu_hour_price", f"{chance.uniform(0.5, 12):.2f}x60")]
    for model in ("R1", "V3")[: chance.randint(1, 2)]:
        roles = chance.choice([("unified",), ("prefill", "decode")])
        for role in roles:
            gpus = chance.randint(0, 640)
            busy = chance.choice([0.0, chance.random(), 1.0])
            where = {"model": model, "role": role}
            for gateway in ("a", "b"):
                more = where | {"process": gateway}
                found.append(series("r1_pool_gpus", f"{gpus}x60", **more))
                found.append(series("r1_rank_held_seconds_total", rising(8.0), **more))
                found.append(series("r1_rank_busy_seconds_total", rising(8.0 * busy), **more))
                for klass in ("", "gold"):
                    for part in TokenClass:
                        if chance.random() < 0.6:
                            continue
                        work = chance.choice([0.0, chance.expovariate(1.0)])
                        labels = more | {"class": klass, "part": part.value}
                        found.append(series("r1_work_seconds_total", rising(work), **labels))
    return [dict(each) for each in found]


def test_the_parts_of_any_fleets_cost_are_its_gpus_price_to_the_cent(tmp_path: Path) -> None:
    cases = [case(any_fleet(random.Random(seed)), [IDENTITY]) for seed in range(15)]
    assert run(tmp_path, cases) == ""


@pytest.mark.parametrize("cached", [0, 700, 1_000])
def test_the_work_of_a_prompt_is_that_of_its_prefill(cached: int) -> None:
    used = TokenCounts(1_000 - cached, cached)
    found = work_s(MODEL, TokenCounts(), used, 64)
    assert set(found) <= {(Role.PREFILL, TokenClass.INPUT), (Role.PREFILL, TokenClass.CACHED_INPUT)}
    assert all(seconds > 0 for seconds in found.values())


def test_the_work_of_output_grows_with_its_tokens_and_with_its_context() -> None:
    short = work_s(MODEL, TokenCounts(), TokenCounts(100, 0, 50, 50), 64)
    assert short[Role.DECODE, TokenClass.THINKING] == short[Role.DECODE, TokenClass.ANSWER]
    long = work_s(MODEL, TokenCounts(), TokenCounts(100_000, 0, 50, 50), 64)
    assert long[Role.DECODE, TokenClass.ANSWER] > short[Role.DECODE, TokenClass.ANSWER]
    twice = work_s(MODEL, TokenCounts(100, 0, 50, 50), TokenCounts(100, 0, 50, 150), 64)
    assert set(twice) == {(Role.DECODE, TokenClass.ANSWER)}
