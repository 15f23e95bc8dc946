"""What contradicts itself in what is said of tenants: in the spec, and in the tenants file."""

import re
from collections.abc import Iterator
from dataclasses import fields
from decimal import Decimal
from typing import TYPE_CHECKING

from orchestrator.spec.tenancy import BudgetSpec, TenantSpec, TenantsSpec, ThinkingSpec

if TYPE_CHECKING:
    from orchestrator.spec.spec import Spec

MONEY_PLACES = 6  # of a price or an amount: then one token's price is a whole number of 10^-12
TENANT_NAME = r"[\w.@-]{1,64}"

Place = tuple[str, ...]  # keys, from the top of the file down
Fault = tuple[Place, str, str]  # where, cause, cure

_MONEY_CURE = f"give a number of 0 or more with at most {MONEY_PLACES} decimal places"
_POSITIVE_CURE = "give a positive number, or leave it out for no limit"


def tenancy_contradictions(spec: "Spec") -> Iterator[tuple[str, str]]:
    """Of the spec: (cause, cure) of each."""
    if spec.api.tenants_path is not None and spec.api.keys_path is None:
        yield (
            "api.tenants_path: there is no api.keys_path, so nobody can prove to be a tenant",
            "give api.keys_path too, or leave api.tenants_path out",
        )
    for at, model in enumerate(spec.models):
        for name, amount in () if model.prices is None else _members(model.prices):
            if not _is_money(amount):
                yield f"models.{at}.prices.{name}: {amount} is no price", _MONEY_CURE
    for key in ("progress_s", "sync_s", "segment_bytes"):
        if (value := getattr(spec.usage, key)) <= 0:
            yield f"usage.{key}: {value} is not positive", "give a positive number"
    if spec.usage.segments_kept < 2:
        yield (
            f"usage.segments_kept: {spec.usage.segments_kept} is less than 2",
            "give 2 or more: gateways read each other's last ones",
        )
    yield from _thinking(spec.thinking)
    for at, each in enumerate(spec.admission.classes):
        if each.thinking_tokens is not None and each.thinking_tokens < 1:
            yield (
                f"admission.classes.{at}.thinking_tokens: {each.thinking_tokens} is not positive",
                "give a positive number",
            )


def tenants_faults(tenants: TenantsSpec, spec: "Spec") -> Iterator[Fault]:
    """Of a tenants file below `spec`."""
    priced = any(model.prices is not None for model in spec.models)
    entries: list[tuple[Place, TenantSpec]] = [(("default",), tenants.default)]
    entries += [(("tenants", name), each) for name, each in tenants.tenants.items()]
    for place, tenant in entries:
        if place[0] == "tenants" and re.fullmatch(TENANT_NAME, place[1]) is None:
            yield place, f"{place[1]!r} is no tenant's name", "use letters, digits and . _ @ -"
        yield from _limits(place, tenant)
        if (klass := tenant.admission_class) and klass not in spec.admission.class_names:
            known = ", ".join(sorted(spec.admission.class_names)) or "none yet"
            yield (
                (*place, "admission_class"),
                f"there is no class {klass!r}",
                f"give one of admission.classes: {known}",
            )
        if tenant.budget is not None:
            yield from _budget((*place, "budget"), tenant.budget, spec, priced=priced)


def _limits(place: Place, tenant: TenantSpec) -> Iterator[Fault]:
    for key in ("requests_max", "streams_max", "requests_per_minute"):
        value = getattr(tenant, key)
        if value is not None and value < 1:
            yield (*place, key), f"{value} is not positive", _POSITIVE_CURE
    for part in ("tokens_per_minute", "thinking"):
        for name, value in _members(getattr(tenant, part)):
            if value is not None and value < 1:
                yield (*place, part, name), f"{value} is not positive", _POSITIVE_CURE
    if (
        tenant.requests_max is not None
        and tenant.streams_max is not None
        and tenant.streams_max > tenant.requests_max
    ):
        yield (
            (*place, "streams_max"),
            f"{tenant.streams_max} streams are more than requests_max {tenant.requests_max}, "
            "which counts them too",
            "lower streams_max, or raise requests_max",
        )
    soft, hard = tenant.thinking.soft_tokens, tenant.thinking.hard_tokens
    if soft is not None and hard is not None and hard < soft:
        yield (
            (*place, "thinking", "hard_tokens"),
            f"{hard} is less than soft_tokens {soft}: the soft budget would never be reached",
            "give hard_tokens >= soft_tokens",
        )


def _budget(place: Place, budget: BudgetSpec, spec: "Spec", *, priced: bool) -> Iterator[Fault]:
    for name, amount in _members(budget):
        if not _is_money(amount):
            yield (*place, name), f"{amount} is no amount of money", _MONEY_CURE
    if not priced:
        yield (
            place,
            "no model has prices, so nothing would be taken from the budget",
            "give `prices` to models of the spec, or leave the budget out",
        )
    if spec.usage.dir is None:
        yield (
            place,
            "there is no usage.dir, so what is spent would be forgotten",
            "give usage.dir in the spec, or leave the budget out",
        )


def _thinking(thinking: ThinkingSpec) -> Iterator[tuple[str, str]]:
    soft, hard = thinking.soft_tokens, thinking.hard_tokens
    for key, value in (("soft_tokens", soft), ("hard_tokens", hard)):
        if value is not None and value < 1:
            yield f"thinking.{key}: {value} is not positive", "give a positive number"
    if thinking.answer_tokens < 0:
        yield f"thinking.answer_tokens: {thinking.answer_tokens} is negative", "give 0 or more"
    if soft is not None and hard is not None and hard < soft:
        yield (
            f"thinking.hard_tokens: {hard} is less than soft_tokens {soft}",
            "give hard_tokens >= soft_tokens",
        )
    for at, level in enumerate(thinking.levels):
        if level.load <= 0 or level.soft_tokens < 1:
            yield f"thinking.levels.{at}: is not positive", "give positive numbers"
    for at, (lower, higher) in enumerate(
        zip(thinking.levels, thinking.levels[1:], strict=False), 1
    ):
        if higher.load <= lower.load or higher.soft_tokens >= lower.soft_tokens:
            yield (
                f"thinking.levels.{at}: thoughts do not get shorter as load grows",
                "order levels by load, each with fewer soft_tokens than the one before",
            )


def _is_money(amount: Decimal | None) -> bool:
    if amount is None:
        return False
    exponent = amount.as_tuple().exponent
    return isinstance(exponent, int) and -exponent <= MONEY_PLACES and amount >= 0


def _members(of: object) -> list[tuple[str, Decimal | None]]:
    """Names and values of a dataclass whose members are all numbers, or None."""
    return [(each.name, getattr(of, each.name)) for each in fields(of)]  # type: ignore[arg-type]  # it is one
