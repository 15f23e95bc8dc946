"""What is wrong with a request or with us, as a client hears of it."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec


class ErrorType(StrEnum):
    """`error.type` of the body."""

    INVALID_REQUEST = "invalid_request_error"
    SERVICE_UNAVAILABLE = "service_unavailable_error"


@dataclass(frozen=True, slots=True)
class ApiError:
    """An answer other than 200: `message` is for the client, and never carries our internals."""

    status: int
    message: str
    type: ErrorType = ErrorType.INVALID_REQUEST


def bad_request(message: str) -> ApiError:
    """The request can be read, and asks for what cannot be given."""
    return ApiError(400, message)


def unprocessable(message: str) -> ApiError:
    """The body is JSON, and not a request."""
    return ApiError(422, f"Failed to deserialize the JSON body into the target type: {message}")


def overloaded(message: str) -> ApiError:
    """No room for the request now."""
    return ApiError(503, message, ErrorType.SERVICE_UNAVAILABLE)


def error_body(error: ApiError) -> bytes:
    """The JSON body of `error`; DeepSeek's `code` is the same for all of them."""
    content = {
        "message": error.message,
        "type": error.type.value,
        "param": None,
        "code": ErrorType.INVALID_REQUEST.value,
    }
    return msgspec.json.encode({"error": content})
