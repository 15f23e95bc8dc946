"""Where a thought is to be closed that its engine did not close in time."""

from collections.abc import Sequence
from enum import Enum, auto

from orchestrator.codec.render import Begin
from orchestrator.codec.tokenizer import ControlIds
from orchestrator.core import TokenIds

# Ids among which a model that opens its thought itself does so; later the mark is text.
_OPENS_WITHIN = 4


class _Phase(Enum):
    BEFORE = auto()
    OPEN = auto()
    CLOSED = auto()


class ThoughtLimit:
    """Follows one output, whose ids it is told once each and in their order, however they are cut.

    As engines do, it counts the ids behind the mark that opens the thought, those of the prompt
    included, and not the mark that closes it; a block of tool calls closes it too.
    """

    def __init__(
        self, control: ControlIds, prompt_ids: TokenIds, begin: Begin, tokens_max: int
    ) -> None:
        self.close_id = control.end_think  # what closes a thought
        self._think = control.think
        self._ends = frozenset(
            id_ for id_ in (control.end_think, control.tool_calls) if id_ is not None
        )
        self._left = tokens_max
        self._seen = 0
        match begin:
            case Begin.THOUGHT | Begin.THOUGHT_ON:
                self._phase = _Phase.OPEN
                self._left -= _behind_last(prompt_ids, control.think)
            case Begin.EITHER:
                self._phase = _Phase.BEFORE
            case Begin.ANSWER | Begin.ANSWER_ON:
                self._phase = _Phase.CLOSED

    def cut(self, ids: Sequence[int]) -> int | None:
        """How many of the new ids belong to the thought that is to be closed behind them; None: it
        need not be closed, or is. Said once.
        """
        if self._phase is _Phase.CLOSED:
            return None
        for at, id_ in enumerate(ids):
            if self._phase is _Phase.BEFORE:
                self._seen += 1
                if id_ == self._think:
                    self._phase = _Phase.OPEN
                elif self._seen >= _OPENS_WITHIN or id_ in self._ends:
                    self._phase = _Phase.CLOSED
                    return None
            elif id_ in self._ends:
                self._phase = _Phase.CLOSED
                return None
            elif self._left <= 0:
                self._phase = _Phase.CLOSED
                return at
            else:
                self._left -= 1
        return None


def _behind_last(ids: TokenIds, mark: int) -> int:
    """How many ids stand behind the last `mark`, which is there."""
    backwards = ids[::-1]
    return backwards.index(mark)
