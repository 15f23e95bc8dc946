"""Clients that stream without a pause; each stream is compared with an undisturbed one."""

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import httpx
from typing_extensions import override

READ_S = 240.0  # between two bytes of a stream
PAUSE_S = 0.02  # an error that comes at once is not asked for a thousand times


@dataclass(frozen=True)
class Told:
    """What a client got, whole."""

    reasoning: str
    answer: str
    finish: str
    prompt_tokens: int
    output_tokens: int


@dataclass
class Streamed:
    """One stream: when it was asked for and ended, what came, and its longest pause."""

    question: str
    began_at: float
    ended_at: float = 0.0
    told: Told | None = None
    error: str = ""
    pause_s: float = 0.0  # between two pieces that came


def stream_once(url: str, question: str, more: Mapping[str, object]) -> Streamed:
    """Asks and reads to the end; whatever is not a whole stream is its `error`."""
    found = Streamed(question, time.monotonic())
    body = {
        "model": "deepseek-reasoner",
        "stream": True,
        "messages": [{"role": "user", "content": question}],
        **more,
    }
    try:
        with httpx.stream("POST", f"{url}/chat/completions", json=body, timeout=READ_S) as answer:
            if answer.status_code != 200:
                found.error = (
                    f"{answer.status_code}: {answer.read().decode(errors='replace')[:200]}"
                )
            else:
                _read(answer, found)
    except httpx.HTTPError as error:
        found.error = f"{type(error).__name__}: {error}"
    found.ended_at = time.monotonic()
    return found


def _read(answer: httpx.Response, found: Streamed) -> None:
    said = {"reasoning_content": "", "content": ""}
    finish, done, usage = "", False, None
    last_at = None
    for line in answer.iter_lines():
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            done = True
            continue
        chunk = json.loads(line[6:])
        if "error" in chunk:
            found.error = str(chunk["error"])[:200]
            return
        now = time.monotonic()
        choice = chunk["choices"][0]
        if any(choice["delta"].get(part) for part in said):
            if last_at is not None:
                found.pause_s = max(found.pause_s, now - last_at)
            last_at = now
        for part in said:
            said[part] += choice["delta"].get(part) or ""
        finish = finish or choice["finish_reason"] or ""
        usage = chunk.get("usage") or usage
    if not done or usage is None or not finish:
        found.error = "the stream ended without its end"
        return
    found.told = Told(
        said["reasoning_content"],
        said["content"],
        finish,
        usage["prompt_tokens"],
        usage["completion_tokens"],
    )


@dataclass
class Tally:
    """What became of the streams of some time."""

    streams: int = 0
    broken: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    pause_s: float = 0.0

    def add(self, other: "Tally") -> None:
        """Counts the other's too."""
        self.streams += other.streams
        self.broken += other.broken
        self.different += other.different
        self.pause_s = max(self.pause_s, other.pause_s)


class Traffic:
    """As many clients as questions, each of which asks its own again and again."""

    def __init__(
        self,
        url: str,
        questions: Sequence[str],
        more: Mapping[str, object],
        pause_s: float = PAUSE_S,
        undisturbed: dict[str, Told] | None = None,
    ) -> None:
        """`pause_s` is a client's between two streams; `undisturbed` what was learnt before."""
        self.pause_s = pause_s
        self._url = url
        self._questions = questions
        self._more = more
        self._lock = threading.Lock()
        self._ended: list[Streamed] = []
        self._stopping = threading.Event()
        self._threads: list[_Client] = []
        self.undisturbed = {} if undisturbed is None else undisturbed

    def learn(self) -> None:
        """Asks everything once, with nothing else going on: what every later stream must be."""
        clients = [_Once(self._url, question, self._more) for question in self._questions]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
            assert client.found is not None
            assert client.found.told is not None, client.found.error
            self.undisturbed[client.found.question] = client.found.told

    def start(self) -> None:
        """From now on every client has a stream, but for moments."""
        self._threads = [_Client(self, question) for question in self._questions]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Lets the streams that run end, and no new ones begin."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def settle(self, since: float) -> None:
        """Waits until every client has begun a stream after `since`, so that all before have
        ended.
        """
        while not self._stopping.is_set():
            if all(thread.began_at > since for thread in self._threads):
                return
            time.sleep(0.1)

    def tally(self, since: float, until: float) -> Tally:
        """Of the streams that ran at any time between the two."""
        found = Tally()
        with self._lock:
            ended = [s for s in self._ended if s.ended_at >= since and s.began_at <= until]
        for stream in ended:
            found.streams += 1
            found.pause_s = max(found.pause_s, stream.pause_s)
            if stream.told is None:
                found.broken.append(stream.error)
            elif stream.told != self.undisturbed[stream.question]:
                wanted = self.undisturbed[stream.question]
                found.different.append(f"{stream.told} instead of {wanted}")
        return found

    def ask(self, question: str) -> bool:
        """For clients: one stream; whether there is to be another."""
        found = stream_once(self._url, question, self._more)
        with self._lock:
            self._ended.append(found)
        return not self._stopping.is_set()


class _Client(threading.Thread):
    def __init__(self, traffic: Traffic, question: str) -> None:
        super().__init__(daemon=True)
        self._traffic = traffic
        self._question = question
        self.began_at = 0.0

    @override
    def run(self) -> None:
        while True:
            self.began_at = time.monotonic()
            if not self._traffic.ask(self._question):
                return
            time.sleep(self._traffic.pause_s)


class _Once(threading.Thread):
    def __init__(self, url: str, question: str, more: Mapping[str, object]) -> None:
        super().__init__(daemon=True)
        self._asked = (url, question, more)
        self.found: Streamed | None = None

    @override
    def run(self) -> None:
        self.found = stream_once(*self._asked)
