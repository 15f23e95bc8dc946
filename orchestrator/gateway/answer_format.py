"""`response_format`: what the answer must be, and the grammar that holds the model to it."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from orchestrator.engines import Grammar, GrammarKind
from orchestrator.gateway.reading import read, unreadable

_TYPES = ("text", "json_object", "json_schema")


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """`schema` is a JSON Schema as JSON text, for the type `json_schema` only."""

    type: str = "text"
    schema: str = ""

    @property
    def json(self) -> bool:
        """Whether the answer must be JSON."""
        return self.type != "text"


class _Schema(msgspec.Struct):
    schema: dict[str, msgspec.Raw]
    name: str | None = None


class _Format(msgspec.Struct):
    type: str
    json_schema: _Schema | None = None


_format = msgspec.json.Decoder(_Format)
_any = msgspec.json.Decoder()
_NULL = b"null"


def read_format(data: msgspec.Raw) -> AnswerFormat:
    """Raises `Unreadable`."""
    if bytes(data) == _NULL:
        return AnswerFormat()
    raw = read(data, _format, "response_format")
    if raw.type not in _TYPES:
        expected = ", ".join(f"`{kind}`" for kind in _TYPES)
        what = f"unknown variant `{raw.type}`, expected one of {expected}"
        raise unreadable("response_format.type", what)
    if raw.type != "json_schema":
        return AnswerFormat(raw.type)
    if raw.json_schema is None:
        raise unreadable("response_format", "missing field `json_schema`")
    text = msgspec.json.encode(raw.json_schema.schema)
    read(text, _any, "response_format.json_schema.schema")  # what is left raw has not been checked
    return AnswerFormat(raw.type, text.decode())


def check_format(asked: AnswerFormat, texts: Sequence[str], *, strict: bool) -> str | None:
    """Why the API refuses the format, or None. `texts` are those of the messages."""
    if asked.type == "json_schema" and strict:
        return "This response_format type is unavailable now"
    if asked.type == "json_object" and not any("json" in text.lower() for text in texts):
        return (
            "Prompt must contain the word 'json' in some form to use 'response_format' of type "
            "'json_object'."
        )
    return None


def grammar_of(asked: AnswerFormat) -> Grammar | None:
    """What the engine must hold the answer to."""
    match asked.type:
        case "json_object":
            return Grammar(GrammarKind.JSON_OBJECT)
        case "json_schema":
            return Grammar(GrammarKind.JSON_SCHEMA, asked.schema)
        case _:
            return None
