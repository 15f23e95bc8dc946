"""The endpoints that only look: the models there are, and the tenant's standing."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.gateway.errors import ApiError, error_body
from orchestrator.gateway.tenants import Balance, Tenants
from orchestrator.spec import PUBLISHER, ModelSpec

_PREFIX = f"{PUBLISHER}/"


class AccountApi:
    """`GET /models`, `/models/NAME` and `/user/balance`."""

    def __init__(self, names: Mapping[str, ModelSpec], tenants: Tenants) -> None:
        self._tenants = tenants
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
        """What is left of the tenant's budget, and whether it may use the API."""
        return self._for_key(request, lambda tenant: _balance(self._tenants.balance(tenant)))

    def _for_key(self, request: Request, answer: Callable[[str], Response]) -> Response:
        """The answer to the tenant that the key proves, or the official refusal."""
        tenant = self._tenants.check(request.headers.get("authorization"))
        return error_response(tenant) if isinstance(tenant, ApiError) else answer(tenant)


def _balance(balance: Balance) -> Response:
    info = {
        "currency": balance.currency,
        "total_balance": balance.total,
        "granted_balance": balance.granted,
        "topped_up_balance": balance.topped_up,
    }
    return _json({"is_available": balance.available, "balance_infos": [info]})


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
