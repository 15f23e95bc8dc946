"""What contradicts itself in a spec of scaling: (cause, cure) of each."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestrator.spec.scaling import CalendarEntry, PoolScaling, ScalingSpec

if TYPE_CHECKING:
    from orchestrator.spec.spec import ModelSpec

_HOURS = 24.0


def scaling_contradictions(path: str, model: "ModelSpec") -> Iterator[tuple[str, str]]:
    """Of the model at `path` of the spec; nothing if it is not scaled."""
    scaling = model.scaling
    if scaling is None:
        return
    at = f"{path}.scaling"
    roles = sorted(pool.role for pool in model.pools)
    if sorted(each.role for each in scaling.pools) != roles:
        yield f"{at}.pools: they are not {', '.join(roles)}", "name each pool of the model once"
        return
    for each in scaling.pools:
        yield from _bounds(f"{at}.pools.{each.role}", each)
    for index, entry in enumerate(scaling.calendar):
        yield from _entry(f"{at}.calendar.{index}", entry, scaling)
    yield from _numbers(at, scaling)
    yield from _gpus(at, model, scaling)
    yield from _facts(path, model)


def _bounds(at: str, pool: PoolScaling) -> Iterator[tuple[str, str]]:
    if not 0 <= pool.gangs_min <= pool.gangs_max or pool.gangs_max < 1:
        yield (
            f"{at}: from gangs_min {pool.gangs_min} to gangs_max {pool.gangs_max} is no range",
            "give 0 <= gangs_min <= gangs_max, and a gangs_max of at least 1",
        )


def _entry(at: str, entry: CalendarEntry, scaling: ScalingSpec) -> Iterator[tuple[str, str]]:
    ceilings = {each.role: each.gangs_max for each in scaling.pools}
    if entry.role not in ceilings:
        yield f"{at}.role: the model has no pool {entry.role}", "name a pool of the model"
    elif not 0 <= entry.gangs_min <= ceilings[entry.role]:
        yield (
            f"{at}.gangs_min: {entry.gangs_min} is not within the pool's {ceilings[entry.role]}",
            "give fewer gangs, or raise the pool's gangs_max",
        )
    if not 0 <= entry.from_h < entry.until_h <= _HOURS:
        yield (
            f"{at}: from_h {entry.from_h:g} to until_h {entry.until_h:g} is no time of a day",
            "give 0 <= from_h < until_h <= 24; a time across midnight is two entries",
        )
    if not entry.days:
        yield f"{at}.days: there is none", "name days (mon, tue ...), or leave it out for all"


def _numbers(at: str, scaling: ScalingSpec) -> Iterator[tuple[str, str]]:
    for key in ("ttft_s", "tpot_s", "period_s", "pending_s", "idle_s"):
        if (value := getattr(scaling, key)) <= 0:
            yield f"{at}.{key}: {value} is not positive", "give a positive number"
    if scaling.dwell_s is not None and scaling.dwell_s < 0:
        yield f"{at}.dwell_s: {scaling.dwell_s} is negative", "give 0 or more"
    if not 0.5 <= scaling.attainment < 1:
        yield (
            f"{at}.attainment: {scaling.attainment} is not within [0.5, 1)",
            "give a share of the requests below 1, for example 0.99",
        )
    if not 0 <= scaling.slack < 1:
        yield f"{at}.slack: {scaling.slack} is not within [0, 1)", "give a share, such as 0.03"


def _gpus(at: str, model: "ModelSpec", scaling: ScalingSpec) -> Iterator[tuple[str, str]]:
    if scaling.gpus_max is None:
        return
    each = {pool.role: pool.gang.gpus for pool in model.pools}
    least = sum(max(pool.gangs_min, 1) * each[pool.role] for pool in scaling.pools)
    if least > scaling.gpus_max:
        yield (
            f"{at}.gpus_max: {scaling.gpus_max} is less than the {least} of one gang of each pool, "
            "or of the floors",
            "raise gpus_max, or lower gangs_min",
        )


def _facts(path: str, model: "ModelSpec") -> Iterator[tuple[str, str]]:
    for pool in model.pools:
        if pool.costs is None or pool.node_weights_bytes is None:
            missing = "costs" if pool.costs is None else "node_weights_bytes"
            yield (
                f"{path}.pools.{pool.role}.{missing}: is missing, and scaling predicts with it",
                "write the spec with `r1-serve plan --format values`",
            )
    if model.engine.storage_bytes_per_s is None:
        yield (
            f"{path}.engine.storage_bytes_per_s: is missing, and scaling must know how long a "
            "gang takes to start",
            "give what a node reads from where the weights are, in bytes a second: 5e9 is one "
            "fast NVMe drive",
        )
