"""What is wrong with a request or with us, as a client hears of it: the official error table."""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

import msgspec

from orchestrator.admission import Limit, Refused


class ErrorType(StrEnum):
    """`error.type` of the body."""

    INVALID_REQUEST = "invalid_request_error"
    AUTHENTICATION = "authentication_error"
    UNKNOWN = "unknown_error"
    RATE_LIMIT = "rate_limit_error"
    SERVER = "server_error"
    SERVICE_UNAVAILABLE = "service_unavailable_error"


@dataclass(frozen=True, slots=True)
class ApiError:
    """An answer other than 200: `message` is for the client, and never carries our internals.

    `retry_after_s` is when another try makes sense.
    """

    status: int
    message: str
    type: ErrorType = ErrorType.INVALID_REQUEST
    retry_after_s: int | None = None


def bad_request(message: str) -> ApiError:
    """The request can be read, and asks for what cannot be given."""
    return ApiError(400, message)


def unprocessable(message: str) -> ApiError:
    """The body is JSON, and not a request."""
    return ApiError(422, f"Failed to deserialize the JSON body into the target type: {message}")


def unauthorized(why: str, *, bare: bool = False) -> ApiError:
    """No key, or none that we know; `bare` puts `why` behind a comma, as the official text does."""
    text = f"Authentication Fails, {why}" if bare else f"Authentication Fails ({why})"
    return ApiError(401, text, ErrorType.AUTHENTICATION)


def insufficient_balance() -> ApiError:
    """The tenant may not use the API."""
    return ApiError(402, "Insufficient Balance", ErrorType.UNKNOWN)


def rate_limited(what: str, retry_after_s: int | None) -> ApiError:
    """The tenant has as much as it may."""
    message = f"Rate limit reached: {what}, please try again later"
    return ApiError(429, message, ErrorType.RATE_LIMIT, retry_after_s)


def refused(found: Refused) -> ApiError:
    """A tenant's limit, as its client hears of it."""
    most, again = found.most, found.retry_after_s
    match found.limit:
        case Limit.SUSPENDED | Limit.BUDGET:
            return insufficient_balance()
        case Limit.REQUESTS:
            return rate_limited(f"{most} requests are open", again)
        case Limit.STREAMS:
            return rate_limited(f"{most} streams are open", again)
        case Limit.REQUESTS_PER_MINUTE:
            return rate_limited(f"{most} requests per minute", again)
        case Limit.TOKENS_PER_MINUTE:
            return rate_limited(f"{most} {found.token_class} tokens per minute", again)
        case _:
            assert_never(found.limit)


def overloaded(message: str, retry_after_s: int | None = None) -> ApiError:
    """No room for the request now."""
    return ApiError(503, message, ErrorType.SERVICE_UNAVAILABLE, retry_after_s)


def server_error() -> ApiError:
    """A fault of ours."""
    return ApiError(500, "Internal server error, please try again later", ErrorType.SERVER)


def error_body(error: ApiError) -> bytes:
    """The JSON body of `error`; DeepSeek's `code` is the same for all of them."""
    content = {
        "message": error.message,
        "type": error.type.value,
        "param": None,
        "code": ErrorType.INVALID_REQUEST.value,
    }
    return msgspec.json.encode({"error": content})
