"""API keys: whose a request is. Hashed at rest, read again when their files change.

A file has a line per key, `#` begins a comment:

    TENANT sha256:HEX

What the tenant may do stands in the tenants file. A folder, such as a mounted Kubernetes Secret, is
read as all of its files together.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from orchestrator.core import SpecError
from orchestrator.gateway.errors import ApiError, unauthorized
from orchestrator.gateway.watched import Watched, files_of
from orchestrator.spec import TENANT_NAME
from orchestrator.telemetry import Log

_LINE = re.compile(rf"(?P<tenant>{TENANT_NAME})\s+sha256:(?P<digest>[0-9a-f]{{64}})")
_OPTIONS = re.compile(rf"{_LINE.pattern}\s+\S.*")

EVERYBODY = ""  # the tenant of all requests, where no keys are configured


def new_key() -> str:
    """A key in the form of the official ones, with 192 random bits."""
    return f"sk-{secrets.token_hex(24)}"


def digest(key: str) -> str:
    """What is stored of a key. A plain hash will do: nobody guesses 192 bits."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_line(tenant: str, key: str) -> str:
    """The line of the file that makes `key` the tenant's. Raises SpecError for a name that is
    none.
    """
    line = f"{tenant} sha256:{digest(key)}"
    if _LINE.fullmatch(line) is None:
        raise SpecError(
            f"the tenant's name {tenant!r} has other characters than letters, digits, . _ @ -",
            "give a name of at most 64 of these",
        )
    return line


def read_keys(path: Path) -> Mapping[str, str]:
    """The tenants by their keys' digests.

    Raises SpecError if the path cannot be read, holds no key or a line that is none.
    """
    tenants: dict[str, str] = {}
    for file in files_of(path):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(f"cannot read the keys in {file}: {error}", _CURE) from error
        for number, line in enumerate(lines, 1):
            if text := line.partition("#")[0].strip():
                key, tenant = _parse(text, f"{file}, line {number}")
                if tenants.setdefault(key, tenant) != tenant:
                    raise SpecError(
                        f"{file}, line {number}: the key is {tenants[key]}'s already",
                        "make a key for each tenant",
                    )
    if not tenants:
        raise SpecError(f"api.keys_path: there is no key in {path}", _CURE)
    return tenants


_CURE = "write keys with `r1-serve key`, or remove api.keys_path to serve without keys"


def _parse(text: str, place: str) -> tuple[str, str]:
    found = _LINE.fullmatch(text)
    if found is not None:
        return found["digest"], found["tenant"]
    if _OPTIONS.fullmatch(text) is not None:
        raise SpecError(
            f"{place}: there is more than a tenant and a hash",
            "move limits, class and suspension to the tenants file, api.tenants_path",
        )
    raise SpecError(f"{place} is no `TENANT sha256:HEX`", _CURE)


class Keys:
    """The keys in force. Without a path everybody may come in, and the log says so."""

    def __init__(self, path: str | None, log: Log) -> None:
        """Raises SpecError if the path has no valid keys."""
        self._file = None if path is None else Watched("keys", Path(path), read_keys, log)
        if path is None:
            log.warning("api_open", cause="no api.keys_path: every key is accepted")

    def check(self, authorization: str | None) -> str | ApiError:
        """The tenant that an `Authorization` header proves, or the official refusal."""
        if self._file is None:
            return EVERYBODY
        scheme, _, key = (authorization or "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            return unauthorized("auth header format should be Bearer sk-...")
        tenant = self._file.value.get(digest(key))
        if tenant is None:
            return unauthorized(f"Your api key: ****{key[-4:]} is invalid", bare=True)
        return tenant

    def look(self) -> None:
        """Reads the keys again if their files have changed; bad ones leave those in force."""
        if self._file is not None:
            self._file.look()
