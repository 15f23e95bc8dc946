"""What is under test: where it is, and what every request to it repeats."""

import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from gevent.ssl import SSLContext

from orchestrator.core import SpecError

_CURE = "give the URL under which clients have the API, such as https://r1.example.com/v1"


@dataclass(frozen=True, slots=True)
class Target:
    """A server's API; connections go to its addresses in turn."""

    url: str  # without a slash at its end
    host: str
    port: int
    addresses: tuple[str, ...]  # of the host, or its name until it was resolved
    path: str  # before /chat/completions
    key: str
    tls: SSLContext | None

    def at(self, addresses: tuple[str, ...]) -> "Target":
        """The same with its host resolved."""
        return replace(self, addresses=addresses)

    def head(self, method: str, path: str, length: int = 0, *, close: bool = False) -> bytes:
        """A request's head, with its blank line."""
        default = 443 if self.tls is not None else 80
        port = "" if self.port == default else f":{self.port}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"{method} {self.path}{path} HTTP/1.1", f"Host: {host}{port}"]
        if self.key:
            lines.append(f"Authorization: Bearer {self.key}")
        if length:
            lines += ["Content-Type: application/json", f"Content-Length: {length}"]
        if close:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "User-Agent: r1-serve-loadtest", "", ""]).encode("latin-1")

    def request(self, body: bytes) -> bytes:
        """A whole request for a completion."""
        return self.head("POST", "/chat/completions", len(body)) + body


def target_of(
    url: str, key: str = "", ca: Path | str | None = None, *, insecure: bool = False
) -> Target:
    """Reads a URL; raises SpecError if it is none of HTTP."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SpecError(f"--url {url}: {error}", _CURE) from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SpecError(f"--url {url} is no http or https URL", _CURE)
    if not (key.isascii() and key.isprintable()):
        raise SpecError("the API key has characters that no key has", "look at its file's end")
    tls = _context(ca, insecure=insecure) if parts.scheme == "https" else None
    return Target(
        url.rstrip("/"),
        parts.hostname,
        port or (443 if tls is not None else 80),
        (parts.hostname,),
        parts.path.rstrip("/"),
        key,
        tls,
    )


def _context(ca: Path | str | None, *, insecure: bool) -> SSLContext:
    context = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        if ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(ca)
    except OSError as error:
        raise SpecError(f"--ca {ca}: {error}", "give a file with certificates, PEM") from None
    return context
