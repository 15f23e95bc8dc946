"""From needs to gangs within bounds."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import Role
from orchestrator.scaling.fit import Bounds, fit

P, D = Role.PREFILL, Role.DECODE


def bounds(prefill: tuple[int, int], decode: tuple[int, int]) -> dict[Role, Bounds]:
    return {P: Bounds(*prefill, gpus=8), D: Bounds(*decode, gpus=16)}


def test_what_is_needed_is_given() -> None:
    assert fit({P: 2, D: 5}, bounds((1, 9), (1, 9)), None) == {P: 2, D: 5}


def test_floors_are_kept() -> None:
    assert fit({P: 0, D: 1}, bounds((1, 9), (3, 9)), None) == {P: 1, D: 3}


def test_a_pool_gets_no_more_than_a_scarcer_one_can_feed() -> None:
    assert fit({P: 4, D: 8}, bounds((1, 9), (1, 4)), None) == {P: 2, D: 4}


def test_scarce_gpus_are_shared_so_that_both_pools_carry_the_same() -> None:
    assert fit({P: 4, D: 8}, bounds((1, 9), (1, 9)), 80) == {P: 2, D: 4}  # 2 x 8 + 4 x 16


@given(
    st.integers(0, 8),
    st.integers(0, 8),
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(48, 200),
)
def test_no_other_split_of_the_gpus_carries_more(
    prefill: int, decode: int, least_p: int, least_d: int, gpus: int
) -> None:
    limits = bounds((least_p, 6), (least_d, 6))
    needs = {P: prefill, D: decode}
    found = fit(needs, limits, gpus)
    assert found[P] * 8 + found[D] * 16 <= gpus
    assert least_p <= found[P] <= 6
    assert least_d <= found[D] <= 6

    def served(p: int, d: int) -> float:
        return min([1.0, *(g / n for g, n in ((p, prefill), (d, decode)) if n)])

    best = max(
        served(p, d)
        for p, d in product(range(least_p, 7), range(least_d, 7))
        if p * 8 + d * 16 <= gpus
    )
    assert served(found[P], found[D]) == best
