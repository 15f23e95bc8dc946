"""`r1-serve doctor --every`: round after round, whatever one of them comes to."""

from collections.abc import Callable, Iterator

import pytest

from orchestrator.cli.doctor import FAULT, INCOMPLETE, again
from orchestrator.core import R1ServeError

Round = int | R1ServeError


def played(*rounds: Round) -> tuple[Callable[[], int], Callable[[], None], list[str]]:
    """Rounds that come to this, and Ctrl-C in the wait behind the last; what was done."""
    done: list[str] = []
    left: Iterator[Round] = iter(rounds)

    def round_() -> int:
        done.append("round")
        found = next(left)
        if isinstance(found, R1ServeError):
            raise found
        return found

    def wait() -> None:
        done.append("wait")
        if done.count("wait") == len(rounds):
            raise KeyboardInterrupt

    return round_, wait, done


GONE = R1ServeError("no gateway answers at URL", "see that the fleet runs")


@pytest.mark.parametrize(
    ("rounds", "code"),
    [
        ((0,), 0),
        ((FAULT, 0), 0),  # mended meanwhile
        ((0, FAULT), FAULT),
        ((0, GONE), INCOMPLETE),
        ((GONE, GONE, 0), 0),
    ],
)
def test_rounds_go_on_until_ctrl_c_and_the_last_one_is_the_exit_code(
    rounds: tuple[Round, ...], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    round_, wait, done = played(*rounds)
    assert again(round_, wait) == code
    assert done == ["round", "wait"] * len(rounds)
    assert capsys.readouterr().err.count("no gateway answers at URL") == rounds.count(GONE)


def test_ctrl_c_in_the_midst_of_a_round_leaves_the_code_of_the_one_before() -> None:
    codes = iter((FAULT,))

    def round_() -> int:
        try:
            return next(codes)
        except StopIteration:
            raise KeyboardInterrupt from None

    assert again(round_, lambda: None) == FAULT
