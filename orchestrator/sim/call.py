"""One client's request, with what only the client and the engine know of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core import RequestId, TokenIds, token_ids

HASH_TOKENS = 512  # of the prompt that one hash id of a trace stands for: Mooncake's README


class Outcome(StrEnum):
    """How a request ended for its client."""

    FINISHED = "finished"
    SHED = "shed"  # refused with a time to come back at
    REFUSED = "refused"  # cannot be served anywhere
    FAILED = "failed"
    BROKEN = "broken"  # its gateway died under it


_ALONE = 1 << 31  # ids from here on are of prompts that share nothing


@dataclass(slots=True, eq=False)
class Call:
    """One request of a client."""

    number: int
    at_s: float
    prompt_tokens: int
    output_tokens: int  # that the model will draw; no policy knows
    thinking_tokens: int = 0  # of those, before the answer
    hash_ids: tuple[int, ...] = ()  # equal ids are equal text; none: like no other prompt
    hash_tokens: int = HASH_TOKENS
    max_tokens: int = 32_768
    klass: str = ""  # of service
    tenant: str = ""  # whose it is
    poison: bool = False  # kills the engine that prefills it
    # What becomes of it:
    keys: Sequence[int] | None = None  # of its blocks, once the engine has asked
    first_at: float = 0.0
    ended_at: float = 0.0
    emitted: int = 0
    outcome: Outcome | None = None
    cached_tokens: int = 0

    @property
    def request_id(self) -> RequestId:
        """The same for the same number."""
        return RequestId(f"{self.number:08x}")

    def prompt_ids(self) -> TokenIds:
        """Token ids in which equal hash ids are equal runs."""
        if not self.hash_ids:
            alone = token_ids(_ALONE | part for part in _parts(self.number))
            return (alone * (self.prompt_tokens // 2 + 1))[: self.prompt_tokens]
        return ids_of(self.hash_ids, self.hash_tokens)[: self.prompt_tokens]


def ids_of(hash_ids: Iterable[int], run: int) -> TokenIds:
    """A run of token ids for each hash id of up to 62 bits; equal ones are equal runs."""
    assert run >= 2
    ids = token_ids(())
    for hash_id in hash_ids:
        high, low = _parts(hash_id)
        ids.append(high)
        ids.extend(token_ids((low,)) * (run - 1))
    return ids


def _parts(number: int) -> tuple[int, int]:
    return number >> 31 & _ALONE - 1, number & _ALONE - 1
