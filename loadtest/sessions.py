"""An agent's sessions: each turn repeats all before it, answers included, and adds to it."""

import json
import random
from collections.abc import Iterator

from loadtest.engine import Ask
from loadtest.kinds import SessionShape
from loadtest.prompts import Prompter, spoken
from loadtest.stream import StreamReader
from orchestrator.workload import BLOCK_TOKENS, TraceRequest

_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": what,
            "parameters": {
                "type": "object",
                "properties": {argument: {"type": "string"}},
                "required": [argument],
            },
        },
    }
    for name, what, argument in (
        ("search", "Searches the documents, returns passages.", "words"),
        ("read_file", "Returns a file's text.", "path"),
        ("run", "Runs a command, returns what it prints.", "command"),
    )
]
_SYSTEM_ID = 1 << 62  # of the blocks that all sessions begin with


class Session:
    """One session, from turn to turn."""

    def __init__(self, shape: SessionShape, prompter: Prompter, name: str) -> None:
        """`name` makes its text and its length."""
        self._shape = shape
        self._prompter = prompter
        self._name = name
        self._chance = random.Random(f"session {name}")
        self._left = self._chance.randint(1, 2 * shape.turns_mean - 1)
        self._messages: list[dict[str, object]] = []

    def first(self, at_s: float) -> Ask:
        """The first turn."""
        shape = self._shape
        blocks = -(-shape.system_tokens // BLOCK_TOKENS)
        system = TraceRequest(
            0.0, shape.system_tokens, 0, tuple(range(_SYSTEM_ID, _SYSTEM_ID + blocks))
        )
        tools = len(json.dumps(_TOOLS)) // 4  # English and JSON, four bytes a token
        words = max(1, shape.first_tokens - shape.system_tokens - tools)
        self._messages = [
            {"role": "system", "content": self._text(system)},
            {"role": "user", "content": self._text(TraceRequest(0.0, words, 0))},
        ]
        return self._ask(at_s)

    def _ask(self, at_s: float) -> Ask:
        self._left -= 1
        messages = list(self._messages)
        return Ask(
            at_s,
            0,  # not known: the template of tools is the server's
            lambda: self._prompter.conversation(messages, _TOOLS, self._shape.output_tokens),
            self._next if self._left else None,
        )

    def _next(self, reader: StreamReader, now: float) -> Ask:
        self._messages.append(spoken(reader.answer, reader.calls))
        result = self._text(TraceRequest(0.0, self._shape.added_tokens, 0))
        if reader.calls:
            self._messages += [
                {"role": "tool", "tool_call_id": call.id, "content": result if not at else "done"}
                for at, call in enumerate(reader.calls)
            ]
        else:
            self._messages.append({"role": "user", "content": result})
        return self._ask(now + self._chance.expovariate(1 / self._shape.pause_s))

    def _text(self, request: TraceRequest) -> str:
        return self._prompter.text(request, f"{self._name}/{len(self._messages)}").decode()


def session_asks(
    starts: Iterator[TraceRequest], shape: SessionShape, prompter: Prompter, seed: str
) -> Iterator[Ask]:
    """First turns, at the instants given; the others follow from answers."""
    for number, start in enumerate(starts):
        yield Session(shape, prompter, f"{seed}/{number}").first(start.at_s)
