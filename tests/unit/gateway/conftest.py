"""The gateway that tests of endpoints share, one for each file."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from orchestrator.codec import Tokenizer
from orchestrator.spec import (
    ApiSpec,
)
from tests.scripted_gateway import ADA, BOB, EVE, Stack, stack, write_keys, write_tenants


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("shared")
    api = ApiSpec(
        keys_path=write_keys(folder / "keys", ADA, BOB, EVE),
        tenants_path=write_tenants(folder / "tenants.yaml", "tenants: {bob: {suspended: true}}"),
    )
    async with stack(tokenizer, folder, api=api) as running:
        yield running
