"""The shapes as Locust knows them: numbers of users over time, for its web UI.

They read Locust's own options: `--users` is the most, `--run-time` how long, and the least is a
fifth of the most.
"""

from typing import ClassVar

from locust import LoadTestShape

from loadtest import shapes
from loadtest.shapes import Passage, Shape

_DEFAULT_S = 600.0
_DEFAULT_USERS = 50
_STEP_S = 1.0


class _Shaped(LoadTestShape):  # type: ignore[misc]  # Locust has no types
    """Follows a shape whose rates are users."""

    abstract = True
    use_common_options = True
    made: ClassVar[str]

    def tick(self) -> tuple[int, float] | None:
        """How many users there are to be, and how fast they may come; None at the end."""
        options = self.runner.environment.parsed_options
        most = options.num_users or _DEFAULT_USERS
        duration_s = float(options.run_time or _DEFAULT_S)
        now = self.get_run_time()
        if now >= duration_s:
            return None
        users = users_at(self.made, most, duration_s, now)
        return max(1, round(users)), float(max(1, most))


def users_at(made: str, most: float, duration_s: float, at_s: float) -> float:
    """The users of a shape at an instant."""
    least = most / 5
    shape: Shape = (
        {
            "ramp": shapes.ramp,
            "step": shapes.step,
            "spike": shapes.spike,
            "day": shapes.day,
        }[made](least, most, duration_s)
        if made != "soak"
        else shapes.soak(most, duration_s)
    )
    passage = Passage(shape)
    return (passage.expected(at_s + _STEP_S) - passage.expected(at_s)) / _STEP_S


class Ramp(_Shaped):
    """From a fifth to all, straight."""

    made = "ramp"


class Steps(_Shaped):
    """Five equal steps."""

    made = "step"


class Spike(_Shaped):
    """All, for the middle fifth of the time."""

    made = "spike"


class Soak(_Shaped):
    """All, all the time."""

    made = "soak"


class Day(_Shaped):
    """A night, a noon and a night."""

    made = "day"
