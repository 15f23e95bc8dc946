"""A model without weights for the fake engine: reads prompts, follows tools, JSON and commands.

It behaves as a good model of R1's kind would, so that clients and their conformance suites can be
run against the whole stack. Tests steer it by commands in the last question:

    SAY: text        answers exactly the text, which is all that follows
    RAW: text        writes exactly that, no thought before it; marks such as </think> are marks
    THINK n          thinks n tokens
    LONG n           answers n tokens
    EMPTY            ends inside the thought
    SKIP             closes an open thought at once, or opens none
    RETHINK          opens a thought itself, even if the prompt has opened it
    TOOL-IN-THINK    calls a tool inside the thought, without closing it
    BAD-JSON         calls a tool with arguments that are no JSON
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from orchestrator.codec import Mark, Tokenizer
from orchestrator.engines.engine import Grammar, GrammarKind, Submit
from orchestrator.engines.scripted_json import any_object, arguments, has_a, instance, wanted_kind
from orchestrator.engines.scripted_prompt import Reading, Stand, Tool, last, read

Part = str | Mark

_TEXT_COMMAND = re.compile(r"(?:^|\s)(SAY|RAW): (.*)", re.DOTALL)
_COUNT_COMMAND = re.compile(r"\b(THINK|LONG) (\d+)\b")
_COMMAND = re.compile(r"(?<![\w-])(EMPTY|SKIP|RETHINK|TOOL-IN-THINK|BAD-JSON)(?![\w-])")
_MARKS = re.compile("(" + "|".join(re.escape(mark) for mark in Mark) + ")")
_GREETING = re.compile(
    r"(?:hi|hello|hey|good (?:morning|day|evening)|how are you|thanks|thank you|你好|您好)\W*",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]+")
_FILLING = (" step", " by", " step", " we", " look", " at", " the", " question", " again", " and")
_FENCE = "\n```json\n"
_QUESTION_CHARS = 4000  # at its end, where commands are looked for
_TOKENS_MAX = 200_000  # that a command may ask for
_QUOTE_CHARS = 200
_NO_TOOL = Tool("lookup", "", {"type": "object", "properties": {"query": {"type": "string"}}})


@dataclass(frozen=True, slots=True)
class _Commands:
    question: str  # without them, but for a text to say or write
    say: str | None
    raw: str | None
    think_tokens: int | None
    answer_tokens: int | None
    words: frozenset[str]


class ScriptedModel:
    """An author for `FakeEngine`: the ids that follow from a submit, ending in the end of sentence.

    A pure function of the submit. A prompt that ends in ids drawn before is continued from there;
    one that ends in the beginning of another answer gets ours behind it.
    """

    def __init__(self, tokenizer: Tokenizer, *, opens_thoughts: bool = False) -> None:
        """`opens_thoughts`: thinks even if the prompt does not open the reasoning, as R1-0528."""
        self._tokenizer = tokenizer
        self._opens_thoughts = opens_thoughts

    def __call__(self, submit: Submit) -> Sequence[int]:
        reading = read(self._tokenizer, tuple(submit.prompt_ids))
        commands = _commands(reading.question)
        reading = replace(reading, question=commands.question)
        parts = self._parts(reading, commands, submit.sampling.grammar)
        script = (*self._tokenizer.assemble(parts), self._tokenizer.control.end_of_sentence)
        return self._rest(script, reading.drawn)

    def _parts(
        self, reading: Reading, commands: _Commands, grammar: Grammar | None
    ) -> tuple[Part, ...]:
        """All that the model writes, from where the template ends."""
        if commands.raw is not None:
            marks = _MARKS.split(commands.raw)
            return tuple(Mark(text) if at % 2 else text for at, text in enumerate(marks))
        match reading.stand:
            case Stand.MIDDLE:
                return (commands.say or "\n    return result\n",)
            case Stand.TEXT:
                return (commands.say or " and so it goes on.",)
            case Stand.ZERO | Stand.ZERO_THOUGHT:
                answer = "".join(_answer(reading, commands, None))
                opening = " <think>" if reading.stand is Stand.ZERO else ""
                thought = _thought(reading, commands)
                return (f"{opening} {thought} </think> <answer> {answer} </answer>",)
            case Stand.THOUGHT | Stand.ANSWER | Stand.EITHER:
                thought_parts = self._thought_parts(reading, commands)
                if "EMPTY" in commands.words:
                    return thought_parts[:-3] if thought_parts else ()
                if "TOOL-IN-THINK" in commands.words:
                    return (*thought_parts[:-3], *_calls(_tool_calls(reading, reading.tools)))
                return (*thought_parts, *_answer(reading, commands, grammar))

    def _thought_parts(self, reading: Reading, commands: _Commands) -> tuple[Part, ...]:
        """The thought and, as the last three parts, its end; empty if the model does not think."""
        ending: tuple[Part, ...] = ("\n", Mark.END_THINK, "\n\n")
        is_open = reading.stand is Stand.THOUGHT
        if "SKIP" in commands.words:
            return ending if is_open else ()
        thought = (_thought(reading, commands), *ending)
        if "RETHINK" in commands.words or (
            reading.stand is Stand.EITHER and self._opens_thoughts and not reading.results
        ):
            return (Mark.THINK, "\n", *thought)
        return thought if is_open else ()

    def _rest(self, script: tuple[int, ...], drawn: tuple[int, ...]) -> tuple[int, ...]:
        """What is left of the script; the end of sentence if nothing is."""
        control = self._tokenizer.control
        opening = len(self._tokenizer.assemble((Mark.THINK, "\n")))
        for at in (0, opening) if script[0] == control.think else (0,):
            if script[at : at + len(drawn)] == drawn:
                return script[at + len(drawn) :] or script[-1:]
        closed = last(drawn, control.end_think)
        if closed < 0:
            return script[_overlap(drawn, script) :] or script[-1:]
        # The thought was cut short by a budget, or is not ours: the answer goes on.
        said = drawn[closed + 1 :]
        answer = script[last(script, control.end_think) + 1 :]
        if answer[: len(said)] != said:
            lead = tuple(self._tokenizer.encode("\n\n"))
            answer = answer[len(lead) :] if answer[: len(lead)] == lead else answer
            said = said[len(said) - _overlap(said, answer) :]
        return answer[len(said) :] or script[-1:]


def _overlap(drawn: tuple[int, ...], script: tuple[int, ...]) -> int:
    """The most ids at the end of `drawn` that `script` begins with."""
    for at in range(max(0, len(drawn) - len(script)), len(drawn)):
        if drawn[at] == script[0] and drawn[at:] == script[: len(drawn) - at]:
            return len(drawn) - at
    return 0


def _commands(question: str) -> _Commands:
    text = _TEXT_COMMAND.search(question) if "SAY: " in question or "RAW: " in question else None
    before = question[: text.start()] if text else question
    long, near = before[:-_QUESTION_CHARS], before[-_QUESTION_CHARS:]
    counts = {name: min(int(n), _TOKENS_MAX) for name, n in _COUNT_COMMAND.findall(near)}
    rest = long + _COMMAND.sub("", _COUNT_COMMAND.sub("", near)).strip()
    return _Commands(
        question=f"{rest} {text[0].strip()}".strip() if text else rest,
        say=text[2] if text and text[1] == "SAY" else None,
        raw=text[2] if text and text[1] == "RAW" else None,
        think_tokens=counts.get("THINK"),
        answer_tokens=counts.get("LONG"),
        words=frozenset(_COMMAND.findall(near)),
    )


def _thought(reading: Reading, commands: _Commands) -> str:
    if commands.think_tokens is not None:
        return _filling(commands.think_tokens)
    about = f"The user says “{_quoted(reading.question)}”."
    if reading.results:
        return f"{about} The tools have answered — so can I. 好的。"
    return f"{about} 好的 — that is easy; naïve, but it will do 🙂."


def _answer(reading: Reading, commands: _Commands, grammar: Grammar | None) -> tuple[Part, ...]:
    question = reading.question
    if grammar is not None and (constrained := _constrained(reading, commands, grammar)):
        return constrained
    if commands.say is not None:
        return (commands.say,)
    if commands.answer_tokens is not None:
        return (_filling(commands.answer_tokens),)
    if "BAD-JSON" in commands.words:
        tool = (reading.tools or (_NO_TOOL,))[0]
        return _calls([(tool.name, '{"input": 3, "unfinished')])
    if _calls_now(reading, commands):
        return _calls(_tool_calls(reading, reading.tools))
    if reading.results:
        return (f"The tools say: {'; '.join(reading.results)}. I hope that helps you.",)
    if _GREETING.fullmatch(question):
        return ("Hello! How can I help you today?",)
    return (f"You said: “{_quoted(question)}”. Here is my answer — I hope it helps you. 😊",)


def _constrained(reading: Reading, commands: _Commands, grammar: Grammar) -> tuple[Part, ...]:
    """The answer that a grammar asks for; empty if it leaves the model free."""
    match grammar.kind:
        case GrammarKind.JSON_SCHEMA:
            return (instance(grammar.text, reading.question),)
        case GrammarKind.JSON_OBJECT:
            return (any_object(reading.question, reading.system),)
        case GrammarKind.STRUCTURAL_TAG:
            tag: object = json.loads(grammar.text)
            if _must_call(tag) or _calls_now(reading, commands):
                calls = _tool_calls(reading, _allowed(tag, reading.tools))
                return _calls(calls[:1] if _calls_once(tag) else calls)
            return ()
        case _:
            assert_never(grammar.kind)


def _calls_now(reading: Reading, commands: _Commands) -> bool:
    steered = commands.say is not None or commands.answer_tokens is not None
    greets = _GREETING.fullmatch(reading.question) is not None
    return bool(reading.tools) and not (reading.results or steered or greets)


def _tool_calls(reading: Reading, tools: Sequence[Tool]) -> list[tuple[str, str]]:
    """Names and arguments; several if the question asks for several things of one kind."""
    question = reading.question
    best = _best(tools or (_NO_TOOL,), question)
    kind = wanted_kind(best)
    things = [part for part in re.split(r"\band\b|以及|和", question) if has_a(kind, part)]
    if len(things) < 2:
        return [_call(best, question)]
    # The first part has the words that the others leave out.
    chosen = [_best((best, *(tool for tool in tools if tool != best)), part) for part in things]
    return [_call(tool, part) for tool, part in zip(chosen, things, strict=True)]


def _best(tools: Sequence[Tool], question: str) -> Tool:
    """The tool that shares most words with the question; the first of equals."""
    words = {word.lower() for word in _WORD.findall(question)}

    def shared(tool: Tool) -> int:
        names = {word.lower() for word in _WORD.findall(tool.name)}
        about = {word.lower() for word in _WORD.findall(tool.description)}
        named = 100 * (tool.name in question)
        return named + 4 * len(words & names) + len(words & {w for w in about if len(w) > 3})

    return max(tools, key=shared)


def _call(tool: Tool, question: str) -> tuple[str, str]:
    filled = arguments(tool, question)
    return tool.name, json.dumps(filled, ensure_ascii=False, indent=len(filled) if filled else None)


def _calls(calls: Sequence[tuple[str, str]]) -> tuple[Part, ...]:
    """R1's block of tool calls."""
    parts: list[Part] = [Mark.TOOL_CALLS]
    for at, (name, text) in enumerate(calls):
        if at:
            parts.append("\n")
        parts += [Mark.TOOL_CALL, "function", Mark.TOOL_SEP, f"{name}{_FENCE}{text}\n```"]
        parts.append(Mark.END_TOOL_CALL)
    return (*parts, Mark.END_TOOL_CALLS)


def _must_call(tag: object) -> bool:
    """Whether a structural tag leaves no answer but a call."""
    return not any(
        node.get("type") in ("triggered_tags", "token_triggered_tags")
        and not node.get("at_least_one")
        for node in _nodes(tag)
    )


def _calls_once(tag: object) -> bool:
    return any(
        node.get("type") == "tags_with_separator" and node.get("stop_after_first") is True
        for node in _nodes(tag)
    )


def _allowed(tag: object, tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
    """The tools that a structural tag lets through: a name, the fence, then the arguments."""
    known = {tool.name: tool.description for tool in tools}
    tagged: list[Tool] = []
    name = ""
    for node in _nodes(tag):
        text, schema = node.get("value"), node.get("json_schema")
        if node.get("type") == "const_string" and isinstance(text, str) and _FENCE in text:
            name = text.partition(_FENCE)[0]
        elif name and node.get("type") == "json_schema" and isinstance(schema, dict):
            tagged.append(Tool(name, known.get(name, ""), schema))
            name = ""
    return tuple(tagged) or tools


def _nodes(value: object) -> Iterator[dict[str, object]]:
    """All JSON objects in a value, in its order, outer ones before what they contain."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)


def _filling(tokens: int) -> str:
    times, rest = divmod(tokens, len(_FILLING))
    return "".join(_FILLING) * times + "".join(_FILLING[:rest])


def _quoted(text: str) -> str:
    return text if len(text) <= _QUOTE_CHARS else f"{text[:_QUOTE_CHARS]}…"
