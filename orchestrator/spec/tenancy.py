"""Tenants: what each of them may use and pays, as the operator says.

A tenant is whom a key belongs to. Amounts of money are decimals with at most six places, in the
currency of `usage`; a limit that is None is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum


class PrefixSharing(StrEnum):
    """Whose KV a request may find in the prefix cache."""

    USER = "user"  # its own tenant's and `user_id`'s
    TENANT = "tenant"  # its own tenant's, whatever `user_id` says
    ALL = "all"  # that of all who share with all; what others asked can be felt in the TTFT


@dataclass(frozen=True, slots=True)
class PricesSpec:
    """Money for a million tokens of each class."""

    input: Decimal
    cached_input: Decimal
    thinking: Decimal
    answer: Decimal


class Currency(StrEnum):
    """Those that the official balance knows."""

    USD = "USD"
    CNY = "CNY"


@dataclass(frozen=True, slots=True)
class UsageSpec:
    """The journal of what was used: where it is, and how much of it a crash may cost.

    A gateway that is killed loses of each open request what came since the last `progress_s`, and
    of ended ones nothing; a machine that fails loses what came since the last `sync_s`. Gateways
    learn of each other's usage within `sync_s`, if `dir` is the same folder for all of them.
    """

    dir: str | None = None  # None: nothing is kept, and no tenant can have a budget
    currency: Currency = Currency.USD
    progress_s: float = 10.0
    sync_s: float = 1.0
    segment_bytes: int = 16 << 20  # of a file, then there is another
    segments_kept: int = 8  # of one life of a gateway that are in its totals already


@dataclass(frozen=True, slots=True)
class LoadLevel:
    """From this load on thoughts are shorter. Load is requests held and waiting, for each slot."""

    load: float
    soft_tokens: int


@dataclass(frozen=True, slots=True)
class ThinkingSpec:
    """Budgets of thoughts, in tokens; the smallest that applies to a request holds.

    Who asks for none, and is given none by tenant, class or load, thinks as long as `max_tokens`
    lasts, as with the official API.
    """

    soft_tokens: int | None = None  # of everybody: the engine is asked to close the thought here
    hard_tokens: int | None = None  # the gateway closes it here; None: a little behind the soft one
    answer_tokens: int = 1_024  # of `max_tokens`, at most half of it, that no budget gives away
    levels: tuple[LoadLevel, ...] = ()


@dataclass(frozen=True, slots=True)
class ThinkingLimits:
    """Budgets of one tenant's thoughts; see `ThinkingSpec`."""

    soft_tokens: int | None = None
    hard_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """Tokens a minute of each class."""

    input: int | None = None
    cached_input: int | None = None
    thinking: int | None = None
    answer: int | None = None


@dataclass(frozen=True, slots=True)
class BudgetSpec:
    """All the money that a tenant ever had, to which topping up adds; granted money goes first."""

    granted: Decimal = Decimal(0)
    topped_up: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class TenantSpec:
    """What one tenant may do; limits hold for all gateways together, see docs/tenants.md."""

    suspended: bool = False  # may not use the API
    operator: bool = False  # may ask `r1-serve doctor` and `why`, of everybody's requests
    admission_class: str = ""  # one of `admission.classes`
    requests_max: int | None = None  # open at once
    streams_max: int | None = None  # of those, streamed
    requests_per_minute: int | None = None
    tokens_per_minute: TokenLimits = field(default_factory=TokenLimits)
    budget: BudgetSpec | None = None
    thinking: ThinkingLimits = field(default_factory=ThinkingLimits)
    prefix_sharing: PrefixSharing | None = None  # None: as of `api`


@dataclass(frozen=True, slots=True)
class TenantsSpec:
    """The tenants file: those with limits of their own, and what holds for each of the others."""

    default: TenantSpec = field(default_factory=TenantSpec)
    tenants: Mapping[str, TenantSpec] = field(default_factory=dict)

    def of(self, name: str) -> TenantSpec:
        """What holds for the tenant of that name."""
        return self.tenants.get(name, self.default)
