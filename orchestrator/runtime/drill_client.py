"""A client of the API that asks again and again, and says what became of each request."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from typing_extensions import override

_TIMEOUT_S = 300.0
_LOOK_S = 5.0  # for what is answered at once
_PAUSE_S = 0.5  # behind a refusal
_QUESTION = "Say something long about the weather of the last hundred years, please. " * 8
_TOO_MUCH = (429, 503)


class Outcome(StrEnum):
    """How a request ended."""

    FINISHED = "finished"
    SHED = "shed"  # refused with a time to come back at
    FAILED = "failed"  # told an error
    BROKEN = "broken"  # the connection ended before the stream did


@dataclass(frozen=True, slots=True)
class Target:
    """Whom is asked, for which model, and for how many tokens at most."""

    url: str
    key: str
    model: str
    tokens_max: int

    @property
    def head(self) -> dict[str, str]:
        """HTTP fields that say who asks."""
        return {"Authorization": f"Bearer {self.key}"}

    def connection(self, timeout_s: float) -> HTTPConnection:
        """To the API."""
        return _connection(self.url, timeout_s)


@dataclass(frozen=True, slots=True)
class End:
    """One request's. Instants of the clock that the asker was given."""

    outcome: Outcome
    began_at: float
    at: float
    first_s: float | None  # TTFT
    pause_s: float  # the longest time without a token after the first
    tokens: int  # pieces of the stream
    cause: str = ""


class Asker(threading.Thread):
    """One stream after the other until it is stopped; the last one may end."""

    def __init__(
        self,
        target: Target,
        on_end: Callable[[End], None],
        now: Callable[[], float],
        session: str = "",
    ) -> None:
        """`session` names the conversation, and makes its question one of its own."""
        super().__init__(daemon=True)
        self._session = session
        self._target = target
        self._on_end = on_end
        self._now = now
        self._over = threading.Event()
        self.asking = False  # a request of it is with a gateway

    def stop(self) -> None:
        """No more after the one that is under way."""
        self._over.set()

    @override
    def run(self) -> None:
        while not self._over.is_set():
            end = self._ask()
            self._on_end(end)
            if end.outcome is not Outcome.FINISHED:
                self._over.wait(_PAUSE_S)

    def _ask(self) -> End:
        reading = _Reading(self._now)
        target = self._target
        connection = target.connection(_TIMEOUT_S)
        body = {
            "model": target.model,
            "stream": True,
            "max_tokens": target.tokens_max,
            "messages": [{"role": "user", "content": f"{self._session} {_QUESTION}".strip()}],
        }
        try:
            head = {**target.head, "Content-Type": "application/json"}
            if self._session:
                head["X-Session-Id"] = self._session
            self.asking = True
            connection.request("POST", "/chat/completions", json.dumps(body), head)
            response = connection.getresponse()
            if response.status != 200:
                return reading.refused(response)
            return reading.whole(response)
        except (OSError, HTTPException, ValueError) as error:
            return reading.ends(Outcome.BROKEN, str(error) or type(error).__name__)
        finally:
            self.asking = False
            connection.close()


class _Reading:
    """One answer."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._began_at = now()
        self._first_s: float | None = None
        self._last_at = 0.0
        self._pause_s = 0.0
        self._tokens = 0

    def ends(self, outcome: Outcome, cause: str = "") -> End:
        """The end of it, now."""
        return End(
            outcome,
            self._began_at,
            self._now(),
            self._first_s,
            self._pause_s,
            self._tokens,
            cause[:200],
        )

    def refused(self, response: HTTPResponse) -> End:
        """An answer that is no stream."""
        text = response.read(400).decode("utf-8", "replace")
        shed = response.status in _TOO_MUCH and response.getheader("Retry-After") is not None
        return self.ends(Outcome.SHED if shed else Outcome.FAILED, f"{response.status} {text}")

    def whole(self, response: HTTPResponse) -> End:
        """A stream, to its end or to where it breaks off."""
        finished = False
        for line in response:
            if line.startswith(b"data: [DONE]"):
                return self.ends(Outcome.FINISHED if finished else Outcome.FAILED, "no reason")
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                return self.ends(Outcome.FAILED, str(event["error"]))
            choices = event.get("choices") or [{}]
            finished = finished or bool(choices[0].get("finish_reason"))
            delta = choices[0].get("delta") or {}
            if delta.get("content") or delta.get("reasoning_content"):
                self._token()
        return self.ends(Outcome.BROKEN, "the stream has no end")

    def _token(self) -> None:
        now = self._now()
        if self._first_s is None:
            self._first_s = now - self._began_at
        else:
            self._pause_s = max(self._pause_s, now - self._last_at)
        self._last_at = now
        self._tokens += 1


def models(target: Target) -> list[str]:
    """The names that the API lists; empty if it lists none to us."""
    try:
        told = _told(target.connection(_LOOK_S), "/models", target.head)
        return [model["id"] for model in told["data"]]
    except (OSError, HTTPException, ValueError, KeyError):
        return []


def ranks(url: str) -> dict[str, int]:
    """The ranks that the gateway asked can reach, by model and role; empty if none answers."""
    try:
        models = _told(_connection(url, _LOOK_S), "/health", {})["ranks"]
        return {f"{model} {role}": n for model in models for role, n in models[model].items()}
    except (OSError, HTTPException, ValueError, KeyError):
        return {}


def _told(connection: HTTPConnection, path: str, head: Mapping[str, str]) -> dict[str, Any]:
    try:
        connection.request("GET", path, headers=dict(head))
        told: dict[str, Any] = json.loads(connection.getresponse().read())
        return told
    finally:
        connection.close()


def _connection(url: str, timeout_s: float) -> HTTPConnection:
    where = urlsplit(url)
    return HTTPConnection(where.hostname or "", where.port or 80, timeout=timeout_s)
