"""Money as whole numbers of 10^-12 of the currency, in which a token's price is exact.

Nothing is ever rounded but what is shown.
"""

from decimal import ROUND_FLOOR, Decimal

from orchestrator.core import TokenCounts
from orchestrator.spec import BudgetSpec, PricesSpec

PICO = 10**12  # of one unit of the currency
_TOKENS = 10**6  # that a price is for
_CENT = Decimal("0.01")


def to_pico(amount: Decimal) -> int:
    """An amount of at most twelve decimal places."""
    whole = amount * PICO
    assert whole == whole.to_integral_value()
    return int(whole)


def cost_pico(prices: PricesSpec | None, tokens: TokenCounts) -> int:
    """What tokens of a model cost; nothing where it has no prices."""
    if prices is None:
        return 0
    return (
        to_pico(prices.input) * tokens.input
        + to_pico(prices.cached_input) * tokens.cached_input
        + to_pico(prices.thinking) * tokens.thinking
        + to_pico(prices.answer) * tokens.answer
    ) // _TOKENS


def budget_pico(budget: BudgetSpec) -> int:
    """All that the tenant ever had."""
    return to_pico(budget.granted) + to_pico(budget.topped_up)


def money_text(pico: int) -> str:
    """As the official balance writes it, with two places: never more than there is."""
    return str((Decimal(pico) / PICO).quantize(_CENT, ROUND_FLOOR))
