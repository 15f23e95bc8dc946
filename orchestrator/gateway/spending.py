"""What requests are charged, as metrics: tokens by what they are paid as, work, money.

The work is what costs of ranks are shared out by. It is predicted, not measured: an engine does not
say what part of a step was whose.
"""

from collections.abc import Mapping

from orchestrator.admission import PICO
from orchestrator.core import Role, TokenClass, TokenCounts
from orchestrator.routing import DEFAULT_COSTS
from orchestrator.spec import ModelSpec, Spec, StepCosts
from orchestrator.telemetry import Metrics, metrics


class Spending:
    """Of all models of one gateway."""

    def __init__(self, counted: Metrics, spec: Spec) -> None:
        self._counted = counted
        self._batch = spec.admission.rank_requests_max or spec.channel.max_requests

    def charged(
        self, model: ModelSpec, klass: str, before: TokenCounts, used: TokenCounts, cost_pico: int
    ) -> None:
        """A request of the class has used more than `before`, which costs `cost_pico` more."""
        more = used - before
        for part in TokenClass:
            if tokens := more.of(part):
                self._counted.count(metrics.PAID_TOKENS, tokens, model.name, klass, part)
        if cost_pico:
            self._counted.count(metrics.REVENUE, cost_pico / PICO, model.name, klass)
        for (role, part), seconds in work_s(model, before, used, self._batch).items():
            self._counted.count(metrics.WORK, seconds, model.name, role, klass, part)


def work_s(
    model: ModelSpec, before: TokenCounts, used: TokenCounts, batch: int
) -> Mapping[tuple[Role, TokenClass], float]:
    """Seconds of a rank that the tokens since `before` took, by its role and what they are paid as.

    Cached input costs what computed tokens have to attend to it; an output token costs its share of
    a step of `batch` requests as long as this one.
    """
    prefiller, decoder = _roles(model)
    found: dict[tuple[Role, TokenClass], float] = {}
    more = used - before
    if more.input or more.cached_input:
        costs = _costs(model, prefiller)
        alone_s = costs.prefill_s(max(more.input, 0), 0)
        whole_s = costs.prefill_s(max(more.input + more.cached_input, 0), more.cached_input)
        found[prefiller, TokenClass.INPUT] = alone_s
        if whole_s > alone_s:
            found[prefiller, TokenClass.CACHED_INPUT] = whole_s - alone_s
    context = used.input + used.cached_input + (used.thinking + used.answer) / 2
    token_s = _costs(model, decoder).step_s(batch, batch * context) / batch
    for part in (TokenClass.THINKING, TokenClass.ANSWER):
        if (tokens := more.of(part)) > 0:
            found[decoder, part] = tokens * token_s
    return found


def _roles(model: ModelSpec) -> tuple[Role, Role]:
    if model.pool(Role.UNIFIED) is not None:
        return Role.UNIFIED, Role.UNIFIED
    return Role.PREFILL, Role.DECODE


def _costs(model: ModelSpec, role: Role) -> StepCosts:
    pool = model.pool(role)
    return DEFAULT_COSTS if pool is None or pool.costs is None else pool.costs
