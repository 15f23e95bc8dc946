"""The real gateway over scripted engines, as a process of its own for clients of every language.

`python -m tests.conformance.server --logs DIR [--settings JSON]` prints its URL when it is ready,
and ends with its standard input; each line of that is answered with the number of requests that
the engines run. It serves R1-0528 with prefill and decode apart as
`deepseek-reasoner`, and V3-0324 as `deepseek-chat`.
"""

import argparse
import asyncio
import sys
from pathlib import Path

import msgspec

from orchestrator.codec import Tokenizer
from orchestrator.core import Role
from orchestrator.engines import FakeEngineSpec
from orchestrator.engines.scripted_model import ScriptedModel
from orchestrator.engines.tiny_checkpoint import published_tokenizer
from orchestrator.spec import (
    ApiSpec,
    EngineKind,
    EngineSpec,
    GatewaySpec,
    ModelSpec,
    PoolSpec,
    PricesSpec,
    Spec,
    UsageSpec,
)
from tests.gateway_stack import Rank, gateway_stack

FAST = FakeEngineSpec(
    max_model_len=131_072,
    kv_blocks=200_000,
    prefix_blocks=100_000,
    step_s=0.0005,
    prefill_s_per_token=0.0,
)


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """What one server is asked for; the rest is as an operator would have it."""

    api: dict[str, object] = {}
    keep_alive_s: float = 10.0
    step_s: float = FAST.step_s
    prefill_s_per_token: float = 0.0
    chat: bool = True  # V3 beside R1
    usage: dict[str, object] = {}
    prices: dict[str, str] | None = None  # of every model


def spec_of(settings: Settings) -> Spec:
    """The spec that is served."""
    engine = EngineSpec(kind=EngineKind.FAKE)
    apart = (PoolSpec(Role.PREFILL), PoolSpec(Role.DECODE))
    prices = None if settings.prices is None else msgspec.convert(settings.prices, PricesSpec)
    models = [ModelSpec("unused", apart, "DeepSeek-R1-0528", engine=engine, prices=prices)]
    if settings.chat:
        unified = (PoolSpec(Role.UNIFIED),)
        models.append(
            ModelSpec("unused", unified, "DeepSeek-V3-0324", engine=engine, prices=prices)
        )
    return Spec(
        models=tuple(models),
        api=msgspec.convert(settings.api, ApiSpec),
        gateway=GatewaySpec(replicas=1, keep_alive_s=settings.keep_alive_s),
        usage=msgspec.convert(settings.usage, UsageSpec),
    )


def ranks_of(settings: Settings, spec: Spec, tokenizer: Tokenizer) -> list[Rank]:
    """One scripted engine for each pool."""
    pace = msgspec.structs.replace(
        FAST, step_s=settings.step_s, prefill_s_per_token=settings.prefill_s_per_token
    )
    return [
        Rank(
            pool.role,
            f"{model.name}-{pool.role}",
            pace,
            model=model.name,
            author=ScriptedModel(tokenizer, opens_thoughts=model.profile.thinks),
        )
        for model in spec.models
        for pool in model.pools
    ]


async def main() -> None:
    """Serves until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--logs", type=Path, required=True)
    parser.add_argument("--settings", default="{}")
    options = parser.parse_args()
    settings = msgspec.json.decode(options.settings, type=Settings)
    spec = spec_of(settings)
    tokenizer = Tokenizer.load(published_tokenizer())
    tokenizers = {model.name: tokenizer for model in spec.models}
    ranks = ranks_of(settings, spec, tokenizer)
    async with gateway_stack(spec, tokenizers, ranks, options.logs) as running:
        _say(running.url)
        while await asyncio.to_thread(sys.stdin.readline):
            _say(sum(rank.engine.load().running for rank in ranks))


def _say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
