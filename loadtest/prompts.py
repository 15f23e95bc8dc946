"""Prompts with the token counts and the shared beginnings that requests ask for.

A text is made of words that are one token each in R1's vocabulary, so that its length in tokens is
known. The text of a block of 512 tokens is a function of its hash id and the run's salt, and two
different ids differ from their first words on: equal beginnings of ids are equal beginnings of
text, which is what a server's prefix cache sees, and nothing else is.
"""

import json
import random
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

from loadtest.stream import Call
from orchestrator.workload import BLOCK_TOKENS, TraceRequest

_OWN_TOKENS = 64  # of a block that are drawn for its id; the rest is one of `_POOL` texts
_POOL = 64
_CACHED_BLOCKS = 1024  # of 3 kB


@cache
def words() -> tuple[bytes, ...]:
    """Each with the space before it, which belongs to its token."""
    text = files("loadtest").joinpath("words.txt").read_text(encoding="ascii")
    return tuple(f" {word}".encode() for word in text.split())


class Prompter:
    """Makes bodies of requests; the same salt gives the same text for the same ids."""

    def __init__(self, model: str, salt: str, overhead_tokens: int = 0) -> None:
        """`overhead_tokens` is what the server's template adds to one message."""
        self._salt = salt
        self._overhead = overhead_tokens
        self._words = words()
        self._blocks: OrderedDict[object, bytes] = OrderedDict()
        chance = random.Random(f"{salt}/pool")
        self._pool = [
            b"".join(chance.choices(self._words, k=BLOCK_TOKENS - _OWN_TOKENS))
            for _ in range(_POOL)
        ]
        self._head = b'{"model":%b,"stream":true,"stream_options":{"include_usage":true}' % (
            json.dumps(model).encode()
        )

    def body(self, request: TraceRequest, name: str) -> bytes:
        """A completion of one message; `name` tells prompts without hash ids apart."""
        text = self.text(request, name)
        return b'%b,"max_tokens":%d,"messages":[{"role":"user","content":"%b"}]}' % (
            self._head,
            max(1, request.output_tokens),
            text,
        )

    def text(self, request: TraceRequest, name: str) -> bytes:
        """The words of a prompt, escaped as JSON has them: they need no escape."""
        tokens = max(1, request.input_tokens - self._overhead)
        ids: Sequence[object] = request.hash_ids
        if not ids:
            ids = [f"{name}/{at}" for at in range(-(-tokens // BLOCK_TOKENS))]
        blocks = [self._block(each) for each in ids[: -(-tokens // BLOCK_TOKENS)]]
        rest = tokens - BLOCK_TOKENS * (len(blocks) - 1)
        if 0 < rest < BLOCK_TOKENS:
            blocks[-1] = b" " + b" ".join(blocks[-1].split(None, rest)[:rest])
        return b"".join(blocks)

    def conversation(
        self, messages: Sequence[Mapping[str, object]], tools: Sequence[object], max_tokens: int
    ) -> bytes:
        """A completion of several messages, with tools if there are any."""
        listed = b',"tools":' + json.dumps(tools).encode() if tools else b""
        return b'%b%b,"max_tokens":%d,"messages":%b}' % (
            self._head,
            listed,
            max_tokens,
            json.dumps(messages).encode(),
        )

    def _block(self, hash_id: object) -> bytes:
        block = self._blocks.get(hash_id)
        if block is None:
            chance = random.Random(f"{self._salt}/{hash_id}")
            block = b"".join(chance.choices(self._words, k=_OWN_TOKENS)) + chance.choice(self._pool)
            self._blocks[hash_id] = block
            if len(self._blocks) > _CACHED_BLOCKS:
                self._blocks.popitem(last=False)
        return block


def spoken(answer: str, calls: Sequence[Call]) -> dict[str, object]:
    """An answer as the next turn repeats it: without its thought, as R1's template has it."""
    message: dict[str, object] = {"role": "assistant", "content": answer}
    if calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in calls
        ]
    return message
