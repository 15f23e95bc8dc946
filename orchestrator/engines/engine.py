"""The contract between r1-serve and an inference engine: token ids in, token ids out.

The vLLM adapter and the fake implement it; `tests/contract/` runs one suite on both.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from orchestrator.core import Finish, KvParams, KvSource, TokenIds, TokenLogprob
from orchestrator.fleet.doctor import Features

LOGPROBS_MAX = 20  # alternatives per token

__all__ = [
    "End",
    "Engine",
    "EngineInfo",
    "EngineLoad",
    "Finish",
    "Grammar",
    "GrammarKind",
    "KvEventSource",
    "KvPair",
    "KvParams",
    "KvSource",
    "Listener",
    "Sampling",
    "Submit",
    "TokenLogprob",
]


class GrammarKind(StrEnum):
    """What the text of a grammar is."""

    JSON_OBJECT = "json_object"  # empty: any JSON object
    JSON_SCHEMA = "json_schema"  # the schema's JSON
    STRUCTURAL_TAG = "structural_tag"  # xgrammar's structural tag, as JSON


class Grammar(msgspec.Struct, frozen=True, array_like=True):
    """What the answer must conform to, from its beginning; reasoning before it is free.

    It begins at once if the prompt's last mark of a thought closes it, otherwise after the
    end-of-thought mark that is drawn.
    """

    kind: GrammarKind
    text: str = ""


class Sampling(msgspec.Struct, frozen=True, array_like=True):
    """How tokens are drawn. `max_tokens` >= 1 counts generated ones; `temperature` 0 is greedy.

    `grammar` and `thinking_budget` are for engines whose `EngineInfo.grammar` holds; the others
    refuse them.
    """

    max_tokens: int
    temperature: float = 0.6
    top_p: float = 0.95
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = (1,)  # R1's end of sentence
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logprobs: int | None = None  # alternatives to report with each token, 0 to 20; None: nothing
    grammar: Grammar | None = None
    # Ids of reasoning, those in the prompt behind its last begin-of-thought mark included, after
    # which the end-of-thought mark is forced.
    thinking_budget: int | None = None


class KvPair(msgspec.Struct, frozen=True, array_like=True):
    """The other submission of a transfer that both ranks know of beforehand.

    Both have the same `transfer_id`; `peer` is what the other rank's `EngineInfo.kv_peer` says.
    """

    transfer_id: str
    peer: KvParams


class Submit(msgspec.Struct, frozen=True, array_like=True):
    """One generation asked of one rank, whose running requests all have different `request_id`s."""

    request_id: str
    prompt_ids: TokenIds
    sampling: Sampling
    kv_source: KvSource = KvSource.LOCAL
    kv_params: KvParams | None = None  # of a TRANSFER: what the prefill ended with, if it has
    trace_id: str = ""  # the client-visible request id, for the engine's own logs
    cache_salt: str = ""  # KV of different salts is never shared; the empty one is a salt like any
    work_s: float = 0.0  # that the gateway predicts its prefill to take; told to other gateways
    pair: KvPair | None = None  # of a PRODUCE or TRANSFER; a TRANSFER has one or `kv_params`
    traceparent: str = ""  # of the span that the engine's own are below; empty: it makes none


class End(msgspec.Struct, frozen=True, array_like=True):
    """The one terminal message of a request."""

    finish: Finish
    cached_tokens: int = 0  # prompt tokens whose KV was not computed here (prefix hit or transfer)
    kv_params: KvParams | None = None  # only after KvSource.PRODUCE
    cause: str = ""  # for REFUSED, FAILED and LOST: one sentence
    died: bool = False  # of FAILED and LOST: the engine's process or the engine in it has ended


class KvEventSource(msgspec.Struct, frozen=True):
    """Where an engine publishes what enters and leaves its prefix cache, and how it hashes blocks.

    A host of `*` in an endpoint is the engine's own. The first hash begins with `hash_seed`.
    """

    endpoint: str
    replay_endpoint: str = ""  # empty: batches cannot be asked for again
    topic: str = ""
    hash_algorithm: str = ""
    hash_seed: str = ""


class EngineInfo(msgspec.Struct, frozen=True):
    """What an engine says of itself once it is ready."""

    engine: str  # "vllm 0.32.0"
    model: str
    max_model_len: int  # tokens, prompt plus output
    block_size: int  # tokens per KV block
    kv_blocks: int  # per rank
    grammar: bool = False  # takes grammars and, for models that think, thinking budgets
    kv_events: KvEventSource | None = None  # None: it publishes none
    kv_peer: KvParams | None = None  # where KV is moved between pairs: what its peer must know
    features: Features | None = None  # None: it does not tell


class EngineLoad(msgspec.Struct, frozen=True, array_like=True):
    """A moment's load of one rank. `steps` grows with each engine step and never else."""

    running: int
    waiting: int
    kv_usage: float  # fraction in [0, 1]
    steps: int


class Listener(Protocol):
    """Receives an engine's output, on the event loop's thread, in the order it was produced."""

    def on_tokens(
        self, request_id: str, ids: list[int], logprobs: Sequence[TokenLogprob] = ()
    ) -> None:
        """New token ids of one request; never empty, never after its end.

        `logprobs` has one for each id if `Sampling.logprobs` is set, and is empty otherwise.
        """
        ...

    def on_end(self, request_id: str, end: End) -> None:
        """The end of one request: exactly once for each `submit`."""
        ...


class Engine(Protocol):
    """One rank of an engine, called on one event loop; `submit` and `abort` never block."""

    async def start(self, listener: Listener) -> EngineInfo:
        """Returns when the engine can serve. Raises `EngineStartError` with the cause otherwise."""
        ...

    def submit(self, submit: Submit) -> None:
        """Starts a generation; whatever goes wrong arrives as its `End`, never as an exception."""
        ...

    def abort(self, request_id: str) -> None:
        """Ends a generation within an engine step, as `Finish.ABORTED`; ignores unknown ids."""
        ...

    def load(self) -> EngineLoad:
        """The load as of the last engine step."""
        ...

    def failure(self) -> str | None:
        """Why the engine is dead for good, in one sentence, or None while it lives."""
        ...

    def metrics(self) -> bytes:
        """The engine's own metrics in Prometheus text format, passed on unread."""
        ...

    async def stop(self) -> None:
        """Ends every running request with ABORTED, then the engine. Safe to call twice."""
        ...
