"""What is wrong with a request or with us, as a client hears of it: the official error table."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec


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
    """The account may not use the API."""
    return ApiError(402, "Insufficient Balance", ErrorType.UNKNOWN)


def rate_limited(limit: int) -> ApiError:
    """The account has as many requests open as it may."""
    message = f"Rate limit reached: {limit} requests are open, please try again later"
    return ApiError(429, message, ErrorType.RATE_LIMIT, retry_after_s=1)


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
