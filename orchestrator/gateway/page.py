"""The chat page at `/`: static files, read once.

Only what is in the page's folder when the gateway starts can be asked for. Its libraries lie in
`page/vendor`, where `deploy/page/build.sh` puts them; without them the page shows plain text.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

_FOLDER = Path(__file__).with_name("page")
_INDEX = "index.html"

# Nothing comes from elsewhere and nothing is inline, styles included: KaTeX builds its formulas
# through the DOM, which no policy forbids. Only DOMPurify may make nodes out of a string.
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-cache",  # kept, but asked about each time: the answer is a short 304
}
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
    "": "text/plain; charset=utf-8",  # licences
}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    content_type: str
    etag: str


def page_routes(folder: Path = _FOLDER) -> list[BaseRoute]:
    """The page at `/` and its parts under `/page/`, for GET and HEAD.

    All links of the page are relative: behind a path prefix its address must end in a slash.
    """
    files = _read(folder)

    async def index(request: Request) -> Response:
        return _answer(request, files[_INDEX])

    async def part(request: Request) -> Response:
        file = files.get(request.path_params["path"])
        if file is None:
            return Response("Not Found", 404, _HEADERS, "text/plain")
        return _answer(request, file)

    return [Route("/", index), Route("/page/{path:path}", part)]


def _read(folder: Path) -> dict[str, _File]:
    """All files that the page may ask for, by path below `folder`."""
    files: dict[str, _File] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in _TYPES and not path.name.startswith("."):
            body = path.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            files[path.relative_to(folder).as_posix()] = _File(body, _TYPES[path.suffix], etag)
    return files


def _answer(request: Request, file: _File) -> Response:
    headers = _HEADERS | {"ETag": file.etag}
    known = {
        tag.strip().removeprefix("W/")
        for tag in request.headers.get("if-none-match", "").split(",")
    }
    if file.etag in known:
        return Response(None, 304, headers)
    return Response(file.body, 200, headers, file.content_type)
