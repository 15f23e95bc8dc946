"""The processes of a fleet that `r1-serve up` runs on this machine, found from outside."""

import os
from dataclasses import dataclass

from orchestrator.core import R1ServeError
from orchestrator.runtime.keeper import descendants

_LISTENS = "0A"  # /proc/net/tcp: TCP_LISTEN
_GCS = "--gcs-address="
_DECODES = ("decode", "unified")


@dataclass(frozen=True, slots=True)
class LocalGang:
    """A gang's engine processes, oldest first."""

    engine_id: str
    role: str
    pids: list[int]

    @property
    def decodes(self) -> bool:
        """Whether requests stay there to their end."""
        return self.role in _DECODES


@dataclass(frozen=True, slots=True)
class LocalFleet:
    """All that hangs below one `r1-serve up`."""

    root: int

    def gangs(self) -> list[LocalGang]:
        """All that have a process, in the order of their ids."""
        found: dict[str, LocalGang] = {}
        for pid in descendants(self.root):
            words = _command(pid)
            if "orchestrator.engines.server" not in words or "--engine-id" not in words:
                continue
            if any(word.endswith("keeper.py") for word in words):
                continue
            engine_id, role = (words[words.index(f) + 1] for f in ("--engine-id", "--role"))
            found.setdefault(engine_id, LocalGang(engine_id, role, [])).pids.append(pid)
        return [found[engine_id] for engine_id in sorted(found)]

    def gang(self) -> LocalGang:
        """The one that a drill strikes: the first that decodes. Raises R1ServeError."""
        for gang in self.gangs():
            if gang.decodes:
                return gang
        raise R1ServeError("the fleet has no gang that decodes", "wait until one has started")

    def heads(self) -> list[int]:
        """The process that keeps the cluster's tables; none for a moment when it has ended."""
        return [pid for pid in descendants(self.root) if _command(pid)[0].endswith("/gcs_server")]

    def address(self) -> str:
        """Of the cluster's GCS, as its nodes know it. Raises R1ServeError."""
        for pid in descendants(self.root):
            for word in _command(pid):
                if word.startswith(_GCS):
                    return word.removeprefix(_GCS)
        raise R1ServeError("the fleet has no Ray node", "wait until it has started")

    def gateways(self) -> list[int]:
        """Processes of gateway replicas, oldest first."""
        return [
            pid
            for pid in descendants(self.root)
            if any("ServeReplica:r1-serve:gateway" in word for word in _command(pid))
        ]


def find_fleet(port: int) -> LocalFleet | None:
    """The fleet whose API listens on that port of this machine; None if there is none."""
    sockets = _listening(port)
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        words = _command(int(name))
        ours = "orchestrator.cli" in words or any(word.endswith("/r1-serve") for word in words)
        if not ours or "up" not in words or "--folder" in words:
            continue
        if any(sockets & _sockets(pid) for pid in descendants(int(name))):
            return LocalFleet(int(name))
    return None


def _command(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\0").split("\0")
    except OSError:
        return [""]  # ended meanwhile


def _listening(port: int) -> set[str]:
    """Inodes of the sockets that listen on the port."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as lines:
                rows = [line.split() for line in lines][1:]
        except OSError:
            continue
        found |= {
            row[9] for row in rows if row[3] == _LISTENS and int(row[1].split(":")[1], 16) == port
        }
    return found


def _sockets(pid: int) -> set[str]:
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass  # ended meanwhile
    return found
