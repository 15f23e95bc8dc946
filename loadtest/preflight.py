"""Looks whether a load would meet what it is meant for, before any of it is sent."""

import json
from dataclasses import dataclass

from gevent import socket
from gevent.event import Event

from loadtest.connections import Connections
from loadtest.exchange import Answer, get
from loadtest.gevent_host import GeventHost
from loadtest.meter import Part
from loadtest.prompts import Prompter
from loadtest.record import Record
from loadtest.stream import StreamReader
from loadtest.target import Target
from orchestrator.core import SpecError, StartError
from orchestrator.workload import TraceRequest

ANSWER_S = 15.0


@dataclass(frozen=True, slots=True)
class Probe:
    """One completion, alone on the wire."""

    e2e_s: float
    prompt_tokens: int | None  # None: the server sends no usage


def resolved(target: Target) -> Target:
    """The target with its addresses; raises SpecError if the name has none."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise SpecError(
            f"--url {target.url}: the name {target.host} has no address: {error.strerror}",
            "look at the URL and at this host's DNS",
        ) from None
    return target.at(tuple(dict.fromkeys(str(each[4][0]) for each in found)))


def check_target(target: Target, model: str) -> None:
    """Raises SpecError or StartError if the server, the key or the model is not there."""
    try:
        answer = get(target, "/models", ANSWER_S)
    except OSError as error:
        raise StartError(
            f"{target.url} cannot be reached: {error.strerror or error}",
            "see that the server runs and that this host may reach it",
        ) from None
    if answer.status in {401, 403}:
        raise SpecError(
            f"{target.url} answers {answer.status} to the API key: {answer.message}",
            "give a valid one with --key-file or --key-env",
        )
    if answer.status != 200:
        raise SpecError(
            f"{target.url}/models answers {answer.status}: {answer.message}",
            "give the URL that has /models and /chat/completions below it, often with /v1",
        )
    served = _served(target, answer)
    if model not in served:
        raise SpecError(
            f"{target.url} does not serve {model}", f"name one of {', '.join(served) or 'none'}"
        )


def _served(target: Target, answer: Answer) -> list[str]:
    try:
        return [str(each["id"]) for each in json.loads(answer.body)["data"]]
    except (ValueError, KeyError, TypeError):
        raise SpecError(
            f"{target.url}/models answers something that is no list of models",
            "give the URL of an OpenAI-compatible API",
        ) from None


def probe(target: Target, prompter: Prompter, request: TraceRequest, timeout_s: float) -> Probe:
    """Sends one completion and waits for its end; raises StartError with what went wrong."""
    host = GeventHost()
    connections = Connections(target, host.now)
    record = Record(Part(0.0, 1.0), host.now())
    reader = StreamReader(record)
    done = Event()
    try:
        give_up = connections.send(prompter.body(request, "probe"), reader, done.set)
        if not done.wait(timeout_s):
            give_up()
            raise StartError(
                f"{target.url}: a first request has no end after {timeout_s:g} s",
                "see what the server does; --timeout-s gives it longer",
            )
    finally:
        host.close()
        connections.close()
    if reader.error:
        raise StartError(
            f"{target.url}: a first request failed ({reader.error}): {reader.message}",
            "see what the server says of it; a load would fail the same way",
        )
    usage = reader.usage
    return Probe(reader.ended_at - record.due_at, None if usage is None else usage.prompt)


def overhead_tokens(target: Target, prompter: Prompter, timeout_s: float) -> int:
    """What the server's template adds to one message, by its own count; 0 if it does not count."""
    words = 16
    found = probe(target, prompter, TraceRequest(0.0, words, 1), timeout_s)
    return 0 if found.prompt_tokens is None else max(0, found.prompt_tokens - words)
