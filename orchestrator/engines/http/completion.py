"""The bodies of `/v1/completions` with token ids, as vLLM 0.32 takes and sends them."""

from collections.abc import Sequence

import msgspec

from orchestrator.core import KvParams, KvSource
from orchestrator.engines.engine import End, Finish, Sampling, Submit, TokenLogprob
from orchestrator.engines.kv_reference import kv_transfer_params
from orchestrator.engines.structural_tag import structural_tag

_ID = "token_id:"  # vLLM's prefix of ids that stand for tokens


def completion_body(model: str, submit: Submit) -> bytes:
    """The request for a submit: ids in, ids out, and no end but those we name."""
    sampling = submit.sampling
    streams = True
    max_tokens = sampling.max_tokens
    body: dict[str, object] = {}
    if submit.kv_source is not KvSource.LOCAL:
        body["kv_transfer_params"] = kv_transfer_params(submit)
    if submit.kv_source is KvSource.PRODUCE:
        streams = False  # only a whole body has the reference
        max_tokens = 1
    body |= {
        "model": model,
        "prompt": submit.prompt_ids.tolist(),
        "max_tokens": max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "stop_token_ids": sampling.stop_token_ids,
        "ignore_eos": True,  # R1's is among the stop tokens unless the caller wants none
        "stream": streams,
        "return_token_ids": True,
    }
    if streams:
        body["stream_options"] = {"include_usage": True}
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.logprobs is not None:
        body |= {"logprobs": sampling.logprobs, "return_tokens_as_token_ids": True}
    if sampling.grammar is not None:
        body["structured_outputs"] = {"structural_tag": structural_tag(sampling.grammar)}
    if sampling.thinking_budget is not None:
        body["thinking_token_budget"] = sampling.thinking_budget
    if submit.cache_salt:
        body["cache_salt"] = submit.cache_salt
    return msgspec.json.encode(body)


class Details(msgspec.Struct):
    """Of a usage."""

    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """Of a generation, on its last chunk."""

    prompt_tokens_details: Details | None = None

    @property
    def cached_tokens(self) -> int:
        """The prefix hit; 0 too where the server is not told to report it."""
        details = self.prompt_tokens_details
        return 0 if details is None else details.cached_tokens or 0


class Logprobs(msgspec.Struct):
    """One of each for every token."""

    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] = []


class Choice(msgspec.Struct):
    """New output."""

    token_ids: list[int] | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None

    def output(self, sampling: Sampling) -> tuple[list[int], Sequence[TokenLogprob]]:
        """The new ids, without the token that stopped it, and their logprobs if they are wanted."""
        ids = self.token_ids or []
        stopped = self.finish_reason == "stop" and ids and ids[-1] in sampling.stop_token_ids
        ids = ids[:-1] if stopped else ids
        if sampling.logprobs is None or self.logprobs is None:
            return ids, ()
        return ids, [_scored(self.logprobs, at, sampling.logprobs) for at in range(len(ids))]

    def end(self) -> End:
        """What its finish reason says."""
        match self.finish_reason:
            case "stop":
                return End(Finish.STOP)
            case "length":
                return End(Finish.LENGTH)
            case "abort":
                return End(Finish.ABORTED)
            case reason:
                return End(Finish.FAILED, cause=f"the engine ended it with {reason!r}")


class Fault(msgspec.Struct):
    """What went wrong, in the server's words."""

    message: str = ""
    code: int | str | None = None  # an HTTP status


class Chunk(msgspec.Struct):
    """An event of a stream, a whole body, or an error."""

    choices: list[Choice] = []
    usage: Usage | None = None
    kv_transfer_params: KvParams | None = None
    error: Fault | None = None

    @staticmethod
    def decode(data: bytes) -> "Chunk":
        """Raises msgspec.DecodeError."""
        return _decode(data)


_decode = msgspec.json.Decoder(Chunk).decode


def _scored(logprobs: Logprobs, at: int, alternatives: int) -> TokenLogprob:
    of_token = logprobs.token_logprobs[at]
    top = logprobs.top_logprobs[at] if at < len(logprobs.top_logprobs) else None
    best = sorted(
        ((int(name.removeprefix(_ID)), value) for name, value in (top or {}).items()),
        key=lambda found: -found[1],
    )
    return TokenLogprob(of_token if of_token is not None else -9999.0, tuple(best[:alternatives]))
