"""R1's tokenizer, in two halves that are kept apart: ordinary text, and control tokens by name.

The half that encodes text is built without the added tokens. Thus no text, whoever typed it, can
become a control token: the only way to one is `ControlIds`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

import msgspec
import tokenizers

from orchestrator.core import SpecError

# What a tokenizer must give back unchanged before we serve with it. transformers 5 replaces
# ByteLevel by Metaspace for some checkpoints, and then spaces, newlines and CJK are lost without
# a word: https://github.com/huggingface/transformers/issues/45488
_ROUND_TRIPS = (
    "two words,  and  more   spaces ",
    "\n\nlines\r\n\tand tabs\n",
    "你好，世界！ こんにちは 안녕하세요",
    'def f(x: int) -> str:\n    return f"{x:>8}"  # ¼ € 😀\n',
    "<think>\n",
)
_CURE = "Serve the tokenizer.json that was published with the checkpoint."


class _AddedToken(msgspec.Struct):
    id: int
    content: str
    special: bool = False


class _Model(msgspec.Struct):
    type: str
    vocab: dict[str, int]


class _File(msgspec.Struct):
    model: _Model
    added_tokens: list[_AddedToken]


class Mark(StrEnum):
    """The tokens that structure a conversation, by their names in `tokenizer.json`.

    A member stands for its token only where a `Mark` is asked for. Joined to other text it is text.
    """

    BEGIN_OF_SENTENCE = "<｜begin▁of▁sentence｜>"
    END_OF_SENTENCE = "<｜end▁of▁sentence｜>"
    USER = "<｜User｜>"
    ASSISTANT = "<｜Assistant｜>"
    THINK = "<think>"
    END_THINK = "</think>"
    TOOL_CALLS = "<｜tool▁calls▁begin｜>"
    END_TOOL_CALLS = "<｜tool▁calls▁end｜>"
    TOOL_CALL = "<｜tool▁call▁begin｜>"
    END_TOOL_CALL = "<｜tool▁call▁end｜>"
    TOOL_SEP = "<｜tool▁sep｜>"
    TOOL_OUTPUTS = "<｜tool▁outputs▁begin｜>"
    END_TOOL_OUTPUTS = "<｜tool▁outputs▁end｜>"
    TOOL_OUTPUT = "<｜tool▁output▁begin｜>"
    END_TOOL_OUTPUT = "<｜tool▁output▁end｜>"
    FIM_BEGIN = "<｜fim▁begin｜>"
    FIM_HOLE = "<｜fim▁hole｜>"
    FIM_END = "<｜fim▁end｜>"


@dataclass(frozen=True, slots=True)
class ControlIds:
    """The id of each `Mark`. None is a mark that the vocabulary has not: there it is text.

    The vocabularies of the distilled models, which are those of Qwen and Llama, have neither the
    marks of tools nor those of filling in the middle.
    """

    begin_of_sentence: int
    end_of_sentence: int
    user: int
    assistant: int
    think: int
    end_think: int
    tool_calls: int | None = None
    end_tool_calls: int | None = None
    tool_call: int | None = None
    end_tool_call: int | None = None
    tool_sep: int | None = None
    tool_outputs: int | None = None
    end_tool_outputs: int | None = None
    tool_output: int | None = None
    end_tool_output: int | None = None
    fim_begin: int | None = None
    fim_hole: int | None = None
    fim_end: int | None = None


_REQUIRED = (
    Mark.BEGIN_OF_SENTENCE,
    Mark.END_OF_SENTENCE,
    Mark.USER,
    Mark.ASSISTANT,
    Mark.THINK,
    Mark.END_THINK,
)
_TOOLS = tuple(mark for mark in Mark if "TOOL" in mark.name)
_FIM = (Mark.FIM_BEGIN, Mark.FIM_HOLE, Mark.FIM_END)


class Tokenizer:
    """Text to ids and back. Made by `load`, then never changed; safe to share between threads."""

    def __init__(
        self, text: tokenizers.Tokenizer, table: list[bytes], marks: Mapping[Mark, int]
    ) -> None:
        self._text = text
        self._table = table
        self._marks = marks
        self.control = ControlIds(**{mark.name.lower(): id_ for mark, id_ in marks.items()})
        self.has_tools = all(mark in marks for mark in _TOOLS)  # calls, and their results
        self.has_fim = all(mark in marks for mark in _FIM)  # filling in the middle

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Reads `tokenizer.json` and checks it; takes about half a second.

        Raises `SpecError` if the file is missing, is no byte-level BPE, lacks a control token that
        every model of the family has, or does not give text back as it was.
        """
        path = directory / "tokenizer.json"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise SpecError(f"{path} cannot be read: {error.strerror}.", _CURE) from error
        try:
            file = msgspec.json.decode(data, type=_File)
            rest = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
            rest["added_tokens"] = msgspec.Raw(b"[]")
            text = tokenizers.Tokenizer.from_str(msgspec.json.encode(rest).decode())
        except Exception as error:  # tokenizers raises no narrower class
            raise SpecError(f"{path} is not a tokenizer: {error}", _CURE) from error
        text.no_truncation()
        text.no_padding()
        tokenizer = cls(text, _bytes_table(file, path), _marks(file, path))
        tokenizer._check(file, path)
        return tokenizer

    def encode(self, text: str) -> list[int]:
        """The ids of `text` as ordinary text, never a control token, nothing added around it.

        Takes about two microseconds per token, so a long text belongs in a thread: of the library's
        ways to encode, this one lets the interpreter go meanwhile.
        """
        return self._text.encode_batch_fast([text], add_special_tokens=False)[0].ids

    def assemble(self, parts: Iterable[str | Mark]) -> list[int]:
        """The ids of ordinary text and marks in turn: a prompt.

        Only a `Mark` becomes a control token. Neighbouring texts are joined before they are
        encoded, so that the ids are those of the whole text. A mark that the vocabulary lacks is
        text.
        """
        ids: list[int] = []
        text: list[str] = []
        for part in parts:
            id_ = self._marks.get(part) if isinstance(part, Mark) else None
            if id_ is None:
                text.append(part)
                continue
            if text:
                ids += self.encode("".join(text))
                text.clear()
            ids.append(id_)
        return ids + self.encode("".join(text)) if text else ids

    def to_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of `ids`, which may begin or end inside a UTF-8 character.

        Special tokens (begin and end of sentence, padding) and ids that the vocabulary does not
        have, which a padded embedding can produce, have none.
        """
        table = self._table
        try:
            return b"".join([table[i] for i in ids])
        except IndexError:
            return b"".join([table[i] for i in ids if i < len(table)])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a whole sequence of ids; see `to_bytes`."""
        return self.to_bytes(ids).decode("utf-8", "replace")

    def _check(self, file: _File, path: Path) -> None:
        for sample in _ROUND_TRIPS:
            back = self.decode(self.encode(sample))
            if back != sample:
                raise SpecError(f"{path} turns the text {sample!r} into {back!r}.", _CURE)
        added = {token.id for token in file.added_tokens}
        for token in file.added_tokens:
            if not added.isdisjoint(self.encode(token.content)):
                raise SpecError(
                    f"{path} encodes {token.content!r} as a control token even in plain text.",
                    _CURE,
                )


def _marks(file: _File, path: Path) -> dict[Mark, int]:
    by_name = {token.content: token.id for token in file.added_tokens}
    missing = [mark for mark in _REQUIRED if mark not in by_name]
    if missing:
        raise SpecError(
            f"{path} has no single token for {', '.join(missing)}.",
            "Serve a DeepSeek-R1 checkpoint with its own tokenizer; test models need R1's too.",
        )
    return {mark: by_name[mark] for mark in Mark if mark in by_name}


def _bytes_table(file: _File, path: Path) -> list[bytes]:
    """The bytes of each id, at its index; empty for special tokens and for gaps."""
    byte_of = _byte_of_character()
    added = {token.content: token for token in file.added_tokens}
    ids = [*file.model.vocab.values(), *(token.id for token in file.added_tokens)]
    table = [b""] * (max(ids, default=-1) + 1)
    for text, id_ in file.model.vocab.items():
        if text in added:
            continue
        try:
            table[id_] = bytes([byte_of[character] for character in text])
        except KeyError:
            raise SpecError(f"{path} is no byte-level BPE: token {text!r}.", _CURE) from None
    for token in file.added_tokens:
        table[token.id] = b"" if token.special else token.content.encode()
    return table


def _byte_of_character() -> dict[str, int]:
    """The byte that each character of a byte-level BPE vocabulary stands for.

    Printable bytes of Latin-1 stand for themselves, the others for the characters from U+0100 on,
    in order: `bytes_to_unicode` of https://github.com/openai/gpt-2, src/encoder.py.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(0x100) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    table.update({chr(0x100 + at): byte for at, byte in enumerate(others)})
    return table
