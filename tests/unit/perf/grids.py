"""Layouts that the tests of perf draw from, and a way to change one number of a GPU."""

from dataclasses import replace

from hypothesis import strategies as st

from orchestrator.perf import (
    ARCHITECTURES,
    HARDWARE,
    EngineFamily,
    Gpu,
    Kv,
    Layout,
    LayoutGrid,
    Precision,
    Weight,
)
from orchestrator.spec import Fabric

R1 = ARCHITECTURES["DeepSeek-R1"]
FP8, NVFP4 = Precision(), Precision(Weight.NVFP4, Weight.FP8, Kv.FP8)

LAYOUTS = (
    Layout(tp=8),
    Layout(tp=8, ep=8),
    Layout(dp=8, ep=8),
    Layout(tp=8, pp=2),
    Layout(tp=16, ep=16),
    Layout(dp=32, ep=32, redundant_experts=32, overlap=True),
    Layout(tp=2, dp=8, ep=16),
    Layout(dp=16, ep=16, mtp_drafts=1),
    Layout(dp=144, ep=144, redundant_experts=32, overlap=True),
)
layouts = st.sampled_from(LAYOUTS)
gpus = st.sampled_from(sorted(HARDWARE)).map(HARDWARE.__getitem__)
precisions = st.sampled_from((FP8, NVFP4))
engines = st.sampled_from(EngineFamily)
fabrics = st.sampled_from(Fabric)


def grid(layout: Layout, gpu: Gpu | str = "H200", precision: Precision = FP8) -> LayoutGrid:
    """A grid of one layout, on SGLang."""
    hardware = HARDWARE[gpu] if isinstance(gpu, str) else gpu
    return LayoutGrid.of([layout], R1, hardware, precision, EngineFamily.SGLANG)


def faster(gpu: Gpu, number: str, times: float) -> Gpu:
    """The same GPU with one number of its data sheet larger."""
    value = getattr(gpu, number)
    return gpu if value is None else replace(gpu, **{number: value * times})
