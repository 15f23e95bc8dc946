"""The endpoints that only look: the models there are, and the account's standing."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.gateway.errors import ApiError, error_body
from orchestrator.gateway.keys import Account, Keys
from orchestrator.spec import PUBLISHER, ModelSpec

_PREFIX = f"{PUBLISHER}/"


class AccountApi:
    """`GET /models`, `/models/NAME` and `/user/balance`."""

    def __init__(self, names: Mapping[str, ModelSpec], keys: Keys) -> None:
        self._keys = keys
        created = int(datetime.now(UTC).timestamp())
        self._models = {name: _model(name, model, created) for name, model in names.items()}
        self._listed = [m for name, m in self._models.items() if not name.startswith(_PREFIX)]

    async def models(self, request: Request) -> Response:
        """Every name that a client may use, aliases first, but for those with the publisher."""
        return self._for_key(request, lambda _: _json({"object": "list", "data": self._listed}))

    async def model(self, request: Request) -> Response:
        """One of them."""
        found = self._models.get(request.path_params["name"])
        unknown = ApiError(404, "Model Not Exist")
        return self._for_key(
            request, lambda _: error_response(unknown) if found is None else _json(found)
        )

    async def balance(self, request: Request) -> Response:
        """Nothing is billed here, so the balance is nil, and available unless suspended."""
        return self._for_key(request, _balance)

    def _for_key(self, request: Request, answer: Callable[[Account], Response]) -> Response:
        """The answer to the account that the key proves, or the official refusal."""
        account = self._keys.check(request.headers.get("authorization"))
        return error_response(account) if isinstance(account, ApiError) else answer(account)


def _balance(account: Account) -> Response:
    info = {
        "currency": "USD",
        "total_balance": "0.00",
        "granted_balance": "0.00",
        "topped_up_balance": "0.00",
    }
    return _json({"is_available": not account.suspended, "balance_infos": [info]})


def error_response(error: ApiError) -> Response:
    """`error` as a response in the official shape."""
    return Response(error_body(error), error.status, media_type="application/json")


def _model(name: str, model: ModelSpec, created: int) -> dict[str, object]:
    """DeepSeek sends no `created`, which OpenAI's strict types need; the last two are our own."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "deepseek",
        "thinking": model.profile.thinks,
        "licence": model.profile.licence,
    }


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
