"""Simulated nodes with addresses of their own: Linux network namespaces on one bridge.

Everything is named after the process that owns it, so that what a killed owner left behind is found
and removed by the next. Only the network is a node's own: files, shared memory and process ids are
the machine's.
"""

import ctypes
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.core import StartError

CLONE_NEWNET = 0x40000000  # linux/sched.h
NAMESPACES, DEVICES = Path("/run/netns"), Path("/sys/class/net")
NODES_MAX = 200  # below the bridge's address in a subnet of 254
SUBNETS = 256
COMMAND_S = 30.0
CONNECT_S = 5.0
_OWN = re.compile(r"r1-(\d+)(?:[-.]\d+)?")  # bridge, namespaces, and the bridge's end of each link
_INET = r"inet (198\.18\.\d+)\."  # a subnet, as `ip` prints an address of it
_CURE = (
    "run as root with CAP_NET_ADMIN and CAP_SYS_ADMIN, or set local.namespaces to false, which "
    "puts all nodes on the loopback"
)


class Namespaces:
    """`count` nodes and the bridge that joins them and this machine."""

    def __init__(self, owner: int, count: int) -> None:
        """`owner` is the pid of the process whose end is theirs."""
        assert 0 < count <= NODES_MAX
        self._owner = owner
        self._count = count
        self._subnet = ""

    @property
    def head(self) -> str:
        """This machine's address among the nodes."""
        return f"{self._subnet}.1"

    def address(self, node: int) -> str:
        """The one address of a node."""
        return f"{self._subnet}.{node + 2}"

    def make(self) -> None:
        """Makes them; raises StartError, with everything removed again, if that is not allowed."""
        remove_stale()
        remove(self._owner)
        self._subnet = _free_subnet(self._owner)
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("addr", "add", f"{self.head}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            for node in range(self._count):
                self._add(node)
            self._check()
        except StartError:
            remove(self._owner)
            raise

    def command(self, node: int, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` on a node."""
        return ["ip", "netns", "exec", self._name(node), *argv]

    def cut(self, node: int) -> None:
        """Breaks a node's link: it hears nothing and is not heard."""
        _ip("link", "set", self._link(node), "down")

    def mend(self, node: int) -> None:
        """Undoes `cut`."""
        _ip("link", "set", self._link(node), "up")

    def cut_head(self) -> None:
        """The same for this machine: the nodes still reach each other. Whoever cuts must mend."""
        [self._subnet] = re.findall(_INET, _ip("-4", "-o", "addr", "show", "dev", self._bridge))
        for half in self._halves():
            _ip("route", "add", "blackhole", half)
        _ip("addr", "del", f"{self.head}/24", "dev", self._bridge)

    def mend_head(self) -> None:
        """Undoes `cut_head`."""
        _ip("addr", "add", f"{self.head}/24", "dev", self._bridge)
        for half in self._halves():
            _ip("route", "del", "blackhole", half)

    def node_of(self, pid: int) -> int | None:
        """The node that a process runs on; None: on this machine itself."""
        there = os.stat(f"/proc/{pid}/ns/net").st_ino
        for node in range(self._count):
            if (NAMESPACES / self._name(node)).stat().st_ino == there:
                return node
        return None

    def slow(self, node: int, bits_per_s: int) -> None:
        """What the node sends goes out no faster than that."""
        tbf = ("tbf", "rate", str(bits_per_s), "burst", "32kb", "latency", "1s")
        _run("tc", "-n", self._name(node), "qdisc", "replace", "dev", "eth0", "root", *tbf)

    def hasten(self, node: int) -> None:
        """Undoes `slow`."""
        _run("tc", "-n", self._name(node), "qdisc", "del", "dev", "eth0", "root")

    def end_all(self, node: int) -> None:
        """Ends every process on a node."""
        _end_all(self._name(node))

    def remove(self) -> None:
        """Ends every process on the nodes, and removes them."""
        remove(self._owner)

    def _halves(self) -> tuple[str, str]:
        """The subnet in two, which as routes go before the subnet as a whole."""
        return f"{self._subnet}.0/25", f"{self._subnet}.128/25"

    @property
    def _bridge(self) -> str:
        return f"r1-{self._owner}"

    def _name(self, node: int) -> str:
        return f"r1-{self._owner}-{node}"

    def _link(self, node: int) -> str:
        return f"r1-{self._owner}.{node}"

    def _add(self, node: int) -> None:
        name, link = self._name(node), self._link(node)
        _ip("netns", "add", name)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", link, "master", self._bridge, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "addr", "add", f"{self.address(node)}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        _ip("-n", name, "route", "add", "default", "via", self.head)

    def _check(self) -> None:
        """Raises unless one node reaches another: packet filters may forbid what a bridge does."""
        with _socket_in(self._name(0)) as server, _socket_in(self._name(self._count - 1)) as client:
            server.bind((self.address(0), 0))
            server.listen()
            client.settimeout(CONNECT_S)
            try:
                client.connect(server.getsockname())
            except OSError as error:
                raise StartError(
                    f"the simulated nodes do not reach each other: {error}",
                    "let packets pass on bridges: sysctl net.bridge.bridge-nf-call-iptables=0",
                ) from error


def remove(owner: int) -> None:
    """Ends every process in the namespaces of an owner and removes all that is named after it;
    nothing there is no error.
    """
    for name in _named(NAMESPACES, owner):
        _end_all(name)
        _ip_quietly("netns", "del", name)
    for name in _named(DEVICES, owner):
        _ip_quietly("link", "del", name)


def remove_stale() -> None:
    """Removes what owners that do not live any more have left."""
    owners = {
        int(found[1])
        for folder in (NAMESPACES, DEVICES)
        for name in _names(folder)
        if (found := _OWN.fullmatch(name)) is not None
    }
    for owner in sorted(owners):
        if not Path(f"/proc/{owner}").exists():
            remove(owner)


def _end_all(name: str) -> None:
    while pids := _pids(name):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def _pids(name: str) -> list[int]:
    """The living processes of a namespace; those that nobody has waited for are not."""
    try:
        here = (NAMESPACES / name).stat()
    except OSError:
        return []
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            there = (process / "ns" / "net").stat()
            state = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        except OSError:
            continue  # ended meanwhile
        if (there.st_ino, there.st_dev) == (here.st_ino, here.st_dev) and state not in "ZX":
            found.append(int(process.name))
    return found


def _named(folder: Path, owner: int) -> list[str]:
    return [
        name
        for name in _names(folder)
        if (found := _OWN.fullmatch(name)) is not None and int(found[1]) == owner
    ]


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _free_subnet(owner: int) -> str:
    """The first three numbers of a subnet that no interface here is in, of 198.18.0.0/16, which no
    real network has (RFC 2544).
    """
    taken = set(re.findall(_INET, _ip("-4", "-o", "addr")))
    for at in range(SUBNETS):
        subnet = f"198.18.{(owner + at) % SUBNETS}"
        if subnet not in taken:
            return subnet
    raise StartError("no subnet of 198.18.0.0/16 is free", "end other runs of r1-serve")


def _socket_in(name: str) -> socket.socket:
    """A TCP socket of a namespace. A thread may enter one by itself, and ends with this."""
    made: list[socket.socket] = []

    def make() -> None:
        fd = os.open(NAMESPACES / name, os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) == 0:
                made.append(socket.socket())
        finally:
            os.close(fd)

    _in_own_thread(make)
    if not made:
        raise StartError(f"cannot enter the network namespace {name}", _CURE)
    return made[0]


def _in_own_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def _ip(*arguments: str) -> str:
    return _run("ip", *arguments)


def _run(*command: str) -> str:
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_S, check=False
        )
    except FileNotFoundError as error:
        raise StartError(
            f"cannot make simulated nodes: there is no command `{command[0]}`", "install iproute2"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise StartError(f"`{' '.join(command)}` does not end", _CURE) from error
    if ended.returncode:
        said = ended.stderr.strip() or f"code {ended.returncode}"
        raise StartError(f"cannot make simulated nodes: `{' '.join(command)}` says: {said}", _CURE)
    return ended.stdout


def _ip_quietly(*arguments: str) -> None:
    """Removes something that may be gone already, with the other end of its link."""
    try:
        _ip(*arguments)
    except StartError:
        pass
