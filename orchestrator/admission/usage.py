"""The records of what requests used, and what they add up to.

A life is one gateway from its start to its end; it writes its records into numbered segments, of
which each begins with what was open when the one before it ended. Folded in their order, segments
give totals in which each request stands once: with what it used, or, as long as it is open, with
what was last said of it. A life that was killed leaves its open requests so for good.
"""

from dataclasses import dataclass, field

import msgspec

from orchestrator.core import TokenCounts

VERSION = 1
DAY_S = 86_400


class OpenRequest(msgspec.Struct, frozen=True):
    """A request that has not ended, and what it has used as far as is known. `at_s` is Unix time,
    as everywhere here.
    """

    request_id: str
    tenant: str
    model: str
    at_s: int
    tokens: TokenCounts = TokenCounts()
    cost_pico: int = 0


class Began(msgspec.Struct, frozen=True, tag="began", tag_field="record"):
    """The first record of a segment."""

    life: str
    segment: int
    currency: str
    open: tuple[OpenRequest, ...] = ()
    version: int = VERSION


class Opened(msgspec.Struct, frozen=True, tag="opened", tag_field="record"):
    """A request was let in."""

    request_id: str
    tenant: str
    model: str
    at_s: int


class Charge(msgspec.Struct, frozen=True):
    """What an open request has used since its beginning."""

    request_id: str
    tokens: TokenCounts
    cost_pico: int


class Progress(msgspec.Struct, frozen=True, tag="progress", tag_field="record"):
    """Some open requests have used more."""

    at_s: int
    charges: tuple[Charge, ...]


class Ended(msgspec.Struct, frozen=True, tag="ended", tag_field="record"):
    """The one end of a request."""

    request_id: str
    tenant: str
    model: str
    at_s: int
    outcome: str
    tokens: TokenCounts
    cost_pico: int


Record = Began | Opened | Progress | Ended


class UsageKey(msgspec.Struct, frozen=True, order=True):
    """Whose usage of what on which day, counted from 1970 in UTC; no model and day 0: of all."""

    day: int
    tenant: str
    model: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used. `requests` counts the `open` ones too."""

    requests: int = 0
    open: int = 0
    tokens: TokenCounts = field(default_factory=TokenCounts)
    cost_pico: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.requests + other.requests,
            self.open + other.open,
            self.tokens + other.tokens,
            self.cost_pico + other.cost_pico,
        )


Rows = dict[UsageKey, Usage]


class Fold:
    """Adds up the records of one life, each once and in their order; `on` is the only way in.

    Holds what is open, and a row for each tenant, model and day, or for each tenant alone.
    """

    def __init__(self, *, by_day: bool, rows: Rows | None = None) -> None:
        """`rows` are what earlier segments added up to, without what was open."""
        self._by_day = by_day
        self._ended: Rows = {}
        self._open: dict[str, OpenRequest] = {}
        self.currency = ""  # as the last segment says
        self.faults = 0  # records that contradict those before them; they count for nothing
        for key, usage in (rows or {}).items():
            self._add(self._key(key.tenant, key.model, key.day), usage)

    @property
    def open(self) -> tuple[OpenRequest, ...]:
        """What has not ended, in the order of its opening."""
        return tuple(self._open.values())

    @property
    def ended(self) -> Rows:
        """What has ended."""
        return dict(self._ended)

    def rows(self) -> Rows:
        """What has ended, and what is open as far as is known."""
        rows = dict(self._ended)
        for each in self._open.values():
            key = self._key(each.tenant, each.model, each.at_s // DAY_S)
            rows[key] = rows.get(key, Usage()) + Usage(1, 1, each.tokens, each.cost_pico)
        return rows

    def on(self, record: Record) -> None:
        """The next record."""
        match record:
            case Began(currency=currency, open=carried):
                self.currency = currency
                self._open = {each.request_id: each for each in carried}
            case Opened(request_id, tenant, model, at_s):
                self.faults += request_id in self._open
                self._open[request_id] = OpenRequest(request_id, tenant, model, at_s)
            case Progress(at_s, charges):
                for charge in charges:
                    self._charge(at_s, charge)
            case Ended():
                self._end(record)

    def _charge(self, at_s: int, charge: Charge) -> None:
        found = self._open.get(charge.request_id)
        if found is None:
            self.faults += 1
            return
        self._open[charge.request_id] = OpenRequest(
            found.request_id, found.tenant, found.model, at_s, charge.tokens, charge.cost_pico
        )

    def _end(self, ended: Ended) -> None:
        if self._open.pop(ended.request_id, None) is None:
            self.faults += 1
            return
        key = self._key(ended.tenant, ended.model, ended.at_s // DAY_S)
        self._add(key, Usage(1, 0, ended.tokens, ended.cost_pico))

    def _add(self, key: UsageKey, usage: Usage) -> None:
        self._ended[key] = self._ended.get(key, Usage()) + usage

    def _key(self, tenant: str, model: str, day: int) -> UsageKey:
        return UsageKey(day, tenant, model) if self._by_day else UsageKey(0, tenant, "")
