"""JSON of a client, read into structs; what cannot be read becomes the official refusal."""

import re
from typing import TypeVar

import msgspec

from orchestrator.gateway.errors import ApiError, bad_request, unprocessable

Read = TypeVar("Read")

NULL = msgspec.Raw(b"null")  # the default of a field that is read later: Raw takes in null itself

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read(data: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[Read], path: str = "") -> Read:
    """The struct in `data`; raises `Unreadable`. `path` is where `data` stands in the body."""
    try:
        return decoder.decode(data)
    except _UNREADABLE as error:
        raise Unreadable(_refusal(error, path)) from error


def read_whole(body: bytes, decoder: msgspec.json.Decoder[Read]) -> Read:
    """The struct that is the whole body; raises `Unreadable`.

    All of it must be UTF-8, also what the decoder skips or leaves raw.
    """
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise Unreadable(_refusal(error, "")) from error
    return read(body, decoder)


class Unreadable(Exception):
    """Carries the refusal out of nested readers."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


def unreadable(path: str, what: str) -> Unreadable:
    """A value at `path` that the types allow and the API does not."""
    return Unreadable(unprocessable(f"{path}: {what}" if path else what))


def _refusal(error: Exception, path: str) -> ApiError:
    """What the decoder says, the place first, as DeepSeek has it."""
    if not isinstance(error, msgspec.ValidationError):
        return bad_request(f"Failed to parse the request body as JSON: {error}")
    text, _, place = str(error).partition(" - at `$")
    path = f"{path}{place.rstrip('`')}".strip(".")
    text = re.sub(r"Object missing required (field `\w+`)", r"missing \1", text)
    return unprocessable(f"{path}: {text}" if path else text)
