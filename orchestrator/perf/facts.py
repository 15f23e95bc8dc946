"""Known facts about R1, and what this room makes of them: a check that needs no fitting."""

from dataclasses import dataclass

import numpy as np

from orchestrator.perf.architecture import ARCHITECTURES, Architecture
from orchestrator.perf.hardware import HARDWARE, Gpu
from orchestrator.perf.layout import EngineFamily, Layout, LayoutGrid
from orchestrator.perf.ledger import expert_slots, ledger
from orchestrator.perf.precision import Kv, Precision, Weight
from orchestrator.perf.system import decode_step, pool_of, prefill_cost
from orchestrator.perf.traffic import Traffic

_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Day:
    """A fleet's day as DeepSeek published it: open-infra-index, day 6, 27 and 28 February 2025."""

    input_tokens: float = 608e9
    cached_tokens: float = 342e9
    output_tokens: float = 168e9
    context_tokens: float = 4_989.0  # mean KV length of an output token
    token_rate: float = 21.0  # of one user: "20-22 tokens per second"
    input_rate: float = 73_700.0  # of a prefill node, cached tokens included
    output_rate: float = 14_800.0  # of a decode node
    nodes: float = 226.75
    cost: float = 87_072.0  # US dollars, at 2 an hour and GPU


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known and what was found, as text, and whether they agree."""

    name: str
    known: str
    found: str
    agrees: bool


def nodes_for(day: Day, input_rate: float, output_rate: float) -> float:
    """Nodes that a day's tokens keep busy, at rates of tokens a second and node."""
    return day.input_tokens / _DAY_S / input_rate + day.output_tokens / _DAY_S / output_rate


def cost_per_day(nodes: float, gpu: Gpu) -> float:
    """US dollars of so many nodes for a day, at the GPU's price."""
    assert gpu.price_per_hour is not None
    return nodes * gpu.gpus_per_node * 24 * gpu.price_per_hour


def exchange_floor_s(model: Architecture, gpu: Gpu, tokens: float, hidden: int) -> float:
    """The least time a token can take when each of its experts is on another GPU.

    "Insights into DeepSeek-V3" (ISCA 2025), section 2.3: dispatch in FP8 and combine in BF16 to the
    routed experts and the shared one, for two half batches, of which one computes meanwhile.
    """
    assert model.experts is not None
    copies = model.experts.chosen + model.experts.shared
    exchange_s = (1 + 2) * tokens * copies * hidden / gpu.nic_bandwidth
    return 2 * exchange_s * model.layers


def day_rates(day: Day) -> tuple[float, float]:
    """Predicted tokens a second of a prefill and of a decode node in DeepSeek's own layout.

    Prefill is EP32 at full load with the day's prefix hits, decode EP144 at the batch where a user
    gets the day's rate; both with 32 redundant experts.
    """
    model, gpu = ARCHITECTURES["DeepSeek-R1"], HARDWARE["H800"]

    def grid(layout: Layout) -> LayoutGrid:
        return LayoutGrid.of([layout], model, gpu, Precision(), EngineFamily.IN_HOUSE)

    prefill = grid(Layout(dp=32, ep=32, redundant_experts=32, overlap=True, chunk_tokens=16_384))
    hit = day.cached_tokens / day.input_tokens
    traffic = Traffic(day.context_tokens, 1.0, prefix_hit=hit)
    work_s = float(prefill_cost(pool_of(prefill, 1.0), traffic).work_s[0])
    decode = grid(Layout(dp=144, ep=144, redundant_experts=32, overlap=True))
    batch = np.arange(8, 257).astype(float)
    step_s = decode_step(decode, batch, day.context_tokens).total_s
    best = float(batch[step_s <= 1 / day.token_rate][-1])
    nodes = prefill.gpus[0] / gpu.gpus_per_node
    return day.context_tokens / work_s / float(nodes), best * day.token_rate * gpu.gpus_per_node


def facts() -> list[Fact]:
    """All of them."""
    r1, day = ARCHITECTURES["DeepSeek-R1"], Day()
    h800 = HARDWARE["H800"]
    checkpoint = r1.checkpoint_bytes(Weight.FP8) / 1e9
    floor_ms = exchange_floor_s(r1, h800, tokens=32, hidden=7000) * 1e3
    published = nodes_for(day, day.input_rate, day.output_rate)
    input_rate, output_rate = day_rates(day)
    predicted = nodes_for(day, input_rate, output_rate)
    prefill = day.input_tokens / _DAY_S / input_rate
    cost = cost_per_day(day.nodes, h800)
    out = [
        _same("parameters of the main model", "671,026,419,200", f"{r1.main_params:,}"),
        _same("checkpoint in FP8, GB", "688.57", f"{checkpoint:.2f}"),
        _same("KV bytes a token, BF16", "70,272", f"{r1.kv_bytes_per_token(Kv.BF16):,.0f}"),
    ]
    for gpus, known in (("H100", "no"), ("H200", "yes")):
        grid = LayoutGrid.of([Layout(tp=8, ep=8)], r1, HARDWARE[gpus], Precision())
        found = "yes" if ledger(grid).fits[0] else "no"
        out.append(_same(f"R1 in FP8 fits 8 x {gpus}", known, found))
    for ep, known in ((32, "9"), (144, "2")):
        name = f"expert slots a GPU, EP{ep} with 32 redundant experts"
        out.append(_same(name, known, str(expert_slots(256, 32, ep))))
    out += [
        _same("communication floor of a token (ISCA 2025), ms", "14.76", f"{floor_ms:.2f}"),
        Fact(
            "nodes of DeepSeek's day, from its published rates",
            f"{day.nodes:.2f} +-10%",
            f"{published:.2f}",
            abs(published / day.nodes - 1) <= 0.1,
        ),
        Fact(
            "the same from predicted rates of full nodes",
            f"{day.nodes:.2f} +-10%",
            f"{predicted:.2f}: prefill {prefill:.0f}/95, decode {predicted - prefill:.0f}/131",
            abs(predicted / day.nodes - 1) <= 0.1,
        ),
        _same("cost of that day's nodes, $", f"{day.cost:,.0f}", f"{cost:,.0f}"),
    ]
    return out


def _same(name: str, known: str, found: str) -> Fact:
    return Fact(name, known, found, known == found)
