"""What one request's stream was like, counted from the instant at which it was due."""

from loadtest.meter import Part
from loadtest.phase import Phase
from loadtest.result import Slo
from loadtest.stream import Usage


class Record:
    """One request from when it is due to its end; its measures go to `part`, gaps as they come.

    Instants are seconds of the run. It holds no list: what it keeps does not grow with the stream.
    """

    __slots__ = (
        "answer_first_at", "answer_last_at", "answer_pieces", "asked_prompt_tokens", "due_at",
        "ended", "first_at", "part", "thinking_first_at", "thinking_last_at", "thinking_pieces",
    )  # fmt: skip

    def __init__(self, part: Part, due_at: float, asked_prompt_tokens: int = 0) -> None:
        self.part = part
        self.due_at = due_at
        self.asked_prompt_tokens = asked_prompt_tokens
        self.ended = False
        self.first_at = 0.0
        self.thinking_pieces = self.answer_pieces = 0
        self.thinking_first_at = self.thinking_last_at = 0.0
        self.answer_first_at = self.answer_last_at = 0.0
        part.due += 1

    def sent(self, now: float) -> None:
        """The generator has begun to send it."""
        self.part.late.add(max(0.0, now - self.due_at))

    def piece(self, phase: Phase, now: float) -> None:
        """Some text has come."""
        if phase is Phase.THINKING:
            if self.thinking_pieces:
                self.part.itl_thinking.add(now - self.thinking_last_at)
            else:
                self.thinking_first_at = now
                self._first(now)
            self.thinking_pieces += 1
            self.thinking_last_at = now
        else:
            if self.answer_pieces:
                self.part.itl_answer.add(now - self.answer_last_at)
            else:
                self.answer_first_at = now
                self._first(now)
                self.part.first_answer.add(now - self.due_at)
            self.answer_pieces += 1
            self.answer_last_at = now

    def hopeless(self, slo: Slo, now: float) -> bool:
        """Whether it can no longer keep its SLO, though it has not ended."""
        waited_s = now - self.due_at
        no_token = not (self.thinking_pieces or self.answer_pieces)
        first_late = slo.ttft_s is not None and (
            (waited_s if no_token else self.first_at - self.due_at) > slo.ttft_s
        )
        return first_late or (slo.e2e_s is not None and waited_s > slo.e2e_s)

    def end(self, slo: Slo, usage: Usage | None, ended_at: float) -> None:
        """Read to its end. Without a usage each piece counts as one token."""
        pieces = Usage(self.asked_prompt_tokens, 0, self.thinking_pieces, self.answer_pieces)
        usage = usage or pieces
        part = self.part
        if not (self.thinking_pieces or self.answer_pieces):
            self.fail("empty")
            return
        self.ended = True
        part.ended += 1
        e2e_s = ended_at - self.due_at
        part.e2e.add(e2e_s)
        if self.thinking_pieces and usage.thinking > 1:
            span_s = self.thinking_last_at - self.thinking_first_at
            part.tpot_thinking.add(span_s / (usage.thinking - 1))
        if self.answer_pieces and usage.answer > 1:
            span_s = self.answer_last_at - self.answer_first_at
            part.tpot_answer.add(span_s / (usage.answer - 1))
        tokens = part.tokens
        tokens.prompt += usage.prompt
        tokens.cached += usage.cached
        tokens.thinking += usage.thinking
        tokens.answer += usage.answer
        tokens.asked_prompt += self.asked_prompt_tokens
        ttft_s, tpot_s = self.first_at - self.due_at, self._token_s(usage.thinking + usage.answer)
        part.ttft_s += ttft_s
        part.tpot_s += tpot_s
        if (
            (slo.ttft_s is None or ttft_s <= slo.ttft_s)
            and (slo.itl_s is None or tpot_s <= slo.itl_s)
            and (slo.e2e_s is None or e2e_s <= slo.e2e_s)
        ):
            part.good += 1

    def fail(self, error: str) -> None:
        """It came to nothing, for this class of error."""
        self.ended = True
        self.part.errors[error] += 1

    def _first(self, now: float) -> None:
        if not (self.thinking_pieces or self.answer_pieces):
            self.first_at = now
            self.part.ttft.add(now - self.due_at)

    def _token_s(self, tokens: int) -> float:
        """Mean time for a token, without the first."""
        last_at = max(self.thinking_last_at, self.answer_last_at)
        return (last_at - self.first_at) / (tokens - 1) if tokens > 1 else 0.0
