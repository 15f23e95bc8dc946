"""Ids to text as they come, when a character may be spread over several tokens."""

from codecs import utf_8_decode
from collections.abc import Sequence

from orchestrator.codec.tokenizer import Tokenizer


class Detokenizer:
    """One request's text. All that `push` returned plus `flush` equals `Tokenizer.decode`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._rest = b""  # the beginning of a character whose end has not come yet: 0 to 3 bytes

    def push(self, ids: Sequence[int]) -> str:
        """The characters that `ids` complete; the cost does not grow with what came before."""
        data = self._tokenizer.to_bytes(ids)
        if self._rest:
            data = self._rest + data
        text, used = utf_8_decode(data, "replace", False)
        self._rest = data[used:]
        return text

    def flush(self) -> str:
        """What is left when no more will come: empty, or U+FFFD for half a character."""
        text, _ = utf_8_decode(self._rest, "replace", True)
        self._rest = b""
        return text
