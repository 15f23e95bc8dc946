"""When a gang's scheduler looks at arrivals, and when it keeps prompts back."""

from orchestrator.core import Role
from orchestrator.sim.gate import Gate
from orchestrator.sim.job import GangModel
from orchestrator.sim.story import Linear


def gate(
    ranks: int = 2, receive_steps: int = 1, align_steps: int = 0, batch_steps: int = 0
) -> Gate:
    model = GangModel(
        Role.UNIFIED,
        ranks,
        Linear(),
        100,
        receive_steps=receive_steps,
        align_steps=align_steps,
        batch_steps=batch_steps,
    )
    return Gate(model)


def test_an_engine_that_looks_at_every_step_sees_an_arrival_at_the_next() -> None:
    looks = gate()
    assert [looks.look_step(step) for step in (1, 7, 8)] == [1, 7, 8]
    looks.receive(8, arrived=5)
    assert looks.received == 5


def test_an_engine_that_looks_seldom_sees_arrivals_at_its_own_steps() -> None:
    looks = gate(receive_steps=10)
    looks.look_now(0)
    looks.receive(0, arrived=1)
    assert looks.received == 1
    assert looks.look_step(4) == 10
    looks.receive(9, arrived=2)
    assert looks.received == 1, "not yet"
    looks.receive(10, arrived=2)
    assert looks.received == 2
    assert looks.look_step(34) == 40, "without an arrival the looks go on"


def test_it_looks_right_behind_a_pass_over_prompts() -> None:
    looks = gate(receive_steps=10)
    looks.receive(0, arrived=1)
    looks.look_now(3)
    looks.receive(3, arrived=2)
    assert looks.received == 2
    assert looks.look_step(4) == 13


def test_prompts_wait_until_every_rank_has_one_or_the_time_is_up() -> None:
    keeps = gate(align_steps=50)
    assert keeps.keeps(10, prompting=1, decoding=2) == 40
    assert keeps.keeps(30, prompting=1, decoding=2) == 20
    assert keeps.keeps(31, prompting=2, decoding=2) == 0, "every rank has one"
    assert keeps.keeps(40, prompting=1, decoding=2) == 41, "counted from then on"
    assert keeps.keeps(81, prompting=1, decoding=2) == 0, "the time is up"


def test_prompts_do_not_wait_where_a_rank_has_nothing_else_to_do() -> None:
    assert gate(align_steps=50).keeps(10, prompting=1, decoding=1) == 0
    assert gate().keeps(10, prompting=1, decoding=2) == 0, "an engine that does not align"
    assert gate(ranks=1, align_steps=50).keeps(10, prompting=1, decoding=1) == 0


def test_ranks_that_all_have_a_prompt_may_wait_for_more() -> None:
    keeps = gate(align_steps=50, batch_steps=10)
    assert keeps.keeps(20, prompting=2, decoding=2) == 10
    assert keeps.keeps(26, prompting=2, decoding=2) == 4
    assert keeps.keeps(30, prompting=2, decoding=2) == 0
    assert keeps.keeps(31, prompting=2, decoding=2) == 10, "and anew for the next ones"
