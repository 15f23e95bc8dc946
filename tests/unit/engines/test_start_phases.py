"""Lines of vLLM 0.32's log as it starts, and what they tell."""

import pytest

from orchestrator.engines.start_phases import phase_of


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        (
            "(MainProcess pid=1) INFO 11-25 20:59:14 [model.py:733] Resolved architecture: "
            "DeepseekV3ForCausalLM",
            "configuring",
        ),
        (
            "(EngineCore_DP0 pid=2) INFO [parallel_state.py:1906] world_size=2 rank=0 local_rank=0",
            "joining ranks",
        ),
        (
            "(Worker_TP0 pid=3) INFO [gpu_model_runner.py:68] Starting to load model /models/r1...",
            "loading weights",
        ),
        (
            "Loading safetensors checkpoint shards:  42% Completed | 68/163 [01:10<01:38, 1s/it]",
            "loading weights 68/163",
        ),
        (
            "(Worker pid=3) Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  50%|#| 4/8",
            "capturing CUDA graphs 4/8",
        ),
        ("(MainProcess pid=1) WARNING [cpu.py:224] Triton is not installed.", None),
    ],
)
def test_a_line_tells_its_phase(line: str, phase: str | None) -> None:
    assert phase_of(line) == phase
