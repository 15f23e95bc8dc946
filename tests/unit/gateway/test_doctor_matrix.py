"""The doctor's confusion matrix: each silent fault is named, and a healthy fleet is left alone."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest

from orchestrator.codec import Tokenizer
from orchestrator.core import Role
from orchestrator.engines import FakeEngineSpec
from orchestrator.fleet.doctor import Finding, SilentFault, State, examine
from orchestrator.gateway.examiner import Examiner
from orchestrator.gateway.probes import ProbeLimits
from orchestrator.gateway.wanted import wanted
from orchestrator.spec import EngineKind, EngineSpec, Fabric, HandoffSpec, ModelSpec, PoolSpec, Spec
from tests.gateway_stack import GatewayStack, Rank, gateway_stack

ALL2ALL = "deepep_low_latency"
HEALTHY = FakeEngineSpec(
    step_s=0.001,
    prefill_s_per_token=0.0,
    max_model_len=8_192,
    prefix_blocks=4_096,
    block_size=16,
    kv_events=True,
    draft_tokens=1,
    all2all=ALL2ALL,
    link_bytes_per_s=45e9,
)
POOLS = (PoolSpec(Role.PREFILL, 2), PoolSpec(Role.DECODE, 3))
MODEL = ModelSpec("unused", POOLS, max_model_len=8_192, engine=EngineSpec(kind=EngineKind.FAKE))
SPEC = Spec((MODEL,), handoff=HandoffSpec(fabric=Fabric.RDMA))
WANTED = replace(wanted(SPEC, MODEL), all2all=ALL2ALL, draft_tokens=1)
LIMITS = ProbeLimits(answer_s=1.0, events_s=0.5, cancel_s=0.5, rest_s=0.3, ranks_at_once=2)
HEALTHY_RUNS = 20


@asynccontextmanager
async def fleet(
    tokenizer: Tokenizer, logs: Path, faulty: FakeEngineSpec = HEALTHY, at: str = "decode-1"
) -> "AsyncIterator[Fleet]":
    """Two prefill and three decode ranks, one of which may be faulty."""
    names = [f"prefill-{n}" for n in range(2)] + [f"decode-{n}" for n in range(3)]
    ranks = [
        Rank(Role(name.partition("-")[0]), name, faulty if name == at else HEALTHY)
        for name in names
    ]
    async with gateway_stack(SPEC, {MODEL.name: tokenizer}, ranks, logs) as running:
        service = running.models.served(MODEL).service
        examiner = Examiner(service, tokenizer.control, "gateway-test", WANTED, LIMITS)
        yield Fleet(running, examiner)


@dataclass(frozen=True)
class Fleet:
    running: GatewayStack
    examiner: Examiner

    async def round(self) -> tuple[Finding, ...]:
        return examine(await self.examiner.examine())


def named(findings: Sequence[Finding]) -> set[tuple[SilentFault | None, str]]:
    """The faults, and of whom."""
    return {(f.fault, f.subject) for f in findings if f.state is State.FAULT}


def rank_of(fault: SilentFault) -> str:
    """Which rank is given it: some are of prefill only."""
    return "prefill-1" if fault is SilentFault.KEEPS_BLOCKS else "decode-1"


@pytest.mark.parametrize("fault", SilentFault)
async def test_each_silent_fault_is_named_at_its_rank_and_no_other(
    tokenizer: Tokenizer, tmp_path: Path, fault: SilentFault
) -> None:
    at = rank_of(fault)
    faulty = msgspec.structs.replace(HEALTHY, faults=(fault,))
    async with fleet(tokenizer, tmp_path, faulty, at) as running:
        findings = await running.round()
    found = {(name, subject) for name, subject in named(findings) if name is not None}
    assert {name for name, _ in found} == {fault}
    assert all(f"{at}/0" in subject for _, subject in found), found


async def test_a_healthy_fleet_has_no_finding_but_good_ones(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    async with fleet(tokenizer, tmp_path) as running:
        for _ in range(HEALTHY_RUNS):
            findings = await running.round()
            assert named(findings) == set()
            bad = [f for f in findings if f.state is not State.OK]
            assert bad == []


async def test_a_fleet_that_serves_has_no_fault_and_its_streams_do_not_notice(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    async with fleet(tokenizer, tmp_path) as running:
        alone = await running.running.ask("What is it?")
        over = asyncio.Event()
        answers = []

        async def client(number: int) -> None:
            while not over.is_set():
                answers.append(await running.running.ask("What is it?"))

        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(client(number))
            for _ in range(2):
                assert named(await running.round()) == set()
            over.set()
        assert len(answers) >= 6
        assert set(answers) == {alone}
