"""A user for Locust's web UI that sends at a rate, whatever has been answered.

    locust -f loadtest/locust_schedule.py --host https://host/v1 --schedule chat --user-rate 5

Ten users send ten times as much, each a stream of its own; Locust's workers share the users. What
Locust shows counts from the instant at which a request was due.
"""

import time
from typing import Any

import gevent
from locust import events, task
from typing_extensions import override

from loadtest.locustfile import Sender
from loadtest.shapes import soak


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _add_arguments(parser: Any) -> None:  # noqa: ANN401  # Locust's, which has no types
    group = parser.add_argument_group("r1-serve, schedules")
    group.add_argument("--user-rate", type=float, default=1.0, help="requests/s of one user")
    group.add_argument("--schedule", default="chat", help="a kind of users, or a trace's file")


class ScheduleUser(Sender):
    """A gateway of many people: sends when a request is due."""

    kind = "schedule"

    def on_start(self) -> None:
        """Begins the schedule."""
        options = self.environment.parsed_options
        self.prepare(options.schedule, soak(options.user_rate, 1.0))
        self._began_at = time.monotonic()

    @override
    def wait_time(self) -> float:
        """None: it waits for what is due."""
        return 0.0

    @task  # type: ignore[untyped-decorator]
    def ask(self) -> None:
        """One request, which is then on its own."""
        ask = next(self.asks)
        due_at = self._began_at + ask.at_s
        gevent.sleep(max(0.0, due_at - time.monotonic()))
        gevent.spawn(self.answered, ask, due_at)
