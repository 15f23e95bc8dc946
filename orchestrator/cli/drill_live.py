"""A drill on a fleet that runs."""

import argparse
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from urllib.parse import urlsplit

from orchestrator.cli.drill_html import Told
from orchestrator.cli.plan_inputs import read_slo
from orchestrator.core import R1ServeError
from orchestrator.fleet.drill import Drill, Limits, judge
from orchestrator.runtime.drill import TOLD, Live, Times, check_target
from orchestrator.runtime.drill_client import End, Outcome, Target, models, ranks
from orchestrator.runtime.local_fleet import LocalFleet, find_fleet

_LOCAL = ("127.0.0.1", "localhost", "::1")
_BACK_S = 180.0
_TTFT_S = 20.0  # where nobody gives an SLO
_SPANS = 60  # of the chart


def live(options: argparse.Namespace) -> Told:
    """Holds the drill. Raises R1ServeError if it may not, or has no target."""
    fleet = _fleet(options)
    check_target(options.name, fleet, options.url)
    if not ranks(options.url):
        raise R1ServeError(f"nobody answers at {options.url}", "give the --url of a fleet")
    standard = Times()
    times = Times(
        options.before or standard.before_s,
        options.lasts or standard.lasts_s,
        options.after or standard.after_s,
    )
    limits = Limits(options.back or _BACK_S, burn_requests=2 * options.streams)
    drill = Live(_target(options), fleet, options.name, times, limits, _keeps(options.slo))
    with _driver(options.name, fleet):
        seen = drill.hold(options.streams)
    return Told(
        options.name,
        options.url,
        seen.struck,
        seen,
        judge(limits, seen),
        tuple(drill.notes),
        tuple(drill.causes.most_common(12)),
        _lines(drill.ends, drill),
        drill.struck_at,
        drill.back_at,
    )


def _target(options: argparse.Namespace) -> Target:
    target = Target(options.url, options.key, options.model or "", options.tokens)
    listed = models(target)
    if not listed:
        raise R1ServeError(
            f"{options.url} lists no model to this key", "give the --key of a tenant"
        )
    if options.model is not None and options.model not in listed:
        raise R1ServeError(
            f"{options.url} does not serve {options.model}", f"give one of {', '.join(listed)}"
        )
    return replace(target, model=options.model or listed[0])


def _driver(drill: Drill, fleet: LocalFleet | None) -> AbstractContextManager[None]:
    """Within it this process may call what runs in the fleet's cluster, if the drill has to."""
    if fleet is None or drill not in TOLD:
        return nullcontext()
    from orchestrator.runtime.attach import attached  # imports Ray

    return attached(fleet.address())


def _fleet(options: argparse.Namespace) -> LocalFleet | None:
    """The fleet on this machine; None for one elsewhere that was named."""
    where = urlsplit(options.url)
    host = where.hostname or ""
    if host not in _LOCAL:
        if options.yes_this_is != host:
            raise R1ServeError(
                f"{options.url} is not a fleet of this machine, and drills break things",
                f"give --yes-this-is {host} if that is what you want",
            )
        return None
    fleet = find_fleet(where.port or 80)
    if fleet is None:
        if options.yes_this_is is not None and options.yes_this_is == host:
            return None
        raise R1ServeError(
            f"the drill has no target: no `r1-serve up` of this machine listens at {options.url}",
            "start one, give its --url, or hold the drill in virtual time with --simulate PLAN",
        )
    return fleet


def _keeps(text: str | None) -> Callable[[End], bool]:
    """Whether an end is within the SLO."""
    slo = read_slo(text) if text else None
    ttft_s = _TTFT_S if slo is None or slo.ttft_s is None else slo.ttft_s
    itl_s = math.inf if slo is None or slo.itl_s is None else slo.itl_s

    def keeps(end: End) -> bool:
        if end.outcome is not Outcome.FINISHED or end.first_s is None:
            return False
        tpot_s = (end.at - end.began_at - end.first_s) / max(end.tokens - 1, 1)
        return end.first_s <= ttft_s and tpot_s <= itl_s

    return keeps


def _lines(ends: Sequence[End], drill: Live) -> dict[str, list[tuple[float, float]]]:
    last = max((end.at for end in ends), default=1.0)
    span_s = max(1.0, last / _SPANS)

    def line(instants: Sequence[float]) -> list[tuple[float, float]]:
        counts = [0] * (int(last / span_s) + 1)
        for at in instants:
            counts[int(at / span_s)] += 1
        return [((at + 0.5) * span_s, count / span_s) for at, count in enumerate(counts)]

    return {
        "arrivals": line([end.began_at for end in ends]),
        "ends": line([end.at for end in ends]),
        "within the SLO": line([end.at for end in ends if drill.keeps(end)]),
    }
