"""Tokens of requests by the class that they are limited and paid by."""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never


class TokenClass(StrEnum):
    """What a token of a request is."""

    INPUT = "input"  # of the prompt, computed
    CACHED_INPUT = "cached_input"  # of the prompt, a prefix hit in whole cache units
    THINKING = "thinking"  # generated, of the thought; the mark that closes it included
    ANSWER = "answer"  # generated, of the answer and its tool calls


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """So many tokens of each class; differences may be below 0."""

    input: int = 0
    cached_input: int = 0
    thinking: int = 0
    answer: int = 0

    def of(self, klass: TokenClass) -> int:
        """Those of one class."""
        match klass:
            case TokenClass.INPUT:
                return self.input
            case TokenClass.CACHED_INPUT:
                return self.cached_input
            case TokenClass.THINKING:
                return self.thinking
            case TokenClass.ANSWER:
                return self.answer
            case _:
                assert_never(klass)

    def __add__(self, other: "TokenCounts") -> "TokenCounts":
        return TokenCounts(
            self.input + other.input,
            self.cached_input + other.cached_input,
            self.thinking + other.thinking,
            self.answer + other.answer,
        )

    def __sub__(self, other: "TokenCounts") -> "TokenCounts":
        return TokenCounts(
            self.input - other.input,
            self.cached_input - other.cached_input,
            self.thinking - other.thinking,
            self.answer - other.answer,
        )
