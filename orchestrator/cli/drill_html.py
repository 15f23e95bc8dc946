"""A drill as one HTML file, to be kept as evidence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from orchestrator.cli.document import card, document, table
from orchestrator.cli.svg import Chart, Line, Mark, chart
from orchestrator.fleet.drill import Drill, Judgement, Phase, Seen


@dataclass(frozen=True, slots=True)
class Told:
    """A drill that has been held, for whoever shows it. Instants in seconds from its beginning."""

    drill: Drill
    fleet: str
    struck: str
    seen: Seen
    judgement: Judgement
    notes: Sequence[tuple[float, str]]  # what happened to the fleet
    causes: Sequence[tuple[str, int]]  # of what did not end well
    lines: Mapping[str, Sequence[tuple[float, float]]]  # by name, requests a second
    struck_at: float
    back_at: float | None


def page(told: Told, command: str) -> str:
    """The whole page; `command` is how it was made."""
    title = f"Drill {told.drill}: {told.judgement.verdict}"
    marks = [Mark(told.struck_at, 0, "struck", upright=True)]
    if told.back_at is not None:
        marks.append(Mark(told.back_at, 0, "back", upright=True))
    series = [Line(name, points, f"s{at}") for at, (name, points) in enumerate(told.lines.items())]
    names = "".join(
        f"<li><i class='s{at} key'></i>{escape(name)}</li>" for at, name in enumerate(told.lines)
    )
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p class='sub'>{escape(told.fleet)}. Struck: {escape(told.struck)}.</p>",
        card("What was looked at", _findings(told.judgement)),
        card("Requests", _phases(told.seen)),
        card(
            "Requests a second",
            chart(Chart("s", "requests/s", series, marks, width=960, height=300)),
            f"<ul class='legend'>{names}</ul>",
        ),
    ]
    if told.causes:
        rows = [(f"{times:,}", cause) for cause, times in told.causes]
        body.append(card("What did not end well", table(("requests", "cause"), rows)))
    if told.notes:
        rows = [(f"{at:,.1f}", text) for at, text in told.notes]
        body.append(card("The fleet", table(("at, s", "what"), rows)))
    body.append(f"<p class='sub'>Made by <code>{escape(command)}</code></p>")
    return document(title, body)


def _findings(judgement: Judgement) -> str:
    rows = [("right" if each.right else "NOT RIGHT", each.text) for each in judgement.findings]
    return table(("", ""), rows)


def _phases(seen: Seen) -> str:
    head = ("", "seconds", "within the SLO", "late", "refused", "failed", "broken", "goodput, 1/s")
    rows = []
    for phase in Phase:
        tally = seen.phases[phase]
        counts = (tally.kept, tally.late, tally.shed, tally.failed, tally.broken)
        cells = [f"{each:,}" for each in counts]
        rows.append((phase, f"{tally.lasts_s:,.0f}", *cells, f"{tally.kept_per_s:.2f}"))
    return table(head, rows)
