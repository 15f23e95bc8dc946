"""What a scripted model understands of a prompt: the last question, the tools, where it stands."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from orchestrator.codec import Mark, Tokenizer

Schema = dict[str, object]  # a JSON Schema, parsed

_BLOCK = re.compile(r"```json\n(.*?)\n```\n?", re.DOTALL)
_ZERO_TURN = re.compile(r"User: (.*?)\.?(?=\n(?:User|Tool): | Assistant:)", re.DOTALL)


class Stand(Enum):
    """Where the prompt leaves the model, before anything was drawn."""

    THOUGHT = auto()  # reasoning is open
    ANSWER = auto()  # reasoning was opened and closed
    EITHER = auto()  # nothing is said of reasoning
    MIDDLE = auto()  # between a beginning and an end that are given
    ZERO = auto()  # R1-Zero, whose tags are text
    ZERO_THOUGHT = auto()
    TEXT = auto()  # no marks at all


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the prompt offers."""

    name: str
    description: str
    parameters: Schema


@dataclass(frozen=True, slots=True)
class Reading:
    """A prompt, understood. `drawn` are the ids of the answer that it ends in."""

    stand: Stand
    question: str
    system: str
    tools: tuple[Tool, ...] = ()
    results: tuple[str, ...] = ()  # of tools, given after the question
    drawn: tuple[int, ...] = ()


def read(tokenizer: Tokenizer, prompt_ids: tuple[int, ...]) -> Reading:
    """Depends on the ids alone; takes about a microsecond per id."""
    control = tokenizer.control
    begins = 1 + max(
        last(prompt_ids, mark)
        for mark in (control.assistant, control.end_tool_outputs, control.fim_end)
    )
    if begins == 0:
        return _read_text(tokenizer, prompt_ids)
    asked, said = prompt_ids[:begins], prompt_ids[begins:]
    if asked[-1] == control.fim_end:
        return Reading(Stand.MIDDLE, tokenizer.decode(asked), "", drawn=said)
    stand, drawn = _opening(tokenizer, said)
    user = last(asked, control.user)
    first = asked.index(control.user) if user >= 0 else len(asked)
    system = tokenizer.decode(asked[:first])
    turn = asked[user + 1 :]
    question = tokenizer.decode(turn[: _first(turn, (control.assistant, control.tool_outputs))])
    tools = tools_of(system)
    if user == first and not tools:  # the system's text may stand in the first turn
        tools = tools_of(question)
        if tools:
            *_, block = _BLOCK.finditer(question)
            question = question[block.end() :]
    elif not tools and user >= 0:
        tools = tools_of(tokenizer.decode(asked[first : asked.index(control.assistant)]))
    return Reading(stand, question.strip(), system, tools, _results(tokenizer, turn), drawn)


def tools_of(text: str) -> tuple[Tool, ...]:
    """The tools that a text defines, each in a block of JSON."""
    tools: list[Tool] = []
    for block in _BLOCK.finditer(text):
        try:
            parsed: object = json.loads(block[1])
        except ValueError:
            continue
        function = parsed.get("function", parsed) if isinstance(parsed, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            continue
        parameters = function.get("parameters")
        schema = parameters if isinstance(parameters, dict) else {}
        tools.append(Tool(function["name"], str(function.get("description", "")), schema))
    return tuple(tools)


def last(ids: tuple[int, ...], id_: int | None) -> int:
    """The index of the last `id_`, or -1."""
    return len(ids) - 1 - ids[::-1].index(id_) if id_ in ids else -1


def _first(ids: tuple[int, ...], marks: Iterable[int | None]) -> int:
    return min((ids.index(mark) for mark in marks if mark in ids), default=len(ids))


def _opening(tokenizer: Tokenizer, said: tuple[int, ...]) -> tuple[Stand, tuple[int, ...]]:
    """The stand, and what of `said` was not written by the template.

    What the model opens itself looks the same as what the template opens, and may.
    """
    control = tokenizer.control
    if said[:1] != (control.think,):
        return Stand.EITHER, said
    closed = tuple(tokenizer.assemble((Mark.THINK, "\n\n", Mark.END_THINK, "\n\n")))
    if said[: len(closed)] == closed:
        return Stand.ANSWER, said[len(closed) :]
    opened = tuple(tokenizer.assemble((Mark.THINK, "\n")))
    return Stand.THOUGHT, said[len(opened) :] if said[: len(opened)] == opened else said[1:]


def _results(tokenizer: Tokenizer, turn: tuple[int, ...]) -> tuple[str, ...]:
    control = tokenizer.control
    results: list[str] = []
    if control.tool_output not in turn:
        return ()
    begins = 0
    for at, id_ in enumerate(turn):
        if id_ == control.tool_output:
            begins = at + 1
        elif id_ == control.end_tool_output:
            results.append(tokenizer.decode(turn[begins:at]))
    return tuple(results)


def _read_text(tokenizer: Tokenizer, prompt_ids: tuple[int, ...]) -> Reading:
    text = tokenizer.decode(prompt_ids)
    head, mark, said = text.rpartition(" Assistant:")
    questions = _ZERO_TURN.findall(head + mark)
    if not mark or not questions:
        return Reading(Stand.TEXT, text, "", drawn=prompt_ids)
    stand = Stand.ZERO_THOUGHT if said.startswith(" <think>") else Stand.ZERO
    return Reading(stand, questions[-1].strip(), "", drawn=prompt_ids)
