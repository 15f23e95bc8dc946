"""The shapes as Locust knows them: numbers of users over time, for its web UI.

They read Locust's own options: `--users` is the most, `--run-time` how long, and the least is a
fifth of the most.
"""

from typing import ClassVar

from locust import LoadTestShape

from loadtest.shapes import made

_DEFAULT_S = 600.0
_DEFAULT_USERS = 50


class _Shaped(LoadTestShape):  # type: ignore[misc]  # Locust has no types
    """Follows a shape whose rates are users."""

    abstract = True
    use_common_options = True
    shape: ClassVar[str]

    def tick(self) -> tuple[int, float] | None:
        """How many users there are to be, and how fast they may come; None at the end."""
        options = self.runner.environment.parsed_options
        most = options.num_users or _DEFAULT_USERS
        duration_s = float(options.run_time or _DEFAULT_S)
        now = self.get_run_time()
        if now >= duration_s:
            return None
        users = made(self.shape, most / 5, most, duration_s).at(now)
        return max(1, round(users)), float(max(1, most))


class Ramp(_Shaped):
    """From a fifth to all, straight."""

    shape = "ramp"


class Steps(_Shaped):
    """Five equal steps."""

    shape = "step"


class Spike(_Shaped):
    """All, for the middle fifth of the time."""

    shape = "spike"


class Soak(_Shaped):
    """All, all the time."""

    shape = "soak"


class Day(_Shaped):
    """A night, a noon and a night."""

    shape = "day"
