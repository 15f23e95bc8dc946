"""What operators ask a gateway: `r1-serve doctor` and `r1-serve why`.

    POST /operator/doctor?run=NAME    a round of the doctor; the same again for the same name
    GET  /operator/doctor             the last round
    GET  /operator/why/REQUEST_ID     why a request went the way it did

Where there are keys, the tenant of the key must be an operator (`operator: true` in the tenants
file); where there are none, whoever reaches the API may ask.
"""

import asyncio

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from orchestrator.gateway.account import error_response
from orchestrator.gateway.doctor import Doctor
from orchestrator.gateway.errors import ApiError, ErrorType
from orchestrator.gateway.models import Models
from orchestrator.gateway.tenants import Tenants
from orchestrator.gateway.why import why

PREFIX = "/operator"
ID_CHARACTERS_MAX = 128
_GATEWAY = "x-r1-gateway"  # of each answer: who gave it, and how many there are to be


def operator_routes(models: Models, tenants: Tenants, doctor: Doctor) -> list[BaseRoute]:
    """The routes."""
    api = _OperatorApi(models, tenants, doctor)
    return [
        Route(f"{PREFIX}/doctor", api.examine, methods=["POST"]),
        Route(f"{PREFIX}/doctor", api.last, methods=["GET"]),
        Route(f"{PREFIX}/why/{{request_id}}", api.why, methods=["GET"]),
    ]


class _OperatorApi:
    def __init__(self, models: Models, tenants: Tenants, doctor: Doctor) -> None:
        self._models = models
        self._tenants = tenants
        self._doctor = doctor

    async def examine(self, request: Request) -> Response:
        """A round, now."""
        if (error := self._refusal(request)) is not None:
            return self._error(error)
        return self._answer(await self._doctor.round(request.query_params.get("run", "")[:64]))

    async def last(self, request: Request) -> Response:
        """What the last round found."""
        if (error := self._refusal(request)) is not None:
            return self._error(error)
        if self._doctor.last is None:
            return self._error(ApiError(404, "There was no round yet"))
        return self._answer(self._doctor.last)

    async def why(self, request: Request) -> Response:
        """The story of one request."""
        if (error := self._refusal(request)) is not None:
            return self._error(error)
        request_id = request.path_params["request_id"][:ID_CHARACTERS_MAX]
        now = asyncio.get_running_loop().time()
        for model in self._models.spec.models:
            stories = self._models.served(model).service.stories
            if (story := stories.get(request_id)) is not None:
                return self._answer(why(story, model.name, self._models.gateway_id, now))
            if stories.forgot(request_id):
                return self._error(ApiError(410, "The request was forgotten"))
            if not stories.wants(request_id):
                return self._error(ApiError(410, "The request is not among the sampled ones"))
        return self._error(ApiError(404, "The request is unknown here"))

    def _refusal(self, request: Request) -> ApiError | None:
        tenant = self._tenants.check(request.headers.get("authorization"))
        if isinstance(tenant, ApiError):
            return tenant
        if self._models.spec.api.keys_path is not None and not self._tenants.of(tenant).operator:
            text = "This key is no operator's: set `operator: true` for its tenant"
            return ApiError(403, text, ErrorType.AUTHENTICATION)
        return None

    def _answer(self, value: msgspec.Struct) -> Response:
        body = msgspec.json.encode(value)
        return Response(body, headers=self._headers, media_type="application/json")

    def _error(self, error: ApiError) -> Response:
        response = error_response(error)
        response.headers.update(self._headers)
        return response

    @property
    def _headers(self) -> dict[str, str]:
        replicas = self._models.spec.gateway.replicas
        return {_GATEWAY: f"{self._models.gateway_id} of {replicas}"}
