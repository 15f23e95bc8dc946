"""What `r1-serve plan` writes, `r1-serve up --plan` serves: pools, gangs and nodes, with fakes."""

from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.spec import parse_plan
from tests.live.local_stack import local_stack, stream

pytestmark = [pytest.mark.live, pytest.mark.timeout(400)]


def test_the_layout_of_a_plan_serves_with_fake_engines(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    asked = ("--gpus", "24xH200", "--workload", "chat,rate=15", "--slo", "ttft=2s,itl=50ms")
    assert main(["plan", *asked, "--format", "values", "-o", str(path)]) == 0
    [model] = parse_plan(path.read_text(), str(path)).models
    with local_stack(tmp_path, "--plan", str(path), "--engine", "fake") as stack:
        assert stack.ranks() == {pool.role.value: pool.replicas for pool in model.pools}
        for pool in model.pools:
            for node in range(pool.gang.nodes):
                assert len(stack.engine_pids(pool.role.value, node)) == pool.replicas
        completion = stream(stack.client(), "What is a plan worth?", sampling={"max_tokens": 64})
        assert completion.output_tokens > 0
