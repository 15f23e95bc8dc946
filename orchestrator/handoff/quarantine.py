"""Requests that engines die of: who is a suspect, who is tried alone, which prompts are refused.

Who was at the beginning of its work when an engine died may have killed it. Such suspects are tried
again one after another: if the next engine dies as well, it is known of whom, and those that only
happened to be there go on. A request is given up after `deaths_max` engines, and its prompt refused
for a while.
"""

import hashlib

from orchestrator.core import RequestId, TokenIds

YOUNG_TOKENS = 16  # that an engine has drawn of a request before it is beyond suspicion there
PROMPTS_MAX = 1_024  # that are remembered; the oldest are forgotten first


def digest_of(prompt_ids: TokenIds) -> bytes:
    """The same for the same prompt, whoever sends it."""
    return hashlib.blake2b(prompt_ids.tobytes(), digest_size=16).digest()


class Quarantine:
    """One gateway's memory of all this. Instants are of any clock that does not go back."""

    def __init__(self) -> None:
        self._until: dict[bytes, float] = {}  # prompts that are refused, oldest first
        self._alone: RequestId | None = None  # the suspect that is being tried

    def condemn(self, digest: bytes, until: float) -> None:
        """Engines have died of this prompt, here or as another gateway says."""
        self._until.pop(digest, None)
        self._until[digest] = until
        while len(self._until) > PROMPTS_MAX:
            del self._until[next(iter(self._until))]

    def refuses(self, prompt_ids: TokenIds, now: float) -> bool:
        """Whether engines have died of this prompt lately."""
        if not self._until:
            return False
        digest = digest_of(prompt_ids)
        if now >= self._until.get(digest, now):
            self._until.pop(digest, None)
            return False
        return True

    def may_try(self, request_id: RequestId) -> bool:
        """Whether it is the suspect's turn; once it is, it stays until `settled`."""
        if self._alone is None:
            self._alone = request_id
        return self._alone == request_id

    @property
    def alone(self) -> RequestId | None:
        """The suspect whose turn it is."""
        return self._alone

    def settled(self) -> None:
        """That one is no suspect any more, or is over: the next one's turn."""
        self._alone = None
