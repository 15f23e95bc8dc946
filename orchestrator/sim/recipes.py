"""How engines were started for published measurements: what a row leaves out, and its source says.

Nothing here is fitted. A closed form has no use for it; a scheduler does.
"""

from dataclasses import dataclass

from orchestrator.perf import EngineFamily, Mode
from orchestrator.perf.cases import Case
from orchestrator.perf.precision import Weight

SEQUENCES_MAX = 1024  # of a rank, where nobody says: vLLM's and SGLang's usual limit
_NOMINAL = 0.9  # of InferenceX's nominal lengths, the mean that it draws


@dataclass(frozen=True, slots=True)
class Recipe:
    """The scheduler's settings; see `GangModel`."""

    chunk_tokens: int
    sequences_max: int = SEQUENCES_MAX
    receive_steps: int = 1
    align_steps: int = 0
    batch_steps: int = 0


def recipe_of(case: Case) -> Recipe:
    """What the row's source says; the layout's own chunk and an engine's defaults where it does
    not, or where the fleet has two pools.
    """
    if case.mode is Mode.UNIFIED and case.source.startswith("ix"):
        return _inferencex(case)
    align_steps, batch_steps = _ADP_BALANCE.get(case.id, (0, 0))
    return Recipe(case.side.layout.chunk_tokens, align_steps=align_steps, batch_steps=batch_steps)


# TensorRT-LLM, tech blog 10: the three configurations of its experiment, `timeout_iters` and
# `batching_wait_iters` of `attention_dp_config`.
_ADP_BALANCE = {
    "trt-gb200-adp-ctx-wait": (50, 0),
    "trt-gb200-adp-full": (50, 10),
}


def _inferencex(case: Case) -> Recipe:
    """InferenceX, benchmarks/single_node: dsr1_{fp4,fp8}_{b200,b300,h200}{,_trt}.sh.

    `receive_steps` is SGLang's --scheduler-recv-interval, which counts decode steps
    (managers/scheduler_recv_skipper.py); the others are --chunked-prefill-size or --max_num_tokens,
    --max-running-requests and `attention_dp_config`.
    """
    concurrency, layout = case.concurrency, case.side.layout
    blackwell = case.gpu.fp4_flops is not None
    match case.engine:
        case EngineFamily.SGLANG if blackwell:
            seldom = 30 if concurrency >= 16 else 10
            if case.precision.experts is Weight.NVFP4:
                return Recipe(16_384, 256, seldom)
            return Recipe(32_768, 128, seldom) if layout.tp == 8 else Recipe(8_192, 32, 10)
        case EngineFamily.SGLANG:
            return Recipe(32_768, 256)
        case EngineFamily.TRTLLM:
            prompt = round(case.input_tokens / _NOMINAL)
            chunk = max(8_192, -(-(round(concurrency) + prompt + 64) // 64) * 64)
            return Recipe(chunk, align_steps=60 if layout.dp > 1 else 0)
        case _:
            return Recipe(layout.chunk_tokens)
