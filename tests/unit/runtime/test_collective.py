"""What the processes of a collective say, and what becomes of one that fails."""

import pytest

from orchestrator.core import R1ServeError
from orchestrator.runtime.collective import command, speeds


def test_each_node_has_the_speed_that_its_process_printed_last() -> None:
    said = [b'a warning\n{"bytes_per_s": 2.5e9}\n', b'{"bytes_per_s": 1e9}\n']
    assert speeds(["node 0", "node 1"], said) == {"node 0": 2.5e9, "node 1": 1e9}


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (b'{"cause": "RuntimeError: no such interface"}\n', "no such interface"),
        (b"", "it has said nothing"),
        (b"Segmentation fault\n", "it has said nothing"),
    ],
)
def test_the_first_that_fails_is_named_with_its_cause(said: bytes, cause: str) -> None:
    with pytest.raises(R1ServeError) as failed:
        speeds(["node 0", "node 1"], [b'{"bytes_per_s": 1e9}', said])
    assert "node 1" in failed.value.cause
    assert cause in failed.value.cause


def test_all_meet_at_the_first() -> None:
    argv = command(2, 4, "10.0.0.5:40001", "gloo")
    assert argv[argv.index("--rank") + 1 : argv.index("--at") + 2] == [
        *("2", "--ranks", "4", "--at", "10.0.0.5:40001")
    ]
