"""`r1-serve usage`: what tenants have used, from the gateways' journals."""

import argparse
import json
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core import SpecError

if TYPE_CHECKING:
    from orchestrator.admission import Rows, Usage, UsageKey

_EPOCH = date(1970, 1, 1)
_HEAD = ("day", "tenant", "model", "requests", "open", "input", "cached", "thinking", "answer")
_NAMES = 3  # of the columns, those that are no numbers


def add_usage(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.description = (
        "Adds up the journals that gateways write into `usage.dir` of the spec, running ones "
        "included: requests, tokens of each class and money, by day (UTC), tenant and model. "
        "`open` are requests that run, or that died with their gateway."
    )
    parser.add_argument("folder", type=Path, help="the spec's usage.dir")
    parser.add_argument("--tenant", action="append", metavar="NAME", help="only of this one")
    parser.add_argument("--since", type=_day, metavar="YYYY-MM-DD", help="the first day")
    parser.add_argument("--until", type=_day, metavar="YYYY-MM-DD", help="the last day")
    parser.add_argument("--json", action="store_true", help="a JSON document instead of a table")
    parser.set_defaults(run=_usage)


def _usage(options: argparse.Namespace) -> int:
    from orchestrator.gateway import read_usage  # imports the HTTP side

    if options.since and options.until and options.since > options.until:
        raise SpecError("--since is after --until", "exchange them")
    found = read_usage(options.folder)
    rows = {
        key: usage
        for key, usage in found.rows.items()
        if (options.tenant is None or key.tenant in options.tenant)
        and (options.since is None or _date(key.day) >= options.since)
        and (options.until is None or _date(key.day) <= options.until)
    }
    if found.damaged:
        print(f"{found.damaged} damaged records were left out", file=sys.stderr)
    if options.json:
        print(_document(rows, found.currency, found.damaged))
    else:
        print(_table(rows, found.currency))
    return 0


def _day(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no day such as 2026-01-31") from error


def _date(day: int) -> date:
    return _EPOCH + timedelta(days=day)


def _document(rows: "Rows", currency: str, damaged: int) -> str:
    document = {
        "currency": currency,
        "damaged_records": damaged,
        "usage": [_names(key) | _numbers(usage) for key, usage in rows.items()],
        "total": _numbers(_sum(rows)),
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def _names(key: "UsageKey") -> dict[str, object]:
    return {"day": _date(key.day).isoformat(), "tenant": key.tenant, "model": key.model}


def _numbers(usage: "Usage") -> dict[str, object]:
    tokens = usage.tokens
    return {
        "requests": usage.requests,
        "open": usage.open,
        "input": tokens.input,
        "cached_input": tokens.cached_input,
        "thinking": tokens.thinking,
        "answer": tokens.answer,
        "money": _money(usage),
    }


def _money(usage: "Usage") -> str:
    """Exact, without zeros behind the cents."""
    from orchestrator.admission import PICO

    exact = Decimal(usage.cost_pico) / PICO
    cents = exact.quantize(Decimal("0.01"))
    return f"{cents if cents == exact else exact.normalize():f}"


def _table(rows: "Rows", currency: str) -> str:
    lines: list[tuple[str, ...]] = [(*_HEAD, currency or "money")]
    for key, usage in rows.items():
        lines.append((*map(str, _names(key).values()), *_cells(usage)))
    lines.append(("total", "", "", *_cells(_sum(rows))))
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at < _NAMES else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(usage: "Usage") -> list[str]:
    return [
        f"{value:,}" if isinstance(value, int) else str(value) for value in _numbers(usage).values()
    ]


def _sum(rows: "Rows") -> "Usage":
    from orchestrator.admission import Usage

    return sum(rows.values(), Usage())
