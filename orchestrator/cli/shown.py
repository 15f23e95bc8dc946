"""A number of a panel as a person reads it."""

import math

from orchestrator.telemetry.boards import Show

_STEPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_TIMES = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))
_UNITS = {
    Show.NUMBER: "",
    Show.MONEY: "",
    Show.PER_SECOND: "/s",
    Show.BYTES: "B",
    Show.BYTES_PER_SECOND: "B/s",
    Show.WATTS: "W",
    Show.HERTZ: "Hz",
    Show.CELSIUS: "°C",
    Show.PERCENT: "%",
}


def shown(value: float, show: Show) -> str:
    """Three digits and a unit."""
    if math.isnan(value):
        return "not known"
    if show is Show.RATIO:
        return f"{100 * value:.3g} %"
    if show is Show.SECONDS:
        return _time(value)
    size = abs(value)
    factor, prefix = next(((f, p) for f, p in _STEPS if size >= f), (1.0, ""))
    unit = f"{prefix}{_UNITS[show]}"
    return f"{value / factor:.3g}{' ' if unit and not unit.startswith('/') else ''}{unit}"


def axis(most: float, show: Show) -> tuple[float, str]:
    """What numbers up to `most` are divided by on an axis, and what they are then of."""
    if show is Show.RATIO:
        return 0.01, "%"
    if show is Show.SECONDS:
        return 1.0, "s"
    factor, prefix = next(((f, p) for f, p in _STEPS if most >= f), (1.0, ""))
    return factor, f"{prefix}{_UNITS[show]}"


def _time(value: float) -> str:
    size = abs(value)
    if size < 1:
        return f"{1e3 * value:.3g} ms"
    for length, unit in _TIMES:
        if size >= 2 * length:
            return f"{value / length:.3g} {unit}"
    return f"{value:.3g} s"
