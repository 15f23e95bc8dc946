"""The boards as plain pages, for who has no Grafana: the same panels, asked of Prometheus anew with
each load. No script; a page loads itself again.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import parse_qs, quote, urlsplit

import msgspec

from orchestrator.cli.document import document, table
from orchestrator.cli.shown import axis, shown
from orchestrator.cli.svg import Chart, Line, chart
from orchestrator.runtime.http_get import BadAnswer, get
from orchestrator.telemetry.boards import BOARDS, Board, Panel, Query, Shape

MINUTES, MINUTES_MAX = 15, 7 * 24 * 60  # of the past that are shown
_POINTS = 90  # of a line
_STEP_S_MIN = 5
_LINES_MAX = 12  # of a panel; the others are counted
_RELOAD_S = 15
_COLOURS = 5
_HTML = "text/html; charset=utf-8"


class _Result(msgspec.Struct):
    metric: dict[str, str]
    values: list[tuple[float, str]]


class _Data(msgspec.Struct):
    result: list[_Result]


class _Answer(msgspec.Struct):
    data: _Data


class _Firing(msgspec.Struct):
    labels: dict[str, str]
    annotations: dict[str, str]
    state: str


class _Alerts(msgspec.Struct):
    alerts: list[_Firing]


class _AlertsAnswer(msgspec.Struct):
    data: _Alerts


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a panel: instants in seconds of Unix time, oldest first."""

    name: str
    points: Sequence[tuple[float, float]]


class StatusPage:
    """Answers with the boards' pages, from one Prometheus at host:port."""

    def __init__(self, prometheus: str) -> None:
        self._prometheus = prometheus

    async def answer(self, target: str) -> tuple[int, str, bytes]:
        """Status, content type and body for a path."""
        parts = urlsplit(target)
        board = next((each for each in BOARDS if parts.path == f"/{each.uid}"), None)
        if parts.path == "/":
            board = BOARDS[0]
        if board is None:
            return 404, "text/plain", b"there are / and a page for each board\n"
        try:
            minutes = int(parse_qs(parts.query).get("minutes", [str(MINUTES)])[0])
        except ValueError:
            minutes = MINUTES
        minutes = min(max(1, minutes), MINUTES_MAX)
        try:
            body = await self._page(board, minutes)
        except (OSError, BadAnswer, msgspec.DecodeError) as error:
            text = f"Prometheus at {self._prometheus} does not answer: {error}\n"
            return 503, "text/plain", text.encode()
        return 200, _HTML, body.encode()

    async def _page(self, board: Board, minutes: int) -> str:
        now = time.time()
        firing, *panels = await asyncio.gather(
            self._firing(), *(self._panel(panel, minutes, now) for panel in board.panels)
        )
        tabs = "".join(
            f"<a href='/{each.uid}'{' class=here' if each is board else ''}>"
            f"{escape(each.title.removeprefix('R1 · '))}</a>"
            for each in BOARDS
        )
        spans = " ".join(f"<a href='?minutes={m}'>{m} min</a>" for m in (15, 60, 360, 1440))
        body = [
            f"<meta http-equiv='refresh' content='{_RELOAD_S}'>",
            f"<nav class='tabs'>{tabs}</nav>",
            f"<h1>{escape(board.title)}</h1><p class='sub'>{_words(board.help)} "
            f"The last {minutes} minutes; {spans}.</p>",
            firing,
            f"<div class='panels'>{''.join(panels)}</div>",
        ]
        return document(board.title, body)

    async def _firing(self) -> str:
        answer = await get(self._prometheus, "/api/v1/alerts")
        alerts = msgspec.json.decode(answer, type=_AlertsAnswer).data.alerts
        rows = [
            (each.labels["alertname"], each.annotations["summary"], each.annotations["runbook"])
            for each in alerts
            if each.state == "firing"
        ]
        if not rows:
            return "<p class='sub'>No alert fires.</p>"
        return table(("alert", "what", "what to do"), rows)

    async def _panel(self, panel: Panel, minutes: int, now: float) -> str:
        found: list[Series] = []
        for query in panel.queries:
            found += await self._ask(query, minutes, now)
        if not found:
            inside = f"<p class='none'>No data. {_words(panel.absent)}</p>"
        else:
            inside = _drawn(panel, found, now - 60 * minutes, minutes)
        said = f"<p>{_words(panel.help)}</p>" if panel.help else ""
        state = "data" if found else "absent"
        return (
            f"<section data-panel='{state}'><h2>{escape(panel.title)}</h2>{inside}{said}</section>"
        )

    async def _ask(self, query: Query, minutes: int, now: float) -> list[Series]:
        step_s = max(_STEP_S_MIN, 60 * minutes // _POINTS)
        window = f"start={now - 60 * minutes:.0f}&end={now:.0f}&step={step_s}"
        target = f"/api/v1/query_range?query={quote(query.promql)}&{window}"
        answer = msgspec.json.decode(await get(self._prometheus, target), type=_Answer)
        return [
            Series(_name(query, one.metric), [(at, float(value)) for at, value in one.values])
            for one in answer.data.result
        ]


def _words(text: str) -> str:
    """Text as HTML, with names between backticks as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def _name(query: Query, labels: dict[str, str]) -> str:
    """The legend with the series' labels; those that it has not are left out."""
    name = query.legend
    while (at := name.find("{{")) >= 0:
        key, _, rest = name[at + 2 :].partition("}}")
        name = name[:at] + labels.get(key, "") + rest
    return " ".join(name.split()) or query.promql


def _drawn(panel: Panel, found: Sequence[Series], since: float, minutes: int) -> str:
    if panel.shape is not Shape.SERIES:
        rows = [(each.name, shown(each.points[-1][1], panel.show)) for each in found]
        if panel.shape is Shape.TABLE:
            return table(("", "now"), rows)
        return "".join(f"<p class='now'><b>{escape(v)}</b> {escape(n)}</p>" for n, v in rows)
    kept = sorted(found, key=lambda each: -abs(each.points[-1][1]))[:_LINES_MAX]
    most = max((y for each in kept for _, y in each.points if y == y), default=0.0)
    factor, unit = axis(most, panel.show)
    lines = [
        Line(
            f"{each.name}: {shown(each.points[-1][1], panel.show)}",
            [((at - since) / 60, y / factor) for at, y in each.points if y == y],
            f"s{number % _COLOURS}",
        )
        for number, each in enumerate(kept)
    ]
    drawn = chart(
        Chart(
            f"minutes, of the last {minutes}",
            unit,
            lines,
            width=500,
            height=240,
            x_most=float(minutes),
            y_most=most / factor * 1.1 or 1.0,
        )
    )
    keys = "".join(
        f"<li><i class='{line.style} key'></i>{escape(line.name)}</li>" for line in lines
    )
    more = f"<li>and {len(found) - len(kept)} more</li>" if len(found) > len(kept) else ""
    return f"{drawn}<ul class='legend'>{keys}{more}</ul>"
