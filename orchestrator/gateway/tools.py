"""The tools of a chat request: their definitions, and the choice among them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from orchestrator.codec import (
    NamedTool,
    ToolChoice,
    ToolDefinition,
    ToolMode,
    strict_schema_fault,
)
from orchestrator.gateway.errors import ApiError, bad_request
from orchestrator.gateway.reading import NULL, read, unreadable

TOOLS_MAX = 128  # https://api-docs.deepseek.com/api/create-chat-completion
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NO_PARAMETERS = '{"type":"object","properties":{}}'


@dataclass(frozen=True, slots=True)
class Tools:
    """What the model is told of tools. `held` is what a grammar must hold it to; None: nothing."""

    definitions: tuple[ToolDefinition, ...] = ()
    held: ToolChoice | None = None


NO_TOOLS = Tools()


class _Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = NULL
    strict: bool | None = None


class _Tool(msgspec.Struct):
    type: str
    function: _Function


class _Named(msgspec.Struct):
    name: str


class _Choice(msgspec.Struct):
    type: str
    function: _Named


_tool = msgspec.json.Decoder(_Tool)
_choice = msgspec.json.Decoder(_Choice)
_any = msgspec.json.Decoder()


@dataclass(frozen=True, slots=True)
class ReadTools:
    """Definitions and choice as they were sent, each by itself well-formed."""

    functions: tuple[ToolDefinition, ...]
    strict: tuple[bool, ...]  # of each function
    schemas: tuple[object, ...]  # its parameters, decoded
    choice: str  # none, auto, required, or `=` and a name


def read_tools(tools: Sequence[msgspec.Raw], choice: msgspec.Raw) -> ReadTools:
    """Raises `Unreadable`. No choice is `auto`."""
    functions, strict, schemas = [], [], []
    for at, data in enumerate(tools):
        path = f"tools[{at}]"
        raw = read(data, _tool, path)
        if raw.type != "function":
            raise unreadable(f"{path}.type", f"unknown variant `{raw.type}`, expected `function`")
        text = bytes(raw.function.parameters).decode()
        schema = read(raw.function.parameters, _any, f"{path}.function.parameters")
        if schema is None:
            text, schema = _NO_PARAMETERS, {}
        if not isinstance(schema, dict):
            raise unreadable(f"{path}.function.parameters", "invalid type, expected an object")
        compact = msgspec.json.format(text, indent=0)
        functions.append(ToolDefinition(raw.function.name, raw.function.description or "", compact))
        strict.append(bool(raw.function.strict))
        schemas.append(schema)
    return ReadTools(tuple(functions), tuple(strict), tuple(schemas), _read_choice(choice))


def _read_choice(data: msgspec.Raw) -> str:
    value = read(data, _any, "tool_choice")
    if value is None:
        return "auto"
    if isinstance(value, str):
        if value not in {"none", "auto", "required"}:
            expected = "expected one of `none`, `auto`, `required`"
            raise unreadable("tool_choice", f"unknown variant `{value}`, {expected}")
        return value
    named = read(data, _choice, "tool_choice")
    if named.type != "function":
        raise unreadable("tool_choice.type", f"unknown variant `{named.type}`")
    return f"={named.function.name}"


def check_tools(asked: ReadTools, *, beta: bool, strict_api: bool) -> ApiError | None:
    """The first thing wrong with the tools as the API has them."""
    if len(asked.functions) > TOOLS_MAX:
        return bad_request(f"Invalid tools value, there may be {TOOLS_MAX} tools at most")
    names = [function.name for function in asked.functions]
    for at, name in enumerate(names):
        if not _NAME.fullmatch(name):
            return bad_request(
                f"Invalid 'tools[{at}].function.name': string does not match pattern. Expected a "
                "string that matches the pattern '^[a-zA-Z0-9_-]{1,64}$'."
            )
    if len(set(names)) != len(names):
        return bad_request("Invalid tools value, each function needs a name of its own")
    if asked.choice.startswith("=") and asked.choice[1:] not in names:
        return bad_request(f"Invalid tool_choice value, there is no tool {asked.choice[1:]}")
    if asked.choice == "required" and not names:
        return bad_request("Invalid tool_choice value, `required` needs tools")
    if any(asked.strict):
        return _check_strict(asked, beta=beta, strict_api=strict_api)
    return None


def _check_strict(asked: ReadTools, *, beta: bool, strict_api: bool) -> ApiError | None:
    """`strict` is a beta feature; elsewhere it is ignored, as unknown fields are."""
    if not beta:
        if strict_api:
            return bad_request(
                "Strict mode is a beta feature, please set base_url to end with /beta (refer to "
                "https://api-docs.deepseek.com/guides/function_calling)."
            )
        return None
    if not all(asked.strict):
        return bad_request("Invalid tools value, with `strict` all functions must set it to true")
    for function, schema in zip(asked.functions, asked.schemas, strict=True):
        if fault := strict_schema_fault(schema):
            return bad_request(f"Invalid schema for function '{function.name}': {fault}")
    return None


def tools_of(asked: ReadTools, *, beta: bool) -> Tools:
    """What the model is told. With the choice `none` it hears of no tool, and so calls none."""
    if not asked.functions or asked.choice == "none":
        return NO_TOOLS
    if asked.choice == "auto":
        held = ToolMode.AUTO if beta and any(asked.strict) else None
        return Tools(asked.functions, held)
    if asked.choice == "required":
        return Tools(asked.functions, ToolMode.REQUIRED)
    return Tools(asked.functions, NamedTool(asked.choice[1:]))
