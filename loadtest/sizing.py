"""From a capacity to nodes for a target, and what gives way next."""

from collections.abc import Callable
from dataclasses import dataclass

from loadtest.reading import Point, over
from loadtest.result import Capacity, Latency, Slo

_UNITS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Need:
    """Nodes for a target. `low` and `high` are those of the capacity's 95 % interval."""

    target_per_s: float
    nodes: int
    low: int
    high: int
    unit_nodes: int
    assumption: str


def linear(units: float) -> float:
    """So many times the gangs do so many times the work."""
    return units


def nodes_needed(
    capacity: Capacity,
    nodes: int,
    target_per_s: float,
    *,
    unit_nodes: int = 1,
    growth: Callable[[float], float] = linear,
    assumption: str = "",
) -> Need | None:
    """Whole units of `unit_nodes` that carry the target; None if the run proves no load at all.

    `nodes` are those of the run. `growth` says what a fleet of so many times its size carries, as a
    multiple of what it does.
    """
    assert nodes > 0
    assert unit_nodes > 0
    assert target_per_s > 0
    if capacity.per_s <= 0 or capacity.low_per_s <= 0:
        return None

    def units(per_s: float) -> int:
        low, high = 0, 1
        while per_s * growth(high * unit_nodes / nodes) < target_per_s and high < _UNITS_MAX:
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            enough = per_s * growth(middle * unit_nodes / nodes) >= target_per_s
            low, high = (low, middle) if enough else (middle, high)
        return high

    # Without an upper end the fleet may do better than was seen: one unit is all that is sure.
    least = 1 if capacity.high_per_s is None else units(capacity.high_per_s)
    whole = "a node" if unit_nodes == 1 else f"{unit_nodes} nodes, the fleet's smallest whole part"
    said = assumption or f"capacity grows in proportion to the nodes, in steps of {whole}"
    return Need(
        target_per_s,
        units(capacity.per_s) * unit_nodes,
        least * unit_nodes,
        units(capacity.low_per_s) * unit_nodes,
        unit_nodes,
        said,
    )


@dataclass(frozen=True, slots=True)
class Limit:
    """What gave way first: in a word, with its evidence, and what to do."""

    word: str
    evidence: str
    cure: str


def limit_of(points: list[Point], slo: Slo) -> Limit | None:
    """At the least load whose attainment is below its share; None if none is."""
    server = [point for point in points if not point.generator_bound]
    broken = [point for point in server if point.attainment < slo.share]
    if not broken:
        return _generator(points)
    clear = [p for p in broken if 1 - p.attainment > 2 * (1 - slo.share)]
    point = (clear or broken)[0]
    found = max(_causes(point, slo), key=lambda cause: cause[0])
    _, limit = found
    return limit


def _generator(points: list[Point]) -> Limit | None:
    bound = [point for point in points if point.generator_bound]
    if not bound:
        return None
    return Limit(
        "generator",
        f"the generator was late at {bound[0].per_s:.4g} requests/s, before the server broke",
        "give the load test more workers: --workers N, or run it on a machine of its own",
    )


def _causes(point: Point, slo: Slo) -> list[tuple[float, Limit]]:
    at = f"at {point.per_s:.4g} requests/s"
    late = over(point.latencies[Latency.TTFT], slo.ttft_s) if slo.ttft_s is not None else 0.0
    slow, slow_name = 0.0, ""
    if slo.itl_s is not None:
        for kind, name in ((Latency.TPOT_THINKING, "thoughts"), (Latency.TPOT_ANSWER, "answers")):
            share = over(point.latencies[kind], slo.itl_s)
            if share > slow:
                slow, slow_name = share, name
    long = over(point.latencies[Latency.E2E], slo.e2e_s) if slo.e2e_s is not None else 0.0
    ended = point.ended / max(point.due, 1)
    shed = (point.errors["http_429"] + point.errors["http_503"]) / max(point.due, 1)
    wrong = sum(point.errors.values()) / max(point.due, 1) - shed
    return [
        (late * ended, _late(point, late, slo, at)),
        (
            slow * ended,
            Limit(
                "decode",
                f"{slow:.1%} of {slow_name} took more than {(slo.itl_s or 0) * 1e3:g} ms for a "
                f"token {at}{_kv(point)}",
                "add decode gangs, or let fewer sequences into a batch (max_num_seqs) and accept "
                "waits instead",
            ),
        ),
        (
            long * ended * 0.5,  # what the other two bounds do not explain
            Limit(
                "end to end",
                f"{long:.1%} of requests took more than {slo.e2e_s or 0:g} s {at}",
                "bound thoughts (thinking budgets), or add decode gangs",
            ),
        ),
        (
            shed,
            Limit(
                "admission",
                f"{shed:.1%} of requests were refused (429 or 503) {at}",
                "if the fleet has room left, raise the tenant's limits or the queue's; if not, "
                "refusing is right, and more gangs are the cure",
            ),
        ),
        (
            wrong,
            Limit(
                "errors",
                f"{wrong:.1%} of requests ended in errors {at}: "
                + ", ".join(f"{count} {name}" for name, count in point.errors.most_common(3)),
                "this is a fault and no lack of room: r1-serve doctor, and the gateways' logs",
            ),
        ),
    ]


def _late(point: Point, late: float, slo: Slo, at: str) -> Limit:
    evidence = f"{late:.1%} of first tokens took more than {slo.ttft_s or 0:g} s {at}"
    kv = point.server("r1_rank_kv_ratio{role=decode}") or point.server("r1_rank_kv_ratio")
    if kv is not None and kv > 0.9:
        return Limit(
            "KV memory",
            f"{evidence}, while {kv:.0%} of KV blocks were in use: requests wait for room",
            "add decode gangs, or a smaller KV format",
        )
    queued = point.server("r1_requests_queued")
    waits = f"; {queued:.3g} requests waited for admission" if queued else ""
    return Limit(
        "prefill or the queue before it",
        evidence + waits + _kv(point),
        "add prefill gangs (unified: gangs), or keep more prefixes cached",
    )


def _kv(point: Point) -> str:
    kv = point.server("r1_rank_kv_ratio{role=decode}") or point.server("r1_rank_kv_ratio")
    return "" if kv is None else f"; {kv:.0%} of KV blocks in use"
