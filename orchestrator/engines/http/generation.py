"""One generation on an engine's HTTP server: its events become ids and one end."""

from typing import Protocol

import msgspec
from typing_extensions import override

from orchestrator.core import KvSource
from orchestrator.engines.engine import End, Finish, Submit, TokenLogprob
from orchestrator.engines.http.completion import Chunk
from orchestrator.engines.http.upstream import Exchange, Headers

ERROR_CHARS = 300


class Host(Protocol):
    """What a generation tells."""

    def tokens(self, request_id: str, ids: list[int], logprobs: list[TokenLogprob]) -> None:
        """More ids; never empty."""
        ...

    def finish(self, request_id: str, end: End) -> None:
        """The one end."""
        ...


class Generation(Exchange):
    """One generation: the server's events become ids and one end."""

    def __init__(self, host: Host, submit: Submit) -> None:
        self.submit = submit
        self._host = host
        self._status = 0
        self._held = b""  # of an event or an error
        self._cached_tokens = 0
        self._end: End | None = None

    @override
    def on_head(self, status: int, headers: Headers) -> None:
        self._status = status

    @override
    def on_body(self, data: bytes) -> None:
        self._held += data
        if self._status != 200 or self.submit.kv_source is KvSource.PRODUCE:
            return  # one body, read at its end
        *events, self._held = self._held.split(b"\n\n")
        ids: list[int] = []
        logprobs: list[TokenLogprob] = []
        for event in events:
            if event.startswith(b"data: {"):
                self._take(event[6:], ids, logprobs)
        if ids:
            self._host.tokens(self.submit.request_id, ids, logprobs)

    def _take(self, event: bytes, ids: list[int], logprobs: list[TokenLogprob]) -> None:
        try:
            chunk = Chunk.decode(event)
        except msgspec.DecodeError as error:
            self._end = End(Finish.FAILED, cause=f"the engine sent an event that is none: {error}")
            return
        if chunk.error is not None:
            # vLLM looks at a stream's prompt only once it has answered 200
            finish = Finish.REFUSED if _is_refusal(chunk.error.code) else Finish.FAILED
            self._end = End(finish, cause=chunk.error.message[:ERROR_CHARS])
        if chunk.usage is not None:
            self._cached_tokens = chunk.usage.cached_tokens
        for choice in chunk.choices:
            new, scored = choice.output(self.submit.sampling)
            ids += new
            logprobs += scored
            if choice.finish_reason is not None:
                self._end = choice.end()

    @override
    def on_end(self, data: bytes) -> None:
        self.on_body(data)
        request_id = self.submit.request_id
        if self._status != 200:
            self._host.finish(request_id, _refused(self._status, self._held))
            return
        if self.submit.kv_source is KvSource.PRODUCE:
            ids: list[int] = []
            logprobs: list[TokenLogprob] = []
            self._take(self._held, ids, logprobs)
            if self._end is not None and self._end.finish in {Finish.STOP, Finish.LENGTH}:
                if ids:
                    self._host.tokens(request_id, ids, logprobs)
                params = Chunk.decode(self._held).kv_transfer_params
                self._end = End(self._end.finish, kv_params=params)
        end = self._end or End(Finish.FAILED, cause="the engine's answer has no end")
        if end.finish in {Finish.STOP, Finish.LENGTH}:
            end = msgspec.structs.replace(end, cached_tokens=self._cached_tokens)
        self._host.finish(request_id, end)

    @override
    def on_lost(self, cause: str) -> None:
        self._host.finish(self.submit.request_id, End(Finish.LOST, cause=cause))


def _refused(status: int, body: bytes) -> End:
    """What an error of the server says about the request, or about the server."""
    try:
        error = Chunk.decode(body).error
    except msgspec.DecodeError:
        error = None
    told = error.message if error is not None else body.decode("utf-8", "replace")
    cause = f"the engine answered {status}: {' '.join(told.split())[:ERROR_CHARS]}"
    return End(Finish.REFUSED if _is_refusal(status) else Finish.FAILED, cause=cause)


def _is_refusal(status: object) -> bool:
    """Whether it is for what was asked, and would be again."""
    return isinstance(status, int) and 400 <= status < 500 and status not in {408, 409, 429}
