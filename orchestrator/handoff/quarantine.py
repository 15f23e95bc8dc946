"""Requests that engines die of: who is a suspect, who is tried alone, which prompts are refused.

Who was at the beginning of its work when an engine died may have killed it. Such suspects are tried
again one after another, over all gateways: if the next engine dies as well, it is known of whom,
and those that only happened to be there go on. A request is given up after `deaths_max` engines,
and its prompt refused for a while.
"""

import hashlib
from dataclasses import dataclass

from orchestrator.core import RequestId, TokenIds

YOUNG_TOKENS = 16  # that an engine has drawn of a request before it is beyond suspicion there
PROMPTS_MAX = 1_024  # that are remembered; the oldest are forgotten first
TRYING_S = 30.0  # that a turn lasts unless it is said again: its gateway may be dead
SETTLE_S = 0.3  # until a gateway that wants the turn at the same moment has been heard


@dataclass(frozen=True, slots=True)
class Word:
    """What one gateway tells the others: that it tries a suspect, or of which prompt engines die.

    A word may come more than once, by several ways; `number` grows from one to the next.
    """

    gateway_id: str
    number: int
    lasts_s: float  # the turn, or the refusal; 0: the turn is over
    digest: bytes = b""  # of the prompt; empty: it is about the turn


def digest_of(prompt_ids: TokenIds) -> bytes:
    """The same for the same prompt, whoever sends it."""
    return hashlib.blake2b(prompt_ids.tobytes(), digest_size=16).digest()


class Quarantine:
    """One gateway's memory of all this. Instants are of any clock that does not go back."""

    def __init__(self, gateway_id: str = "", settle_s: float = 0.0) -> None:
        """`settle_s` is 0 where there is no other gateway."""
        self._gateway_id = gateway_id
        self._settle_s = settle_s
        self._until: dict[bytes, float] = {}  # prompts that are refused, oldest first
        self._alone: RequestId | None = None  # the suspect whose turn it is, here
        self._claimed_at = 0.0
        self._said_at = 0.0
        self._turns: dict[str, float] = {}  # other gateways', and until when
        self._heard: dict[str, int] = {}  # the number of their last word
        self._number = 0
        self._words: list[Word] = []

    def condemn(self, digest: bytes, refuse_s: float, now: float) -> None:
        """Engines have died of this prompt, as was seen here."""
        self._refuse(digest, now + refuse_s)
        self._say(refuse_s, digest)

    def heard(self, word: Word, now: float) -> None:
        """Another gateway has said so. Of two that want the turn at once the first by name has
        it.
        """
        if word.number <= self._heard.get(word.gateway_id, 0):
            return
        self._heard[word.gateway_id] = word.number
        if word.digest:
            self._refuse(word.digest, now + word.lasts_s)
            return
        self._turns = {other: until for other, until in self._turns.items() if until > now}
        self._turns.pop(word.gateway_id, None)
        if word.lasts_s > 0:
            self._turns[word.gateway_id] = now + word.lasts_s
            unsettled = now < self._claimed_at + self._settle_s
            if self._alone is not None and unsettled and word.gateway_id < self._gateway_id:
                self.settled()

    def words(self, now: float) -> list[Word]:
        """What is to be told to the other gateways now."""
        if self._alone is not None and now >= self._said_at + TRYING_S / 2:
            self._claim(now)
        words, self._words = self._words, []
        return words

    def refuses(self, prompt_ids: TokenIds, now: float) -> bool:
        """Whether engines have died of this prompt lately."""
        if not self._until:
            return False
        digest = digest_of(prompt_ids)
        if now >= self._until.get(digest, now):
            self._until.pop(digest, None)
            return False
        return True

    def may_try(self, request_id: RequestId, now: float) -> bool:
        """Whether it is the suspect's turn; once it is, it stays until `settled`."""
        if self._alone is None and all(until <= now for until in self._turns.values()):
            self._alone, self._claimed_at = request_id, now
            self._claim(now)
        return self._alone == request_id and now >= self._claimed_at + self._settle_s

    @property
    def alone(self) -> RequestId | None:
        """The suspect whose turn it is here."""
        return self._alone

    def settled(self) -> None:
        """That one is no suspect any more, or is over: the next one's turn."""
        self._alone = None
        self._say(0.0)

    def _claim(self, now: float) -> None:
        self._said_at = now
        self._say(TRYING_S)

    def _say(self, lasts_s: float, digest: bytes = b"") -> None:
        if self._settle_s:
            self._number += 1
            self._words.append(Word(self._gateway_id, self._number, lasts_s, digest))

    def _refuse(self, digest: bytes, until: float) -> None:
        self._until.pop(digest, None)
        self._until[digest] = until
        while len(self._until) > PROMPTS_MAX:
            del self._until[next(iter(self._until))]
