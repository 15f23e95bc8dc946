"""How experts exchange tokens, and with which kernels what can be combined."""

import json

import pytest

from orchestrator.core import Role
from orchestrator.perf import HARDWARE
from orchestrator.placement import Shape, shapes
from orchestrator.placement.wide_ep import (
    OVERLAPPING,
    Exchange,
    WideEp,
    balance_of,
    exchange_of,
    graph_flags,
)
from orchestrator.spec import Fabric
from tests.unit.placement.planning import asked


@pytest.mark.parametrize(
    ("gpu", "fabric", "role", "ep", "exchange"),
    [
        ("H200", Fabric.RDMA, Role.DECODE, 8, Exchange.GATHER),
        ("H200", Fabric.RDMA, Role.DECODE, 32, Exchange.DEEPEP_FEW),
        ("H200", Fabric.RDMA, Role.PREFILL, 32, Exchange.DEEPEP_MANY),
        ("H200", Fabric.TCP, Role.DECODE, 32, Exchange.GATHER),
        ("GB200", Fabric.RDMA, Role.DECODE, 4, Exchange.GATHER),
        ("GB200", Fabric.RDMA, Role.DECODE, 32, Exchange.NVLINK),
        ("GB200", Fabric.TCP, Role.PREFILL, 64, Exchange.NVLINK),
        ("GB200", Fabric.RDMA, Role.DECODE, 144, Exchange.DEEPEP_FEW),
        ("MI300X", Fabric.RDMA, Role.DECODE, 16, Exchange.MORI_FEW),
        ("MI300X", Fabric.RDMA, Role.UNIFIED, 16, Exchange.MORI_MANY),
    ],
)
def test_the_kernels_follow_from_what_joins_the_gpus(
    gpu: str, fabric: Fabric, role: Role, ep: int, exchange: Exchange
) -> None:
    kind = HARDWARE[gpu]
    assert exchange_of(kind, fabric, role, ep, kind.gpus_per_node) is exchange


def test_overlap_is_planned_for_with_the_kernels_that_have_it_and_no_others() -> None:
    def overlapped(gpu: str, count: int) -> list[Shape]:
        return [shape for shape in shapes(asked(gpu, count)) if shape.layout.overlap]

    assert all(shape.nodes > 1 for shape in overlapped("H200", 32))
    assert overlapped("H200", 32)
    assert not overlapped("MI300X", 32)
    assert not overlapped("GB200", 32)


def test_a_combination_that_vllm_refuses_cannot_be_said() -> None:
    with pytest.raises(AssertionError):
        WideEp(Exchange.NVLINK, overlap=True, balance=None)
    assert WideEp(Exchange.DEEPEP_FEW, overlap=True, balance=None).flags[-1] == "--enable-dbo"
    assert Exchange.GATHER not in OVERLAPPING


def test_experts_are_dealt_anew_every_five_minutes_whatever_a_step_takes() -> None:
    for step_s in (0.02, 0.05, 2.0):
        balance = balance_of(32, step_s)
        assert balance is not None
        assert balance.interval_steps * step_s == pytest.approx(300.0, rel=0.01)
        assert balance.window_steps <= balance.interval_steps
    assert balance_of(0, 0.05) is None
    seldom = balance_of(32, 60.0)
    assert seldom is not None
    assert seldom.interval_steps == 100


def test_redundant_experts_come_with_their_intervals() -> None:
    flags = WideEp(Exchange.GATHER, overlap=False, balance=balance_of(16, 0.1)).flags
    assert flags[0] == "--enable-eplb"
    assert json.loads(flags[2]) == {
        "num_redundant_experts": 16,
        "step_interval": 3_000,
        "window_size": 1_000,
    }


@pytest.mark.parametrize(
    ("role", "sequences", "drafts", "tokens"),
    [
        (Role.DECODE, 256, 0, None),
        (Role.DECODE, 256, 1, None),
        (Role.DECODE, 256, 2, "768"),
        (Role.DECODE, 700, 0, "704"),
        (Role.UNIFIED, 900, 1, "1024"),
        (Role.PREFILL, 900, 1, None),
    ],
)
def test_graphs_are_captured_for_every_decode_step(
    role: Role, sequences: int, drafts: int, tokens: str | None
) -> None:
    expected = () if tokens is None else ("--max-cudagraph-capture-size", tokens)
    assert graph_flags(role, sequences, drafts) == expected
