"""`POST /beta/completions`: fill in the middle, by chat models only."""

from collections.abc import Mapping, Sequence
from functools import partial

import msgspec
from typing_extensions import override

from orchestrator.codec import AnswerText, Piece, Splitter, render_fim
from orchestrator.gateway.chat_request import check_context
from orchestrator.gateway.drawing import (
    DrawingFields,
    check_drawing,
    check_stream,
    drawing_of,
    sampling_of,
)
from orchestrator.gateway.endpoint import Prepared, rendered
from orchestrator.gateway.errors import ApiError, bad_request
from orchestrator.gateway.models import Models
from orchestrator.gateway.reading import Unreadable, read_whole
from orchestrator.gateway.rules import Limits, limits_of, rules_of
from orchestrator.gateway.wire import (
    DONE,
    FinishReason,
    Reply,
    ReplyHead,
    ScoredToken,
    Usage,
    to_json,
)
from orchestrator.spec import ModelSpec

MAX_TOKENS = 4_096  # https://api-docs.deepseek.com/guides/fim_completion
LOGPROBS_MAX = 20


class _Body(DrawingFields):
    model: str
    prompt: str
    suffix: str | None = None
    echo: bool | None = None
    logprobs: int | None = None


_body = msgspec.json.Decoder(_Body)


class Fim:
    """Reads plain completion requests."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._rules = rules_of(models.spec.api)

    async def __call__(self, body: bytes) -> Prepared | ApiError:
        """The prepared request, or the first thing wrong with it."""
        try:
            raw = read_whole(body, _body)
        except Unreadable as refusal:
            return refusal.error
        model = _model_of(raw, self._models.names)
        if isinstance(model, ApiError):
            return model
        served = self._models.served(model)
        if not served.tokenizer.has_fim:
            return bad_request(f"{raw.model} does not support fill in the middle")
        limits = _limits(limits_of(model, self._rules))
        if error := check_drawing(raw, limits) or _check(raw):
            return error
        render = partial(render_fim, served.tokenizer, raw.prompt, raw.suffix or "")
        prompt = await rendered(render, len(body))
        drawing = drawing_of(raw, limits, raw.logprobs)
        if error := check_context(len(prompt.ids), drawing.max_tokens, limits):
            return error
        return Prepared(
            served,
            prompt,
            sampling_of(
                drawing,
                model.profile,
                honor_sampling=self._models.spec.api.honor_sampling,
                max_tokens=drawing.max_tokens,
                stop_token_ids=(served.tokenizer.control.end_of_sentence,),
            ),
            Splitter(served.tokenizer, begin=prompt.begin, stop=drawing.stop, tools=False),
            partial(FimReply, stream=bool(raw.stream), echo=raw.prompt if raw.echo else ""),
            raw.model,
            raw.user_id or "",
            streamed=bool(raw.stream),
        )


def _model_of(raw: _Body, names: Mapping[str, ModelSpec]) -> ModelSpec | ApiError:
    model = names.get(raw.model)
    if model is None:
        return bad_request("Model Not Exist")
    if model.profile.thinks:
        return bad_request(f"{raw.model} does not support fill in the middle")
    return model


def _limits(limits: Limits) -> Limits:
    most = min(MAX_TOKENS, limits.max_tokens_max)
    return Limits(limits.context_tokens, min(most, limits.max_tokens_default), most)


def _check(raw: _Body) -> ApiError | None:
    if error := check_stream(raw):
        return error
    if raw.logprobs is not None and not 0 <= raw.logprobs <= LOGPROBS_MAX:
        valid = f"[0, {LOGPROBS_MAX}]"
        return bad_request(f"Invalid logprobs value, the valid range of logprobs is {valid}")
    return None


class FimReply(Reply):
    """A plain completion, streamed or as one body."""

    def __init__(self, head: ReplyHead, *, stream: bool, echo: str) -> None:
        self._head = head
        self._stream = stream
        self._held = echo  # text not sent yet: all of it if there is no stream
        self._offset = len(echo)  # characters of text before the next token
        self._scored: list[ScoredToken] = []
        self.content_type = "text/event-stream; charset=utf-8" if stream else "application/json"
        self.keep_alive = b": keep-alive\n\n" if stream else b"\n"

    @override
    def push(self, pieces: Sequence[Piece], scored: Sequence[ScoredToken] = ()) -> bytes:
        """One chunk for all the pieces of a stream."""
        self._held += "".join(piece.text for piece in pieces if isinstance(piece, AnswerText))
        self._scored += scored
        if not self._stream or not self._held:
            return b""
        return self._event(None, None)

    @override
    def end(self, reason: FinishReason, usage: Usage) -> bytes:
        """The last chunk and the end of the stream, or the whole body."""
        if self._stream:
            return self._event(reason, usage) + DONE
        return to_json(self._completion(reason, usage))

    def _event(self, reason: FinishReason | None, usage: Usage | None) -> bytes:
        return b"data: %b\n\n" % to_json(self._completion(reason, usage))

    def _completion(self, reason: FinishReason | None, usage: Usage | None) -> dict[str, object]:
        text, self._held = self._held, ""
        choice = {
            "text": text,
            "index": 0,
            "logprobs": self._logprobs(),
            "finish_reason": None if reason is None else reason.value,
        }
        return {
            "id": self._head.id,
            "object": "text_completion",
            "created": self._head.created,
            "model": self._head.model,
            "choices": [choice],
            "usage": None if usage is None else msgspec.Raw(usage.to_json()),
            "system_fingerprint": self._head.system_fingerprint,
        }

    def _logprobs(self) -> dict[str, object] | None:
        """The form of plain completions: parallel lists."""
        scored, self._scored = self._scored, []
        if not scored:
            return None
        texts = [token.data.decode("utf-8", "replace") for token in scored]
        offsets = []
        for text in texts:
            offsets.append(self._offset)
            self._offset += len(text)
        return {
            "text_offset": offsets,
            "token_logprobs": [max(token.logprob, -9999.0) for token in scored],
            "tokens": texts,
            "top_logprobs": [
                {data.decode("utf-8", "replace"): max(value, -9999.0) for data, value in token.top}
                for token in scored
            ],
        }
