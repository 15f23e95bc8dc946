"""What the engine's structured output needs for tool calls: xgrammar's structural tags, as JSON.

The grammar applies after the reasoning only, which is the engine's to see to. The marks are given
as ids, not as strings: spelled in ordinary tokens they would satisfy a string, but are no call to
`Splitter`; and a string could not be resolved where vLLM checks a request, without a tokenizer.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.codec.messages import ToolDefinition
from orchestrator.codec.tokenizer import Mark, Tokenizer

_Format = dict[str, object]
# They may not stand in a string of the arguments either: a call's end would break them off.
_MARKS = [
    str(mark)
    for mark in (
        Mark.TOOL_CALLS,
        Mark.END_TOOL_CALLS,
        Mark.TOOL_CALL,
        Mark.END_TOOL_CALL,
        Mark.TOOL_SEP,
    )
]
# Between two words of JSON; a level of indentation takes two or four. Without a bound a model that
# has lost its way writes line breaks until its tokens end.
JSON_BLANKS_MAX = 64
_LENGTHS = ('"minLength"', '"maxLength"')


class ToolMode(StrEnum):
    """Whether the model must call a function."""

    AUTO = "auto"  # it may; only its calls are bound to the schema, for strict tools
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class NamedTool:
    """The model must call this function, once."""

    name: str


ToolChoice = ToolMode | NamedTool


def tool_grammar(tokenizer: Tokenizer, tools: Sequence[ToolDefinition], choice: ToolChoice) -> str:
    """A structural tag that binds the answer to R1's form of tool calls and the tools' schemas.

    The tokenizer must have `has_tools`, `tools` must not be empty, and a named function must be
    among them. Raises `ValueError` if some `parameters` are no JSON.
    """
    assert tokenizer.has_tools
    if isinstance(choice, NamedTool):
        tools = [tool for tool in tools if tool.name == choice.name]
    assert tools
    calls = {
        "type": "tags_with_separator",
        "tags": [_call(tokenizer, tool) for tool in tools],
        "separator": "\n",
        "at_least_one": True,
        "stop_after_first": isinstance(choice, NamedTool),
    }
    block = _tag(tokenizer, Mark.TOOL_CALLS, calls, Mark.END_TOOL_CALLS)
    if choice is ToolMode.AUTO:
        control = tokenizer.control
        block = {
            "type": "token_triggered_tags",
            "trigger_tokens": [control.tool_calls],
            "tags": [block],
            "exclude_tokens": [control.think, control.end_think],
            "stop_after_first": False,
        }
    return json.dumps({"type": "structural_tag", "format": block}, ensure_ascii=False)


def _call(tokenizer: Tokenizer, tool: ToolDefinition) -> _Format:
    arguments: _Format = {
        "type": "json_schema",
        "json_schema": json.loads(tool.parameters),
        "max_whitespace_cnt": JSON_BLANKS_MAX,
    }
    # xgrammar drops bounds of length where it excludes text, and those are the client's wish.
    if not any(length in tool.parameters for length in _LENGTHS):
        arguments["excludes"] = _MARKS
    body = [
        _text("function"),
        _token(tokenizer, Mark.TOOL_SEP),
        _text(f"{tool.name}\n```json\n"),
        arguments,
        _text("\n```"),
    ]
    content: _Format = {"type": "sequence", "elements": body}
    return _tag(tokenizer, Mark.TOOL_CALL, content, Mark.END_TOOL_CALL)


def _tag(tokenizer: Tokenizer, begin: Mark, content: _Format, end: Mark) -> _Format:
    return {
        "type": "tag",
        "begin": _token(tokenizer, begin),
        "content": content,
        "end": _token(tokenizer, end),
    }


def _token(tokenizer: Tokenizer, mark: Mark) -> _Format:
    (id_,) = tokenizer.assemble((mark,))
    return {"type": "token", "token": id_}


def _text(value: str) -> _Format:
    return {"type": "const_string", "value": value}
