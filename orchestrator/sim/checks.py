"""What must be true behind every event, whatever the faults: the checkers, always on."""

from orchestrator.sim.call import Call, Outcome


class Violation(AssertionError):
    """Something that must never happen; the text says what, when, and at which event."""


class Checks:
    """Counts of its own, kept apart from those of the code that it watches."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.begun = 0
        self.ended = dict.fromkeys(Outcome, 0)
        self.told = 0  # of those, all together
        self.last_at = 0.0
        self._open: dict[int, None] = {}

    @property
    def open(self) -> int:
        """Requests of clients that have not ended."""
        return len(self._open)

    def fault(self, text: str) -> None:
        """Something is wrong."""
        self.faults.append(text)

    def begins(self, call: Call) -> None:
        """A client has sent a request."""
        if call.number in self._open:
            self.fault(f"request {call.number} begins twice")
        self._open[call.number] = None
        self.begun += 1

    def ends(self, call: Call, outcome: Outcome) -> None:
        """A client has been told the end."""
        if call.number not in self._open:
            self.fault(f"request {call.number} ends twice, now as {outcome}")
            return
        del self._open[call.number]
        self.ended[outcome] += 1
        self.told += 1
        if outcome is Outcome.FINISHED and call.emitted != min(call.output_tokens, call.max_tokens):
            self.fault(f"request {call.number} has {call.emitted} tokens of {call.output_tokens}")

    def behind(self, now: float) -> None:
        """Behind every event."""
        if now < self.last_at:
            self.fault(f"time goes back from {self.last_at} to {now}")
        self.last_at = now
        if self.begun != self.told + len(self._open):
            self.fault(
                f"{self.begun} requests have begun; {dict(self.ended)} have ended and "
                f"{len(self._open)} are open"
            )
        if self.faults:
            raise Violation(f"at {now:.6f} s: {'; '.join(self.faults)}")
