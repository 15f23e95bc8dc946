"""What plans become for SGLang has only flags that SGLang has, with values that it takes.

Its parser needs its kernels' packages, so its flags are recorded: `python -m
tests.contract.record_sglang` writes them anew where SGLang is installed.
"""

import json
from pathlib import Path

import pytest

from orchestrator.core import LayoutError, Role
from orchestrator.engines.sglang_command import sglang_commands
from orchestrator.perf import EngineFamily, Weight
from orchestrator.placement import Asked, Plan, Slo, plan, pools_of
from orchestrator.spec import Fabric, GangSpec, PoolSpec
from tests.unit.placement.planning import asked

RECORDED = Path(__file__).parent / "recorded" / "sglang_flags.json"
SGLANG = EngineFamily.SGLANG
PROFILES: dict[str, Asked] = {
    "h100-2x8": asked("H100", 16, fabric=Fabric.TCP, engine=SGLANG),
    "h200-wide-ep": asked("H200", 32, slo=Slo(ttft_s=2.0, itl_s=0.05), engine=SGLANG),
    "b200": asked("B200", 8, engine=SGLANG),
    "gb200-nvl72": asked("GB200", 36, weights=Weight.NVFP4, engine=SGLANG),
    "mi300x": asked("MI300X", 8, engine=SGLANG),
}


def check(command: tuple[str, ...]) -> dict[str, str]:
    """The command's flags; each must be one of SGLang's, with a value where it takes one."""
    known = json.loads(RECORDED.read_text())["flags"]
    assert command[:3] == ("python", "-m", "sglang.launch_server")
    words, found = list(command[3:]), {}
    while words:
        flag = words.pop(0)
        assert flag in known, f"SGLang has no {flag}"
        takes, *choices = known[flag]
        found[flag] = words.pop(0) if takes else ""
        assert not found[flag].startswith("--"), f"{flag} needs a value"
        if choices:
            assert found[flag] in choices[0], f"{flag} does not take {found[flag]}"
    return found


@pytest.mark.parametrize("profile", PROFILES)
def test_every_command_of_a_plan_has_flags_that_there_are(profile: str) -> None:
    made = plan(PROFILES[profile])
    assert isinstance(made, Plan)
    for pool in pools_of(made.asked, made.chosen):
        hosts = tuple(f"node-{at}" for at in range(pool.gang.nodes))
        for rank, command in enumerate(sglang_commands("/models/r1", "r1", 32_768, pool, hosts)):
            flags = check(command)
            gang = pool.gang
            assert int(flags["--tp-size"]) == gang.tensor_parallel * gang.data_parallel
            assert flags.get("--node-rank", "0") == str(rank)


def test_the_widest_layout_is_in_sglangs_words() -> None:
    gang = GangSpec(data_parallel=16, expert_parallel=True, nodes=2)
    args = ("--moe-a2a-backend", "deepep", "--deepep-mode", "low_latency")
    pool = PoolSpec(Role.DECODE, 1, gang, args=(*args, "--enable-two-batch-overlap"))
    first, second = (
        check(command) for command in sglang_commands("/m", "r1", 8_192, pool, ("a", "b"))
    )
    assert (first["--tp-size"], first["--dp-size"], first["--ep-size"]) == ("16", "16", "16")
    assert first["--dist-init-addr"] == second["--dist-init-addr"] == "a:5000"
    assert first["--disaggregation-mode"] == "decode"
    assert "--skip-tokenizer-init" in first
    assert "--reasoning-parser" not in first


def test_gpus_that_do_not_divide_over_the_nodes_are_refused() -> None:
    pool = PoolSpec(Role.UNIFIED, 1, GangSpec(tensor_parallel=9, nodes=2))
    with pytest.raises(LayoutError, match="9 GPUs do not divide over 2 nodes"):
        sglang_commands("/m", "r1", 8_192, pool, ("a", "b"))
