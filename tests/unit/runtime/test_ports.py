"""Ports are claimed so that what starts later finds them free."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from orchestrator.runtime.ports import PORTS, PortClaims

LOOPBACK = "127.0.0.1"


@pytest.fixture
def two_ports() -> range:
    """Two neighbouring ports that are free, whatever else runs here."""
    for first in PORTS[:-1]:
        ports = range(first, first + 2)
        claims = PortClaims(LOOPBACK, ports)
        try:
            claims.take(2)
        except OSError:
            continue
        finally:
            claims.release()
        return ports
    raise AssertionError("no two ports are free")


@pytest.fixture
def claims(two_ports: range) -> Iterator[PortClaims]:
    """A holder of claims to those two."""
    claims = PortClaims(LOOPBACK, two_ports)
    yield claims
    claims.release()


def test_no_port_is_given_twice(claims: PortClaims, two_ports: range) -> None:
    assert sorted(claims.take(1) + claims.take(1)) == list(two_ports)
    with pytest.raises(OSError, match="no 1 free ports"):
        claims.take(1)


def test_what_is_released_can_be_claimed_again(claims: PortClaims) -> None:
    claims.take(2)
    claims.release()
    claims.take(2)


def test_a_claim_holds_against_other_processes_and_ends_with_its_own(
    claims: PortClaims, two_ports: range
) -> None:
    code = (
        "from orchestrator.runtime.ports import PortClaims\n"
        f"claims = PortClaims('{LOOPBACK}', {two_ports})\n"
        "print(claims.take(2), flush=True)\n"
        "input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline()
        with pytest.raises(OSError, match="no 1 free ports"):
            claims.take(1)
        other.kill()
    assert sorted(claims.take(2)) == list(two_ports)


def test_a_port_that_somebody_listens_on_is_passed_over(
    claims: PortClaims, two_ports: range
) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, two_ports[0]))
        taken.listen()
        assert claims.take(1) == (two_ports[1],)


def test_the_kernel_gives_none_of_them_away_by_itself() -> None:
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        lowest = int(file.read().split()[0])
    assert PORTS[-1] < lowest
