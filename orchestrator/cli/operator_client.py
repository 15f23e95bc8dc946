"""Asks every gateway behind a URL what only operators may ask."""

import argparse
import json
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import SplitResult, urlsplit

from orchestrator.core import R1ServeError, SpecError
from orchestrator.core.arguments import positive

LOCAL_URL = "http://127.0.0.1:8000"
_GATEWAY = "x-r1-gateway"
_ASKED_MAX = 6  # times as often as there are gateways: a balancer may give us one twice
_BODY_BYTES_MAX = 64 << 20
_DENIED = (401, 403)


@dataclass(frozen=True, slots=True)
class Answer:
    """One gateway's."""

    gateway: str
    gateways: int  # that there are to be
    status: int
    body: dict[str, object]

    @property
    def message(self) -> str:
        """Of an error."""
        error = self.body.get("error")
        return str(error.get("message", "")) if isinstance(error, dict) else ""


@dataclass(frozen=True, slots=True)
class Asked:
    """All answers, one of each gateway, and how many gateways there are to be."""

    answers: tuple[Answer, ...]
    gateways: int

    @property
    def missing(self) -> int:
        """Gateways that have not answered."""
        return max(0, self.gateways - len(self.answers))


def add_asking(parser: argparse.ArgumentParser, timeout_s: float, of: str) -> None:
    """Declares whom a command asks, for how long at most `of` what, and how it is to answer."""
    add = parser.add_argument
    add("--url", action="append", metavar="URL", help=f"of the API (default {LOCAL_URL}); repeat")
    add("--key", default="any", help="of the API, an operator's")
    add("--json", action="store_true", help="a JSON document instead of a table")
    said = f"for {of} (default {timeout_s:g})"
    add("--timeout", type=positive, default=timeout_s, metavar="S", help=said)


def ask_each(
    urls: Sequence[str],
    method: str,
    path: str,
    key: str,
    timeout_s: float,
    enough: Callable[[Answer], bool] = lambda answer: False,
) -> Asked:
    """An answer of each gateway behind the URLs, until one is `enough`.

    A URL may be a balancer's: it is asked again until as many gateways have answered as the first
    says there are, or it gives no new one. Raises R1ServeError if none answers, if one is no
    gateway, or if the key will not do.
    """
    found: dict[str, Answer] = {}
    wanted = 0
    for url in urls:
        where = _parse(url)
        asked, most = 0, _ASKED_MAX
        while asked < most:
            answer = _ask(where, url, method, path, key, timeout_s)
            asked += 1
            wanted = max(wanted, answer.gateways)
            most = _ASKED_MAX * answer.gateways
            found.setdefault(answer.gateway, answer)
            if len(found) >= wanted or enough(answer):
                return Asked(tuple(found.values()), wanted)
            time.sleep(0.02)
    return Asked(tuple(found.values()), wanted)


def _parse(url: str) -> SplitResult:
    where = urlsplit(url if "://" in url else f"http://{url}")
    try:
        port = where.port
    except ValueError:
        port = -1
    if where.scheme not in ("http", "https") or not where.hostname or port == -1:
        raise SpecError(f"--url {url} is no URL", f"give one such as {LOCAL_URL}")
    return where


def _ask(
    where: SplitResult, url: str, method: str, path: str, key: str, timeout_s: float
) -> Answer:
    host = where.hostname or ""
    if where.scheme == "https":
        context = ssl.create_default_context()
        connection: HTTPConnection = HTTPSConnection(
            host, where.port or 443, timeout=timeout_s, context=context
        )
    else:
        connection = HTTPConnection(host, where.port or 80, timeout=timeout_s)
    headers = {"Connection": "close", "Authorization": f"Bearer {key}"}
    try:
        connection.request(method, where.path.rstrip("/") + path, headers=headers)
        response = connection.getresponse()
        status, body = response.status, response.read(_BODY_BYTES_MAX)
        said = response.getheader(_GATEWAY)
    except TimeoutError as error:
        raise R1ServeError(
            f"the gateway at {url} has not answered within {timeout_s:g} s",
            "see whether it is alive, or give it more time with --timeout",
        ) from error
    except (OSError, HTTPException) as error:
        raise R1ServeError(
            f"no gateway answers at {url}: {str(error) or type(error).__name__}",
            "see that the fleet runs, and give its --url",
        ) from error
    finally:
        connection.close()
    return _read(url, status, body, said)


def _read(url: str, status: int, body: bytes, said: str | None) -> Answer:
    try:
        tree = json.loads(body)
    except ValueError:
        tree = None
    if said is None or not isinstance(tree, dict):
        raise R1ServeError(
            f"what answers at {url} with {status} is no gateway of this version",
            "give the --url of the API of r1-serve; upgrade gateways that are older",
        )
    name, _, gateways = said.partition(" of ")
    answer = Answer(name, int(gateways) if gateways.isdecimal() else 1, status, tree)
    if status in _DENIED:
        raise R1ServeError(
            f"the gateway at {url} does not take this key: {answer.message}",
            "give --key, of a tenant that has `operator: true` in the tenants file",
        )
    return answer
