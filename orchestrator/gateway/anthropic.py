"""`POST /anthropic/v1/messages` and `/count_tokens` below it, over what chat requests run on."""

from dataclasses import replace
from functools import partial

from starlette.types import Scope

from orchestrator.gateway.anthropic_request import parse_count, parse_create
from orchestrator.gateway.anthropic_wire import Facts, MessageReply, MessageStream, error_of
from orchestrator.gateway.chat import Chat
from orchestrator.gateway.endpoint import Prepared
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.http import Dialect, header
from orchestrator.gateway.models import Models
from orchestrator.gateway.rules import rules_of
from orchestrator.gateway.wire import to_json

ANTHROPIC_PREFIX = "/anthropic"


class Messages:
    """Reads requests for a message."""

    def __init__(self, models: Models) -> None:
        self._names = models.names
        self._rules = rules_of(models.spec.api)
        self._chat = Chat(models, beta=True)

    async def __call__(self, body: bytes) -> Prepared | ApiError:
        """The prepared request, or the first thing wrong with it."""
        asked = parse_create(body, self._names, self._rules)
        if isinstance(asked, ApiError):
            return asked
        prepared = await self._chat.prepare(asked, len(body))
        if isinstance(prepared, ApiError):
            return prepared
        facts = Facts(len(prepared.prompt.ids), asked.drawing.stop, prepared.splitter)
        reply = partial(MessageStream if asked.stream else MessageReply, facts=facts)
        return replace(prepared, reply=reply)

    async def count(self, body: bytes) -> bytes | ApiError:
        """The answer to a request for the length of a prompt; one that cannot fit is refused."""
        asked = parse_count(body, self._names, self._rules)
        if isinstance(asked, ApiError):
            return asked
        prepared = await self._chat.prepare(asked, len(body))
        if isinstance(prepared, ApiError):
            return prepared
        return to_json({"input_tokens": len(prepared.prompt.ids)})


def _authorization(scope: Scope) -> str | None:
    key = header(scope, b"x-api-key")
    return header(scope, b"authorization") if key is None else f"Bearer {key}"


ANTHROPIC = Dialect(_authorization, error_of)
