"""The HTML document that every page of ours is."""

from collections.abc import Iterable
from html import escape
from importlib.resources import files


def document(title: str, body: Iterable[str]) -> str:
    """One file without script or anything from elsewhere; `title` is text, `body` HTML."""
    style = files("orchestrator.cli").joinpath("plan.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def card(title: str, *content: str) -> str:
    """A part of the page under a heading; `title` is text, `content` HTML."""
    return f"<section><h2>{escape(title)}</h2>{''.join(content)}</section>"
