"""Charts: ticks are round, and everything is drawn inside the frame."""

import math
import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.svg import Bar, Chart, Line, Mark, chart, log_ticks, stacked, ticks


@given(st.floats(0, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_even_and_inside(low: float, width: float) -> None:
    found = ticks(low, low + width)
    assert len(found) <= 8
    assert all(low - 1e-6 * width <= tick <= (low + width) * (1 + 1e-9) for tick in found)
    gaps = [late - early for early, late in pairwise(found)]
    assert not gaps or max(gaps) - min(gaps) < 1e-5 * width


@given(st.floats(1e-4, 1e4), st.floats(1.5, 1e4))
def test_log_ticks_are_inside(low: float, factor: float) -> None:
    assert all(
        low * (1 - 1e-6) <= t <= low * factor * (1 + 1e-6) for t in log_ticks(low, low * factor)
    )


points = st.lists(st.tuples(st.floats(0.1, 1e5), st.floats(0.1, 1e5)), min_size=2, max_size=20)


@given(points, st.booleans(), st.floats(0, 0.9))
def test_lines_bands_and_marks_stay_inside_the_frame(
    seen: list[tuple[float, float]], log_y: bool, band: float
) -> None:
    drawn = Chart("x", "y", [Line("a", seen, "s0", band)], [Mark(*seen[0], "here")], log_y=log_y)
    text = chart(drawn)
    for pair in re.findall(
        r"(-?[\d.]+),(-?[\d.]+)", " ".join(re.findall('points="([^"]*)"', text))
    ):
        x, y = map(float, pair)
        assert 0 <= x <= drawn.width
        assert 0 <= y <= drawn.height


def test_infinite_values_are_left_out() -> None:
    line = Line("a", [(1.0, 2.0), (2.0, math.inf), (3.0, 4.0)], "s0")
    assert "inf" not in chart(Chart("x", "y", [line]))


def test_bars_are_as_long_as_their_parts_and_words_are_escaped() -> None:
    text = stacked([Bar("<a>", [("kv", 3e9, "m-kv"), ("rest", 1e9, "m-x")], 4e9)], 1e9, "GB")
    widths = [float(w) for w in re.findall(r'<rect [^>]*width="([\d.]+)"', text)]
    assert widths[0] / widths[1] == round(widths[0] / widths[1], 1) or widths[0] > 2.9 * widths[1]
    assert "<a>" not in text
    assert "&lt;a&gt;" in text
