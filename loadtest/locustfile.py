"""Users for Locust's own web UI and command line, each asking again when it has been answered.

    R1_KEY=... locust -f loadtest/locustfile.py --host https://host/v1

Locust's table shows, for each kind, the time to the first token, to the first token of the answer,
for a token, and to the end; a failure is one of its class. A closed loop hides what a slow server
makes wait: `locust_schedule.py` sends at a rate instead, as `r1-serve bench run` does. With shapes:
`-f loadtest/locustfile.py,loadtest/locust_shapes.py --class-picker`.
"""

import os
import random
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import gevent
from gevent.event import Event
from locust import User, events, task
from typing_extensions import override

from loadtest.connections import Connections
from loadtest.engine import Ask
from loadtest.kinds import KINDS
from loadtest.load import LoadSpec, read_load
from loadtest.meter import Part
from loadtest.preflight import resolved
from loadtest.record import Record
from loadtest.result import Slo
from loadtest.shapes import Shape, soak
from loadtest.stream import StreamReader
from loadtest.target import target_of

_NO_SLO = Slo(None, None)


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _add_arguments(parser: Any) -> None:  # noqa: ANN401  # Locust's, which has no types
    group = parser.add_argument_group("r1-serve")
    group.add_argument("--model", default="deepseek-reasoner", help="that is asked")
    group.add_argument(
        "--key-env", default="R1_KEY", help="the environment variable that holds the API key"
    )
    group.add_argument("--request-timeout-s", type=float, default=600.0, help="of one request")


class Sender(User):  # type: ignore[misc]  # Locust has no types
    """What asks, and tells Locust what came; the connections are one user's own."""

    abstract = True
    kind: ClassVar[str]

    def prepare(self, what: str, shape: Shape) -> None:
        """Requests of a kind, or of a trace's file, at the rates of a shape."""
        options = self.environment.parsed_options
        key = os.environ.get(options.key_env, "") if options.key_env else ""
        self._timeout_s: float = options.request_timeout_s
        self._chance = random.Random()
        self._connections = Connections(resolved(target_of(self.host or "", key)), time.monotonic)
        seed = self._chance.randrange(1 << 30)
        trace = "" if what in KINDS else what
        workload = "" if trace else what
        spec = LoadSpec(workload, trace, None, None, seed, f"{seed}", options.model)
        self.asks: Iterator[Ask] = read_load(spec).asks(shape, 0)

    def on_stop(self) -> None:
        """Closes what is open."""
        self._connections.close()

    def answered(self, ask: Ask, due_at: float) -> StreamReader | None:
        """The reader of a stream that was read to its end; None of one that failed."""
        part = Part(0.0, 0.0)
        record = Record(part, due_at, ask.prompt_tokens)
        reader = StreamReader(record, keep=ask.then is not None)
        done = Event()
        give_up = self._connections.send(ask.body(), reader, done.set)
        if not done.wait(self._timeout_s):
            give_up()
            reader.fail("timeout", f"no end after {self._timeout_s:g} s", time.monotonic())
        if reader.error:
            self._tell("e2e", time.monotonic() - due_at, Failed(reader.error, reader.message))
            return None
        record.end(_NO_SLO, reader.usage, reader.ended_at)
        for name, seen in (
            ("ttft", part.ttft),
            ("first answer", part.first_answer),
            ("tpot thinking", part.tpot_thinking),
            ("tpot answer", part.tpot_answer),
            ("e2e", part.e2e),
        ):
            if seen.count:
                self._tell(name, seen.mean, None)
        return reader

    def _tell(self, what: str, seconds: float, failed: "Failed | None") -> None:
        self.environment.events.request.fire(
            request_type=self.kind,
            name=what,
            response_time=1e3 * seconds,
            response_length=0,
            exception=failed,
            context={},
        )


class StreamUser(Sender):
    """A user of one kind."""

    abstract = True

    def on_start(self) -> None:
        """Makes the user's own stream of requests."""
        self.prepare(self.kind, soak(1.0, 1.0))

    @override
    def wait_time(self) -> float:
        """The pause of a person, or of a tool, before the next request."""
        mean_s = KINDS[self.kind].thinks_s
        return self._chance.expovariate(1 / mean_s) if mean_s else 0.0

    @task  # type: ignore[untyped-decorator]
    def ask(self) -> None:
        """One request; of an agent, one session."""
        ask: Ask | None = next(self.asks)
        while ask is not None:
            reader = self.answered(ask, time.monotonic())
            follows = ask.then if reader is not None else None
            ask = None if follows is None or reader is None else follows(reader, time.monotonic())
            if ask is not None:
                gevent.sleep(max(0.0, ask.at_s - time.monotonic()))


class Failed(Exception):
    """What Locust counts as a failure: by its class, so that its table stays short."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(error)
        self.message = message


class ChatUser(StreamUser):
    """A person who chats."""

    kind = "chat"
    weight = 10


class ReasoningUser(StreamUser):
    """A person with a hard question: long thoughts."""

    kind = "reasoning"
    weight = 5


class AgentUser(StreamUser):
    """A program that calls tools, in sessions whose prompts grow."""

    kind = "agent"
    weight = 3


class BatchUser(StreamUser):
    """A job that always has another request."""

    kind = "batch"
    weight = 1


class LongContextUser(StreamUser):
    """Somebody with a whole book."""

    kind = "long-context"
    weight = 1
