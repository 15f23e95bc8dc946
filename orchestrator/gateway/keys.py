"""API keys: who a request is from. Hashed at rest, read again when their files change.

A file has a line per key, `#` begins a comment:

    ACCOUNT sha256:HEX [requests=N] [class=NAME] [suspended]

`requests` bounds the account's open requests at each gateway replica; `class` is one of
`admission.classes`; `suspended` refuses them all with 402. A folder, such as a
mounted Kubernetes Secret, is read as all of its files together.
"""

import asyncio
import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core import SpecError
from orchestrator.gateway.errors import ApiError, insufficient_balance, rate_limited, unauthorized
from orchestrator.telemetry import Log

RELOAD_S = 2.0  # how soon a changed file is noticed
_LINE = re.compile(r"(?P<name>[\w.@-]{1,64})\s+sha256:(?P<digest>[0-9a-f]{64})(?P<rest>(\s+\S+)*)")


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a key belongs to. An account may have several keys."""

    name: str
    requests_max: int | None = None  # open at one gateway replica
    suspended: bool = False
    klass: str = ""  # of service


OPEN = Account("")  # everybody's, where no keys are configured


def new_key() -> str:
    """A key in the form of the official ones, with 192 random bits."""
    return f"sk-{secrets.token_hex(24)}"


def digest(key: str) -> str:
    """What is stored of a key. A plain hash will do: nobody guesses 192 bits."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_line(name: str, key: str) -> str:
    """The line of the file that makes `key` the account's. Raises SpecError for a name that is
    none.
    """
    line = f"{name} sha256:{digest(key)}"
    if _LINE.fullmatch(line) is None:
        raise SpecError(
            f"the account name {name!r} has other characters than letters, digits, . _ @ -",
            "give a name of at most 64 of these",
        )
    return line


def read_keys(path: Path, classes: Collection[str] = ()) -> Mapping[str, Account]:
    """The accounts by their keys' digests; `classes` are those of service that there are.

    Raises SpecError if the path cannot be read, holds no key or a line that is none.
    """
    accounts: dict[str, Account] = {}
    for file in _files(path):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(f"cannot read the keys in {file}: {error}", _CURE) from error
        for number, line in enumerate(lines, 1):
            if text := line.partition("#")[0].strip():
                key, account = _parse(text, f"{file}, line {number}", classes)
                accounts[key] = account
    if not accounts:
        raise SpecError(f"api.keys_path: there is no key in {path}", _CURE)
    return accounts


_CURE = "write keys with `r1-serve key`, or remove api.keys_path to serve without keys"


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(f for f in path.iterdir() if f.is_file() and not f.name.startswith("."))


def _parse(text: str, place: str, classes: Collection[str]) -> tuple[str, Account]:
    found = _LINE.fullmatch(text)
    if found is None:
        raise SpecError(f"{place} is no `ACCOUNT sha256:HEX`", _CURE)
    requests_max, suspended, klass = None, False, ""
    for option in found["rest"].split():
        name, _, value = option.partition("=")
        if option == "suspended":
            suspended = True
        elif name == "requests" and value.isdecimal() and int(value) > 0:
            requests_max = int(value)
        elif name == "class":
            if value not in classes:
                raise SpecError(
                    f"{place}: there is no class {value!r}",
                    f"give one of admission.classes: {', '.join(sorted(classes)) or 'none yet'}",
                )
            klass = value
        else:
            raise SpecError(
                f"{place}: {option!r} is no option", "use requests=N, class=NAME or suspended"
            )
    return found["digest"], Account(found["name"], requests_max, suspended, klass)


class Keys:
    """The keys in force. Without a path everybody may come in, and the log says so."""

    def __init__(self, path: str | None, log: Log, classes: Collection[str] = ()) -> None:
        """`classes` are those of `admission`. Raises SpecError if the path has no valid keys."""
        self._path = None if path is None else Path(path)
        self._log = log
        self._classes = classes
        self._accounts = {} if self._path is None else read_keys(self._path, self._classes)
        self._seen = self._signature()
        self._open: Counter[str] = Counter()  # requests by account
        if self._path is None:
            log.warning("api_open", cause="no api.keys_path: every key is accepted")

    def check(self, authorization: str | None) -> Account | ApiError:
        """The account that an `Authorization` header proves, or the official refusal."""
        if self._path is None:
            return OPEN
        scheme, _, key = (authorization or "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            return unauthorized("auth header format should be Bearer sk-...")
        account = self._accounts.get(digest(key))
        if account is None:
            return unauthorized(f"Your api key: ****{key[-4:]} is invalid", bare=True)
        return account

    def refusal(self, account: Account) -> ApiError | None:
        """Why the account may not use the API at all."""
        return insufficient_balance() if account.suspended else None

    def admit(self, account: Account) -> ApiError | None:
        """Why the account may not begin a request now; otherwise it has one more open."""
        limit = account.requests_max
        if limit is not None and self._open[account.name] >= limit:
            return rate_limited(limit)
        self._open[account.name] += 1
        return None

    def release(self, account: Account) -> None:
        """A request that was admitted has ended."""
        self._open[account.name] -= 1

    async def watch(self) -> None:
        """Reads the keys again whenever their files change; bad ones leave those in force."""
        while self._path is not None:
            await asyncio.sleep(RELOAD_S)
            self.reload()

    def reload(self) -> None:
        """Looks once; see `watch`."""
        seen = self._signature()
        if self._path is None or seen == self._seen:
            return
        self._seen = seen
        try:
            self._accounts = read_keys(self._path, self._classes)
        except SpecError as error:
            self._log.error("keys_not_reloaded", cause=error.cause, cure=error.cure)
        else:
            self._log.info("keys_reloaded", keys=len(self._accounts))

    def _signature(self) -> tuple[object, ...]:
        return () if self._path is None else tuple(_stamps(self._path))


def _stamps(path: Path) -> Iterator[tuple[object, ...]]:
    """What changes when a key file does; a Secret is changed by exchanging a symbolic link."""
    try:
        for file in _files(path):
            stat = file.stat()
            yield (str(file), stat.st_ino, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        yield (str(error),)
