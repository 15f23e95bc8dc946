"""Small line charts and stacked bars as SVG text; colours are CSS classes of the page."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

Points = Sequence[tuple[float, float]]

_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 14, 44


@dataclass(frozen=True, slots=True)
class Line:
    """A series; `style` is a CSS class, `band` the relative half-width of a shade around it.

    With `dots` each point is a dot and no line joins them.
    """

    name: str
    points: Points
    style: str
    band: float = 0.0
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A point with a word beside it, or with `upright` a line from bottom to top."""

    x: float
    y: float
    text: str
    upright: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with both axes from 0, or logarithmic in y."""

    x_title: str
    y_title: str
    lines: Sequence[Line]
    marks: Sequence[Mark] = ()
    width: int = 620
    height: int = 340
    log_y: bool = False
    x_most: float | None = None  # where the axis ends; None: at the largest value
    y_most: float | None = None
    y_least: float | None = None  # None: 0, or just below the least where logarithmic
    span: tuple[float, float] | None = None  # of x, shaded


def chart(asked: Chart) -> str:
    """The SVG element."""
    frame = _frame(asked)
    parts = [*_grid(asked, frame)]
    if asked.span is not None:
        parts.append(_span(asked.span, frame))
    for line in asked.lines:
        parts += _line(line, frame)
    for mark in asked.marks:
        parts += _mark(mark, frame)
    return _svg(asked.width, asked.height, f"{asked.y_title} against {asked.x_title}", parts)


@dataclass(frozen=True, slots=True)
class Bar:
    """One stacked bar: parts with their name, size and CSS class."""

    name: str
    parts: Sequence[tuple[str, float, str]]
    total: float


def stacked(bars: Sequence[Bar], unit: float, suffix: str, width: int = 960) -> str:
    """Horizontal bars on one scale; sizes are shown divided by `unit`."""
    most = max(bar.total for bar in bars)
    left, gap, tall = 84, 26, 34
    parts = []
    for row, bar in enumerate(bars):
        y = 8 + row * (tall + gap)
        parts.append(_text(left - 10, y + tall / 2 + 4, bar.name, "end"))
        x = float(left)
        for name, size, style in bar.parts:
            wide = (width - left - 8) * size / most
            label = f"{name} {size / unit:,.1f} {suffix}"
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{max(wide - 1, 0):.1f}" height="{tall}" '
                f'class="{style}"><title>{escape(label)}</title></rect>'
            )
            if wide > 7.2 * len(label):
                parts.append(_text(x + wide / 2, y + tall / 2 + 4, label, "middle", "on-bar"))
            x += wide
    return _svg(width, 8 + len(bars) * (tall + gap) - gap + 8, "bytes of a GPU", parts)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, some `about` of them."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(at * step, 12) for at in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten from `low` to `high`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [m * 10.0**power for power in powers for m in (1, 2, 5)]
    return [value for value in every if low <= value * (1 + 1e-9) and value <= high * (1 + 1e-9)]


@dataclass(frozen=True, slots=True)
class _Frame:
    width: int
    height: int
    x_most: float
    y_least: float
    y_most: float
    log_y: bool
    x_ticks: list[float] = field(default_factory=list)
    y_ticks: list[float] = field(default_factory=list)

    def x(self, value: float) -> float:
        span = self.width - _LEFT - _RIGHT
        return _LEFT + span * min(value / self.x_most, 1.0)

    def y(self, value: float) -> float:
        span = self.height - _TOP - _BOTTOM
        low, high, at = self.y_least, self.y_most, value
        if self.log_y:
            low, high, at = math.log(low), math.log(high), math.log(max(value, self.y_least))
        return _TOP + span * (1 - min(max((at - low) / (high - low), 0.0), 1.0))


def _frame(asked: Chart) -> _Frame:
    xs = [x for line in asked.lines for x, _ in line.points] + [mark.x for mark in asked.marks]
    ys = [y for line in asked.lines for _, y in line.points if math.isfinite(y)]
    x_most = asked.x_most or max(xs) * 1.04
    y_most = asked.y_most or max(ys) * 1.08
    y_least = asked.y_least or (min(y for y in ys if y > 0) * 0.9 if asked.log_y else 0.0)
    y_ticks = log_ticks(y_least, y_most) if asked.log_y else ticks(y_least, y_most)
    return _Frame(
        asked.width, asked.height, x_most, y_least, y_most, asked.log_y, ticks(0.0, x_most), y_ticks
    )


def _grid(asked: Chart, frame: _Frame) -> Iterator[str]:
    bottom, right = asked.height - _BOTTOM, asked.width - _RIGHT
    for value in frame.y_ticks:
        y = frame.y(value)
        yield f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" class="grid"/>'
        yield _text(_LEFT - 8, y + 4, _number(value), "end")
    for value in frame.x_ticks:
        x = frame.x(value)
        yield f'<line x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 5}" class="axis"/>'
        yield _text(x, bottom + 19, _number(value), "middle")
    yield f'<line x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}" class="axis"/>'
    yield _text((_LEFT + right) / 2, asked.height - 6, asked.x_title, "middle", "title")
    middle = (_TOP + bottom) / 2
    yield (
        f'<text x="14" y="{middle:.0f}" transform="rotate(-90 14 {middle:.0f})" '
        f'text-anchor="middle" class="title">{escape(asked.y_title)}</text>'
    )


def _line(line: Line, frame: _Frame) -> Iterator[str]:
    seen = [
        (x, y)
        for x, y in line.points
        if math.isfinite(y) and x <= frame.x_most and y <= frame.y_most
    ]
    if not seen:
        return
    if line.dots:
        for x, y in seen:
            at = f'cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}"'
            yield f'<circle {at} r="3.5" class="{line.style} dot"/>'
        return
    if line.band:
        above = [(frame.x(x), frame.y(y * (1 + line.band))) for x, y in seen]
        below = [(frame.x(x), frame.y(y * (1 - line.band))) for x, y in reversed(seen)]
        yield f'<polygon points="{_joined([*above, *below])}" class="{line.style} band"/>'
    drawn = _joined([(frame.x(x), frame.y(y)) for x, y in seen])
    yield (
        f'<polyline points="{drawn}" class="{line.style} line"><title>{escape(line.name)}</title>'
        "</polyline>"
    )


def _mark(mark: Mark, frame: _Frame) -> Iterator[str]:
    x, bottom = frame.x(mark.x), frame.height - _BOTTOM
    if mark.upright:
        near_right = x > frame.width - 150
        anchor, beside = ("end", -7) if near_right else ("start", 7)
        yield f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}" class="bound"/>'
        yield _text(x + beside, _TOP + 11, mark.text, anchor, "bound-text")
        return
    y = frame.y(mark.y)
    anchor, beside = ("end", -9) if x > 2 * _LEFT else ("start", 9)
    yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="mark"/>'
    yield _text(x + beside, y - 9, mark.text, anchor, "mark-text")


def _span(span: tuple[float, float], frame: _Frame) -> str:
    left, right = (frame.x(value) for value in span)
    tall = frame.height - _TOP - _BOTTOM
    at = f'x="{left:.1f}" y="{_TOP}" width="{max(right - left, 1):.1f}" height="{tall}"'
    return f'<rect {at} class="span"/>'


def _joined(points: Points) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _text(x: float, y: float, text: str, anchor: str, style: str = "label") -> str:
    at = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {at} class="{style}">{escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )
