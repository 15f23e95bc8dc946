"""Simulated nodes with addresses of their own: made, used, and gone without a trace."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core import StartError
from orchestrator.runtime import namespaces
from orchestrator.runtime.namespaces import DEVICES, NAMESPACES, Namespaces

FIND_ADDRESS = "import socket; s = socket.socket(); s.bind(('{}', 0)); print('bound')"


@pytest.fixture
def network() -> Iterator[Namespaces]:
    """Two nodes; the test is skipped, with the reason, where there can be none."""
    network = Namespaces(os.getpid(), 2)
    try:
        network.make()
    except StartError as error:
        pytest.skip(str(error))
    try:
        yield network
    finally:
        network.remove()


def traces(owner: int) -> list[str]:
    """What there is of an owner's."""
    found = [*NAMESPACES.glob(f"r1-{owner}*"), *DEVICES.glob(f"r1-{owner}*")]
    return sorted(path.name for path in found)


def test_a_process_on_a_node_has_its_address_and_no_other_nodes(network: Namespaces) -> None:
    def binds(node: int, address: str) -> bool:
        argv = network.command(node, [sys.executable, "-I", "-c", FIND_ADDRESS.format(address)])
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    assert binds(0, network.address(0))
    assert not binds(0, network.address(1))


def test_removing_ends_what_runs_there_and_leaves_nothing(network: Namespaces) -> None:
    argv = network.command(1, [sys.executable, "-I", "-c", "import time; time.sleep(600)"])
    sleeper = subprocess.Popen(argv)
    assert len(traces(os.getpid())) == 5, "a bridge, two namespaces, two links"
    network.remove()
    assert sleeper.wait(10) != 0
    assert traces(os.getpid()) == []
    network.remove()


def test_what_a_killed_owner_left_is_removed_by_the_next(network: Namespaces) -> None:
    owner = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import os; from orchestrator.runtime.namespaces import Namespaces; "
            "Namespaces(os.getpid(), 1).make(); print(os.getpid(), flush=True); os._exit(9)",
        ],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert traces(int(owner)) != []
    namespaces.remove_stale()
    assert traces(int(owner)) == []
    assert traces(os.getpid()) != [], "the living owner's stay"


def test_a_machine_without_the_command_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartError, match="no command `ip`") as caught:
        Namespaces(os.getpid(), 1).make()
    assert caught.value.cure == "install iproute2"
