"""The gateway that tests of endpoints share, one for each file."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from orchestrator.codec import Tokenizer
from orchestrator.spec import (
    ApiSpec,
)
from tests.scripted_gateway import ADA, BOB, EVE, Stack, stack, write_keys


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("shared")
    keys = write_keys(folder / "keys", ADA, f"{BOB} suspended", f"{EVE} requests=1")
    async with stack(tokenizer, folder, api=ApiSpec(keys_path=keys)) as running:
        yield running
