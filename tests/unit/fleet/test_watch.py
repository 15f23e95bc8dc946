"""When a gang counts as dead."""

from orchestrator.fleet import Observation, Reason, Watch, watch

LIMIT_S = 10.0


def test_an_exited_process_is_the_end_of_the_gang_at_once() -> None:
    verdict, _ = watch(LIMIT_S, Watch(), Observation(0, 0, exited="node 1: code 9"), 0.0)
    assert verdict.dead
    assert verdict.reason is Reason.RANK_EXITED
    assert verdict.cause == "node 1: code 9"


def test_an_idle_gang_may_stand_still_for_ever() -> None:
    state = Watch()
    for now in (0.0, 100.0, 10_000.0):
        verdict, state = watch(LIMIT_S, state, Observation(0, 7), now)
        assert (verdict.dead, verdict.reason) == (False, Reason.IDLE)


def test_no_step_with_work_in_hand_is_death_at_the_limit_and_not_before() -> None:
    _, state = watch(LIMIT_S, Watch(), Observation(1, 7), 0.0)
    verdict, state = watch(LIMIT_S, state, Observation(1, 7), 9.9)
    assert not verdict.dead
    verdict, _ = watch(LIMIT_S, state, Observation(1, 7), 10.0)
    assert (verdict.dead, verdict.reason) == (True, Reason.STUCK)


def test_a_step_starts_the_time_anew() -> None:
    _, state = watch(LIMIT_S, Watch(), Observation(1, 7), 0.0)
    _, state = watch(LIMIT_S, state, Observation(1, 8), 9.0)
    verdict, _ = watch(LIMIT_S, state, Observation(1, 8), 18.9)
    assert not verdict.dead


def test_the_time_of_an_idle_gang_starts_with_its_first_request() -> None:
    _, state = watch(LIMIT_S, Watch(), Observation(0, 7), 0.0)
    verdict, _ = watch(LIMIT_S, state, Observation(1, 7), 1_000.0)
    assert not verdict.dead
