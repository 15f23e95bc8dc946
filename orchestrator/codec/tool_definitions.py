"""The text that tells a model which functions it may call, and how."""

import json
from collections.abc import Sequence

from orchestrator.codec.messages import ToolDefinition
from orchestrator.codec.tokenizer import Mark

_EXAMPLE = 'FUNCTION_NAME\n```json\n{"parameter": "value"}\n```'


def tool_definitions(tools: Sequence[ToolDefinition]) -> tuple[str | Mark, ...]:
    """The instructions, with the form of a call in control tokens, and one JSON block per tool.

    Raises `ValueError` if some `parameters` are no JSON.
    """
    blocks = "".join(f"\n```json\n{_definition(tool)}\n```\n" for tool in tools)
    return (
        "You can call the functions that are listed below. Whenever you need one, write the call "
        "in exactly this form:\n",
        Mark.TOOL_CALLS,
        Mark.TOOL_CALL,
        "function",
        Mark.TOOL_SEP,
        _EXAMPLE,
        Mark.END_TOOL_CALL,
        Mark.END_TOOL_CALLS,
        "\n\nThe arguments are one valid JSON object that fits the parameters of the function. "
        "Several calls stand in one block, each on a new line.\n\n## Functions\n"
        f"{blocks}",
    )


def _definition(tool: ToolDefinition) -> str:
    function: dict[str, object] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = json.loads(tool.parameters)
    return json.dumps({"type": "function", "function": function}, ensure_ascii=False)
