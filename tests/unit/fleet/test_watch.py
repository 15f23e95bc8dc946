"""When a gang counts as dead."""

from orchestrator.fleet import Limits, Observation, Reason, Watch, watch

LIMITS = Limits(stuck_after_s=10.0, cut_off_after_s=4.0)


def test_an_exited_process_is_the_end_of_the_gang_at_once() -> None:
    verdict, _ = watch(LIMITS, Watch(), Observation(exited="node 1: code 9"), 0.0)
    assert verdict.dead
    assert verdict.reason is Reason.RANK_EXITED
    assert verdict.cause == "node 1: code 9"


def test_an_idle_gang_may_stand_still_for_ever() -> None:
    state = Watch()
    for now in (0.0, 100.0, 10_000.0):
        verdict, state = watch(LIMITS, state, Observation(0, 7), now)
        assert (verdict.dead, verdict.reason) == (False, Reason.IDLE)


def test_no_step_with_work_in_hand_is_death_at_the_limit_and_not_before() -> None:
    _, state = watch(LIMITS, Watch(), Observation(1, 7), 0.0)
    verdict, state = watch(LIMITS, state, Observation(1, 7), 9.9)
    assert not verdict.dead
    verdict, _ = watch(LIMITS, state, Observation(1, 7), 10.0)
    assert (verdict.dead, verdict.reason) == (True, Reason.STUCK)
    assert verdict.cause == "1 request in flight and no engine step for 10 s"


def test_a_step_starts_the_time_anew() -> None:
    _, state = watch(LIMITS, Watch(), Observation(1, 7), 0.0)
    _, state = watch(LIMITS, state, Observation(1, 8), 9.0)
    verdict, _ = watch(LIMITS, state, Observation(1, 8), 18.9)
    assert not verdict.dead


def test_the_time_of_an_idle_gang_starts_with_its_first_request() -> None:
    _, state = watch(LIMITS, Watch(), Observation(0, 7), 0.0)
    verdict, _ = watch(LIMITS, state, Observation(1, 7), 1_000.0)
    assert not verdict.dead


def test_silence_is_death_at_the_limit_and_not_before() -> None:
    _, state = watch(LIMITS, Watch(), Observation(heard=False), 5.0)
    verdict, state = watch(LIMITS, state, Observation(heard=False), 8.9)
    assert (verdict.dead, verdict.reason) == (False, Reason.UNHEARD)
    verdict, _ = watch(LIMITS, state, Observation(heard=False), 9.0)
    assert (verdict.dead, verdict.reason) == (True, Reason.CUT_OFF)


def test_an_answer_ends_the_silence_and_not_the_standstill() -> None:
    _, state = watch(LIMITS, Watch(), Observation(1, 7), 0.0)
    _, state = watch(LIMITS, state, Observation(heard=False), 3.0)
    verdict, state = watch(LIMITS, state, Observation(1, 7), 6.0)
    assert not verdict.dead
    verdict, state = watch(LIMITS, state, Observation(heard=False), 9.9)
    assert not verdict.dead, "a new silence"
    verdict, _ = watch(LIMITS, state, Observation(1, 7), 10.0)
    assert verdict.reason is Reason.STUCK
