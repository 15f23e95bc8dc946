"""What one rank's work costs in seconds: the few numbers that routing predicts with."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepCosts:
    """A linear model of one rank; whoever knows better (planner, calibration) fills it.

    `stall` is the share of a prefill during which the rank's running decodes stand still: 1 if they
    share every step, 0 if they never meet.
    """

    prefill_base_s: float
    prefill_token_s: float
    prefill_pair_s: float = 0.0  # per pair of a computed token and one before it (attention)
    step_base_s: float = 0.02
    step_request_s: float = 0.0  # per request of the batch
    step_token_s: float = 0.0  # per token of its context
    stall: float = 0.0
    transfer_base_s: float = 0.0
    transfer_token_s: float = 0.0

    def prefill_s(self, tokens: int, hit_tokens: int) -> float:
        """The time to prefill a prompt of which `hit_tokens` are there."""
        new = tokens - hit_tokens
        pairs = new * (hit_tokens + new / 2)
        return self.prefill_base_s + self.prefill_token_s * new + self.prefill_pair_s * pairs

    def step_s(self, requests: float, tokens: float) -> float:
        """The time of one decode step."""
        return self.step_base_s + self.step_request_s * requests + self.step_token_s * tokens

    def transfer_s(self, tokens: int) -> float:
        """The time to move so many tokens' KV to another rank."""
        return self.transfer_base_s + self.transfer_token_s * tokens
