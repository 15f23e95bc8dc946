"""What each tenant may begin at one gateway: open requests, streams, rates, standing.

A gateway holds its share of each limit: of rates exactly, of what may be open at once rounded up.
So all gateways together never exceed a rate, and exceed a number by less than there are gateways.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.admission.bucket import Bucket
from orchestrator.admission.money import budget_pico
from orchestrator.core import TokenClass, TokenCounts
from orchestrator.spec import TenantSpec, TenantsSpec

_KEPT = 1_024  # tenants that are remembered before idle ones are looked for


class Limit(StrEnum):
    """What a tenant has used up."""

    SUSPENDED = "suspended"
    BUDGET = "budget"
    REQUESTS = "requests"  # open at once
    STREAMS = "streams"  # open at once
    REQUESTS_PER_MINUTE = "requests_per_minute"
    TOKENS_PER_MINUTE = "tokens_per_minute"


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a request may not begin, with the limit's size; when to try again, if anybody knows."""

    limit: Limit
    most: int = 0
    retry_after_s: int | None = None
    token_class: TokenClass | None = None


@dataclass(slots=True)
class _State:
    requests: int
    streams: int
    rate: Bucket | None
    tokens: dict[TokenClass, Bucket]


class Tenancy:
    """The tenants of one gateway; no clock, no I/O."""

    def __init__(self, tenants: TenantsSpec, gateways: int) -> None:
        """`gateways` share each limit."""
        self._tenants = tenants
        self._gateways = gateways
        self._states: dict[str, _State] = {}

    def of(self, name: str) -> TenantSpec:
        """What holds for the tenant."""
        return self._tenants.of(name)

    @property
    def known(self) -> int:
        """How many tenants are remembered: those with something open, and some that were."""
        return len(self._states)

    def update(self, tenants: TenantsSpec, now: float) -> None:
        """Other limits from now on. What is open stays open, and what was taken stays taken."""
        self._tenants = tenants
        for name, state in self._states.items():
            spec = tenants.of(name)
            state.rate = _kept(state.rate, self._rate(spec, now), now)
            state.tokens = {
                klass: _kept(state.tokens.get(klass), bucket, now) or bucket
                for klass, bucket in self._tokens(spec, now).items()
            }

    def standing(self, name: str, spent_pico: int) -> Refused | None:
        """Why the tenant, who has spent so much, may not use the API at all."""
        spec = self.of(name)
        if spec.suspended:
            return Refused(Limit.SUSPENDED)
        if spec.budget is not None and spent_pico >= budget_pico(spec.budget):
            return Refused(Limit.BUDGET)
        return None

    def open(self, name: str, *, streamed: bool, prompt_tokens: int, now: float) -> Refused | None:
        """Why the tenant may not begin a request now. Otherwise it has one more open, and its
        prompt has been taken as input that is not cached.
        """
        spec = self.of(name)
        state = self._state(name, spec, now)
        if (refused := self._refusal(spec, state, streamed=streamed, now=now)) is not None:
            return refused
        state.requests += 1
        state.streams += streamed
        if state.rate is not None:
            state.rate.take(1, now)
        self._charge(state, TokenCounts(input=prompt_tokens), now)
        return None

    def charge(self, name: str, tokens: TokenCounts, now: float) -> None:
        """What an open request has used beyond what was charged before; less may be below 0."""
        self._charge(self._states[name], tokens, now)

    def close(self, name: str, *, streamed: bool, now: float) -> None:
        """A request that was begun has ended."""
        state = self._states[name]
        state.requests -= 1
        state.streams -= streamed
        assert state.requests >= state.streams >= 0
        if len(self._states) > _KEPT:
            self._forget(now)

    def _refusal(
        self, spec: TenantSpec, state: _State, *, streamed: bool, now: float
    ) -> Refused | None:
        for limit, most, own in (
            (Limit.REQUESTS, spec.requests_max, state.requests),
            (Limit.STREAMS, spec.streams_max if streamed else None, state.streams),
        ):
            if most is not None and own >= -(-most // self._gateways):
                return Refused(limit, most, 1)
        if state.rate is not None and not state.rate.has(1, now):
            wait_s = state.rate.wait_s(1, now)
            return Refused(Limit.REQUESTS_PER_MINUTE, spec.requests_per_minute or 0, _whole(wait_s))
        for klass, bucket in state.tokens.items():
            if not bucket.has(1, now):
                most = getattr(spec.tokens_per_minute, klass) or 0
                wait_s = bucket.wait_s(1, now)
                return Refused(Limit.TOKENS_PER_MINUTE, most, _whole(wait_s), klass)
        return None

    def _charge(self, state: _State, tokens: TokenCounts, now: float) -> None:
        for klass, bucket in state.tokens.items():
            if amount := tokens.of(klass):
                bucket.take(amount, now)

    def _state(self, name: str, spec: TenantSpec, now: float) -> _State:
        if name not in self._states:
            self._states[name] = _State(0, 0, self._rate(spec, now), self._tokens(spec, now))
        return self._states[name]

    def _rate(self, spec: TenantSpec, now: float) -> Bucket | None:
        most = spec.requests_per_minute
        return None if most is None else Bucket.full(most / self._gateways, now)

    def _tokens(self, spec: TenantSpec, now: float) -> dict[TokenClass, Bucket]:
        limits = {klass: getattr(spec.tokens_per_minute, klass) for klass in TokenClass}
        return {
            klass: Bucket.full(most / self._gateways, now)
            for klass, most in limits.items()
            if most is not None
        }

    def _forget(self, now: float) -> None:
        """Tenants that nothing need be known of: new ones would be the same."""
        self._states = {
            name: state
            for name, state in self._states.items()
            if state.requests
            or any(
                not bucket.has(bucket.most, now)
                for bucket in (*filter(None, [state.rate]), *state.tokens.values())
            )
        }


def _kept(old: Bucket | None, new: Bucket | None, now: float) -> Bucket | None:
    """The new bucket, with no more in it than the old one holds."""
    if old is not None and new is not None:
        new.held = min(new.most, old.level(now))
    return new


def _whole(wait_s: float) -> int:
    return max(1, math.ceil(wait_s))
