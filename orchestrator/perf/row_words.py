"""The words of published measurements: engines, number formats, layouts and flags in free text."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.perf.layout import EngineFamily, Layout
from orchestrator.perf.precision import Kv, Precision, Weight

_ENGINES = (
    ("tensorrt", EngineFamily.TRTLLM),
    ("trt", EngineFamily.TRTLLM),
    ("sglang", EngineFamily.SGLANG),
    ("vllm", EngineFamily.VLLM),
    ("in-house", EngineFamily.IN_HOUSE),
    ("inhouse", EngineFamily.IN_HOUSE),
)


def engine_of(text: str) -> tuple[EngineFamily, str]:
    """The family, and why it is only the nearest one, or ""."""
    for word, family in _ENGINES:
        if word in text.lower():
            return family, ""
    return EngineFamily.VLLM, f"engine {text!r} is unknown, vLLM's factors are used"


def precision_of(text: str, engine: EngineFamily, *, kv: Kv = Kv.BF16) -> tuple[Precision, str]:
    """Formats from words like "NVFP4 MoE, FP8 attention", and why they are only the nearest, or "".

    `kv` holds where the words do not say.

    TensorRT-LLM's recipes set an FP8 cache, and with NVFP4 experts every engine's do; then the rest
    counts as FP8: in NVIDIA's second R1 checkpoint the output projection is NVFP4 and the other
    projections BF16, which is 1.1 bytes a parameter.
    """
    low = text.lower()
    if "fp4" in low:
        return Precision(Weight.NVFP4, Weight.FP8, Kv.FP8), ""
    if "bf16" in low and "fp8" not in low:
        return Precision(Weight.BF16, Weight.BF16, kv), ""
    wide = "bf16 attention" in low
    if wide:
        kv = Kv.BF16
    elif engine is EngineFamily.TRTLLM or "fp8 kv" in low or "fp8 mla" in low:
        kv = Kv.FP8
    why = "" if "fp8" in low or not low else f"precision {text!r} is unknown, FP8's sizes are used"
    return Precision(Weight.FP8, Weight.BF16 if wide else Weight.FP8, kv), why


@dataclass(frozen=True, slots=True)
class Drafts:
    """Multi-token prediction as a row states it."""

    drafts: int
    accepted: float | None  # tokens a step; None: not stated
    notes: tuple[str, ...] = ()


def drafts_of(value: Any) -> Drafts:  # noqa: ANN401 any YAML value
    """From `flags.mtp`: nothing, true, or words like "3 drafts, accept len 2.37"."""
    if not value:
        return Drafts(0, None)
    text = f"{value} drafts" if isinstance(value, int) and value is not True else str(value)
    accepted = re.search(r"accept len\w* (\d+(?:\.\d+)?)", text)
    percent = re.search(r"(\d+) ?% accept", text)
    count = re.search(r"(\d+) (?:draft|token)|mtp ?(\d)", text.lower())
    drafts = int(count[1] or count[2]) if count else 1
    notes = () if count else ("number of drafts not stated: 1",)
    if accepted:
        return Drafts(drafts, float(accepted[1]), notes)
    if percent:
        return Drafts(drafts, 1 + drafts * int(percent[1]) / 100, notes)
    if "SIMULATED" in text:  # the report's other row of the same experiment says 60 %
        return Drafts(drafts, 1.6, (*notes, "acceptance not stated: 60 %"))
    return Drafts(drafts, None, notes)


@dataclass(frozen=True, slots=True)
class Extras:
    """What a layout has beside its sizes."""

    redundant_experts: int = 0
    mtp_drafts: int = 0
    overlap: bool = False
    chunk_tokens: int = 8192

    def layout(self, tp: int = 1, pp: int = 1, dp: int = 1, ep: int = 1) -> Layout:
        """A layout of those sizes."""
        return Layout(
            tp, pp, dp, ep, self.redundant_experts, self.mtp_drafts, self.overlap, self.chunk_tokens
        )


def layout_of(text: str, extras: Extras) -> tuple[Layout, float] | str:
    """A pool's layout and gangs from words like "3 x (DP4 EP4), 12 GPUs"; or what is unclear."""
    sizes: dict[str, int] = {}
    for word, digits in re.findall(r"\b(DEP|TEP|TP|PP|DP|EP)(\d+)", text):
        size = int(digits)
        axes = {"DEP": ("dp", "ep"), "TEP": ("tp", "ep")}.get(word, (word.lower(),))
        for axis in axes:
            if sizes.setdefault(axis, size) != size:
                return f"{text!r} names several sizes"
    if not sizes:
        return f"{text!r} names no size"
    times = re.search(r"(\d+) ?x\b", text)
    if set(sizes) == {"ep"}:
        sizes["dp"] = sizes["ep"]
    return extras.layout(**sizes), float(times[1]) if times else 1.0


def balance_of(flags: Mapping[str, Any], layout: Layout) -> float:
    """0 for perfectly balanced experts, 0.5 where the engine rebalances them, 1 otherwise.

    Nobody runs experts over 16 ranks and more without rebalancing, so there it is assumed.
    """
    eplb = flags.get("eplb")
    if flags.get("balanced_routing") or "perfect" in str(eplb):
        return 0.0
    wide = layout.ep >= 16 and eplb is not False
    return 0.5 if eplb or layout.redundant_experts or wide else 1.0
