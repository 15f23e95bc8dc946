"""A load test beside the plan of what it tested: predictions at its loads, and rows to fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loadtest.reading import Point
from loadtest.result import Latency, Result
from orchestrator.cli.simulate_run import read_plan
from orchestrator.core import Role, SpecError
from orchestrator.perf import (
    Band,
    ClosedLoop,
    Extrapolated,
    Factors,
    Mode,
    OpenLoop,
    Prediction,
    Traffic,
    disaggregated,
    error_band,
    unified,
)
from orchestrator.sim.planned import Planned

_STEADY = 0.9  # share of requests that ended, below which a window is no steady state
_FULL = 1e9
_STEPS = 400  # of the loads among which the largest within the SLO is looked for


@dataclass(frozen=True, slots=True)
class PlanAtLoad:
    """What the plan has beside one load that was measured; seconds, means over requests."""

    per_s: float
    ttft_s: float
    ttft_s_predicted: float
    tpot_s: float
    tpot_s_predicted: float

    @property
    def ttft_error(self) -> float:
        """Prediction over measurement, less 1."""
        return self.ttft_s_predicted / self.ttft_s - 1

    @property
    def tpot_error(self) -> float:
        """Prediction over measurement, less 1."""
        return self.tpot_s_predicted / self.tpot_s - 1


class PlannedFleet:
    """The fleet of a plan's values under the traffic that a result measured."""

    def __init__(
        self, path: Path, result: Result, points: Sequence[Point], factors: Factors | None
    ):
        """Raises SpecError if the values are no plan, or of another model than the result."""
        self.path = path
        self.plan: Planned = read_plan(path, 0)
        _check_model(path, self.plan, result)
        self._factors = factors
        roles = tuple(pool.model.role for pool in self.plan.pools)
        if roles not in ((Role.UNIFIED,), (Role.PREFILL, Role.DECODE), (Role.DECODE, Role.PREFILL)):
            raise SpecError(
                f"{path}: its pools are {', '.join(roles)}, for which there is no closed form",
                "give a plan with one unified pool, or one prefill and one decode pool",
            )
        self.traffic = _traffic(points)

    @property
    def nodes(self) -> int:
        """Of the whole fleet."""
        pools = self.plan.spec.models[0].pools
        return sum(pool.gang.nodes * pool.replicas for pool in pools)

    @property
    def unit_nodes(self) -> int:
        """Of its smallest whole part: gangs of all pools in the same proportion."""
        pools = self.plan.spec.models[0].pools
        return self.nodes // int(np.gcd.reduce([pool.replicas for pool in pools]))

    def predict(self, per_s: Sequence[float], times: float = 1.0) -> Prediction:
        """Of the fleet, of so many times its gangs, at these rates."""
        return self._predict(OpenLoop(np.asarray(per_s, dtype=float)), times)

    def _predict(self, load: OpenLoop | ClosedLoop, times: float) -> Prediction:
        grids = dict(
            zip((pool.model.role for pool in self.plan.pools), self.plan.grids, strict=True)
        )
        gangs = {pool.model.role: pool.replicas * times for pool in self.plan.pools}
        if Role.UNIFIED in grids:
            return unified(
                grids[Role.UNIFIED], gangs[Role.UNIFIED], self.traffic, load, self._factors
            )
        return disaggregated(
            grids[Role.PREFILL],
            gangs[Role.PREFILL],
            grids[Role.DECODE],
            gangs[Role.DECODE],
            self.traffic,
            load,
            self._factors,
        )

    def most_per_s(self, ttft_s: float | None, itl_s: float | None, times: float = 1.0) -> float:
        """The largest rate whose predicted means are within the bounds; 0 if none is."""
        full = float(self._predict(ClosedLoop(np.array([_FULL])), times).request_rate[0])
        rates = full * np.linspace(1 / _STEPS, 1.0, _STEPS)
        seen = self.predict(rates.tolist(), times)
        kept = ~seen.saturated
        if ttft_s is not None:
            kept &= seen.ttft_s <= ttft_s
        if itl_s is not None:
            kept &= seen.tpot_s <= itl_s
        return float(rates[kept].max()) if kept.any() else 0.0

    def compare(self, points: Sequence[Point]) -> list[PlanAtLoad]:
        """At each load that the server was steady at."""
        steady = [point for point in points if _steady(point)]
        if not steady:
            return []
        seen = self.predict([point.per_s for point in steady])
        return [
            PlanAtLoad(
                point.per_s,
                point.latencies[Latency.TTFT].mean,
                float(seen.ttft_s[at]),
                point.tpot_s(),
                float(seen.tpot_s[at]),
            )
            for at, point in enumerate(steady)
            if not seen.saturated[at]
        ]

    def bands(self) -> dict[str, Band | Extrapolated]:
        """How wrong the plan's predictions may be, by metric."""
        grid = self.plan.grids[-1]
        mode = Mode.UNIFIED if len(self.plan.pools) == 1 else Mode.DISAGGREGATED
        context = float(np.max(self.traffic.context()))
        return {
            metric: error_band(
                grid.hardware, grid.engine, mode, metric, context_tokens=context, model=grid.model
            )
            for metric in ("ttft", "tpot", "rate")
        }

    def rows(self, points: Sequence[Point], name: str) -> list[dict[str, object]]:
        """Own measurements as `r1-serve fit --from` reads them, one a steady load.

        Of a unified fleet `serve` rows; of a disaggregated one `decode` rows, as the time for a
        token is of its decode gangs alone. TTFT is left out: such rows are of closed loops, whose
        prompts come bunched, and these loads were open.
        """
        return [
            {**self._layout(), **self._measured(point), "load": name}
            for point in points
            if _steady(point) and point.tpot_s() > 0
        ]

    def _decode_side(self) -> int:
        roles = [pool.model.role for pool in self.plan.pools]
        return next(at for at, role in enumerate(roles) if role is not Role.PREFILL)

    def _layout(self) -> dict[str, object]:
        grid = self.plan.grids[self._decode_side()]
        sizes = ("tp", "pp", "dp", "ep", "mtp_drafts", "redundant_experts")
        return {
            "hardware": grid.hardware.name,
            "engine": grid.engine.value,
            "precision": grid.precision.experts.value,
            **{name: int(getattr(grid, name).flat[0]) for name in sizes},
        }

    def _measured(self, point: Point) -> dict[str, object]:
        at = self._decode_side()
        gangs, grid = self.plan.pools[at].replicas, self.plan.grids[at]
        prompt, output = _lengths([point])
        tpot_s = point.tpot_s()
        if self.plan.pools[at].model.role is Role.UNIFIED:
            return {
                "phase": "serve",
                "concurrency": point.concurrency / gangs,
                "isl": prompt,
                "osl": output,
                "cached_share": point.cached_share,
                "tpot_ms": tpot_s * 1e3,
            }
        # By Little's law: those that are behind their first token, over the ranks.
        decoding = point.ended / point.seconds * (output - 1) * tpot_s
        accepted = float(self.traffic.accepted(grid.mtp_drafts).flat[0])
        return {
            "phase": "decode",
            "batch_per_rank": decoding / (gangs * float(grid.dp.flat[0])),
            "context_tokens": prompt + output / 2,
            "step_ms": tpot_s * accepted * 1e3,
            "accept_len": accepted,
        }


def _check_model(path: Path, plan: Planned, result: Result) -> None:
    model = plan.spec.models[0]
    # DeepSeek's own names serve whatever R1 there is: nothing can be told from them.
    if result.model in {"", "deepseek-reasoner", "deepseek-chat"}:
        return
    known = {model.name, *(served.name for served in plan.spec.models)}
    if result.model not in known:
        raise SpecError(
            f"{path} is a plan of {model.name}, and the load test asked for {result.model}",
            "give the values of the plan that was served, or test its model",
        )


def _steady(point: Point) -> bool:
    return not point.generator_bound and point.ended >= _STEADY * point.due


def _traffic(points: Sequence[Point]) -> Traffic:
    prompt, output = _lengths(points)
    total = sum(point.tokens.prompt for point in points)
    hit = sum(point.tokens.cached for point in points) / total
    return Traffic(prompt, output, hit)


def _lengths(points: Sequence[Point]) -> tuple[float, float]:
    ended = sum(point.ended for point in points)
    prompt = sum(point.tokens.prompt for point in points)
    output = sum(point.tokens.thinking + point.tokens.answer for point in points)
    if not ended or not prompt or not output:
        raise SpecError(
            "the result has no tokens of requests that ended, which a prediction follows from",
            "let the run go on until requests end, against a server that reports usage",
        )
    return prompt / ended, output / ended
