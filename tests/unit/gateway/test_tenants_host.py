"""Tenants at one gateway: what it knows of other lives, and files that change."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from orchestrator.admission import PICO, cost_pico
from orchestrator.core import SpecError, TokenCounts
from orchestrator.gateway import Tenants
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.tenants import Bill
from orchestrator.spec import ApiSpec, GatewaySpec, PricesSpec, Spec, UsageSpec
from orchestrator.telemetry import Metrics, open_log
from tests.gateway_stack import until
from tests.scripted_gateway import ADA, R1_ALONE, write_keys, write_tenants

PRICES = PricesSpec(Decimal("55"), Decimal("14.5"), Decimal("219.000001"), Decimal("219"))
PRICED = (replace(R1_ALONE[0], prices=PRICES),)


@contextmanager
def tenants_of(
    folder: Path, text: str, name: str = "one", sync_s: float = 1.0
) -> Iterator[Tenants]:
    usage = UsageSpec(str(folder / "usage"), sync_s=sync_s)
    api = ApiSpec(
        keys_path=write_keys(folder / "keys", ADA),
        tenants_path=write_tenants(folder / "tenants.yaml", text),
    )
    spec = Spec(PRICED, api=api, gateway=GatewaySpec(replicas=1), usage=usage)
    with closing(open_log(name, folder / f"{name}.log")) as log:
        tenants = Tenants(spec, name, Metrics(), log)
        yield tenants
        tenants.stop()


@pytest.mark.asyncio
async def test_gateways_that_share_a_folder_know_what_the_others_have_spent(tmp_path: Path) -> None:
    text = "tenants: {ada: {budget: {granted: 100}}}"
    with tenants_of(tmp_path, text) as one, tenants_of(tmp_path, text, "two") as two:
        bill = Bill("r", "ada", PRICED[0], streamed=True, prompt_tokens=10)
        assert one.open(bill) is None
        used = TokenCounts(10, 0, 400_000, 0)
        bill.follow = lambda: used
        one.tell()
        two.read_others()
        assert two.spent_pico("ada") == one.spent_pico("ada") == cost_pico(PRICES, used)
        assert two.refusal("ada") is None
        used = TokenCounts(10, 0, 400_000, 400_000)
        one.close(bill, "stop")
        two.read_others()
        assert two.spent_pico("ada") == cost_pico(PRICES, used) > 100 * PICO
        refused = two.refusal("ada")
        assert isinstance(refused, ApiError)
        assert refused.status == 402


@pytest.mark.asyncio
async def test_a_broken_file_is_one_line_of_the_log_and_what_was_in_force_stays(
    tmp_path: Path,
) -> None:
    path = tmp_path / "tenants.yaml"
    with tenants_of(tmp_path, "tenants: {ada: {requests_max: 7}}") as tenants:
        for broken in (
            "tenants:\n  ada:\n    requests_max: -1\n",
            "tenants:\n  ada: {requests_max: 1, streams_max: 2}\n",
            "tenants:\n  ada: b: c\n",
        ):
            path.write_text(broken)
            await tenants.look()
            assert tenants.of("ada").requests_max == 7
        path.write_text("tenants: {ada: {requests_max: 9}}")
        await tenants.look()
        assert tenants.of("ada").requests_max == 9
    lines = [json.loads(line) for line in (tmp_path / "one.log").read_text().splitlines()]
    faults = [line for line in lines if line["event"] == "not_reloaded"]
    assert [(line["what"], line["level"]) for line in faults] == [("tenants", "ERROR")] * 3
    for fault, number in zip(faults, (3, 2, 2), strict=True):
        assert f"{path}, line {number}" in fault["cause"]
        assert fault["cure"]
    with (
        pytest.raises(SpecError, match="line 1"),
        tenants_of(tmp_path, "tenants: {ada: {requests_max: 0}}"),
    ):
        pass


@pytest.mark.asyncio
async def test_usage_that_cannot_be_read_is_a_metric_and_one_line_until_it_can(
    tmp_path: Path,
) -> None:
    with tenants_of(tmp_path, "tenants: {}", sync_s=0.01) as tenants:
        broken = tmp_path / "usage" / "other.totals.json"
        broken.write_text("{")
        log = tmp_path / "one.log"
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(task) for task in tenants.tasks()]
            await until(lambda: b"r1_usage_fault 1.0" in tenants.metrics.exposition())
            broken.unlink()
            await until(lambda: b"r1_usage_fault 0.0" in tenants.metrics.exposition())
            for task in running:
                task.cancel()
        assert log.read_text().count('"event":"usage_not_kept"') == 1
