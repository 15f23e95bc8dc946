"""Stop strings in a text that comes in chunks."""

from collections.abc import Sequence


class StopMatcher:
    """Cuts a text before the stop string that ends first in it; of several, before the longest.

    The result does not depend on how the text was cut into chunks. Text is held back only while it
    may be the beginning of a stop string.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        assert all(stops)
        self._stops = tuple(stops)
        self._held = ""
        self.matched = False

    def push(self, text: str) -> str:
        """The text that is now certain to stand before any stop string; nothing after a match."""
        if self.matched:
            return ""
        text = self._held + text
        # A match that the held text could not show ends in the new text: the earliest end wins.
        ends = [(at + len(s), at) for s in self._stops if (at := text.find(s)) >= 0]
        if ends:
            self.matched = True
            self._held = ""
            return text[: min(ends)[1]]
        safe = min(begins_at(stop, text) for stop in self._stops)
        self._held = text[safe:]
        return text[:safe]

    def flush(self) -> str:
        """The text that was held back, when no more will come."""
        held, self._held = self._held, ""
        return held


def begins_at(stop: str, text: str) -> int:
    """Where the longest end of `text` begins that `stop` may continue; `len(text)` if none does."""
    at = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while at >= 0:
        if stop.startswith(text[at:]):
            return at
        at = text.find(stop[0], at + 1)
    return len(text)
