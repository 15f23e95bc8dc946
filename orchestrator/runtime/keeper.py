"""Runs one command and, when it or its parent ends, leaves nothing of it behind.

    python keeper.py [--grace SECONDS] [--watch-stdin] -- COMMAND...

The keeper adopts every orphan below it (Linux child subreaper), so a worker whose parent was killed
is still found. It ends the command when it gets SIGTERM or SIGINT or, with --watch-stdin, when its
standard input ends because the process that started it died: first SIGTERM to the command, after
the grace SIGKILL to all that is left, then the shared memory files they held are removed. Its exit
code is the command's, or 128 plus the signal that ended it.

Standard library only and no imports from the project: it must start in milliseconds, stay small,
and work while everything else is broken.
"""

import argparse
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from types import FrameType

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
SHM = "/dev/shm/"
SAMPLE_S = 10.0  # how often the shared memory of the command is noted


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def descendants(root: int) -> list[int]:
    """Every living process below `root`, parents before children; zombies are left out."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stat:
                    state, parent = stat.read().rpartition(")")[2].split()[:2]
            except OSError:
                continue  # ended meanwhile
            if state != "Z":
                children.setdefault(int(parent), []).append(int(name))
    found: list[int] = []
    queue = [root]
    while queue:
        below = sorted(children.get(queue.pop(0), []))
        found += below
        queue += below
    return found


def shared_memory(pid: int) -> set[int]:
    """The inodes in /dev/shm that the process has mapped.

    Not the names: a semaphore is mapped by the name of the temporary file that it was linked from.
    """
    held: set[int] = set()
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:
            for line in maps:
                if SHM in line:
                    held.add(int(line.split(maxsplit=5)[4]))
    except OSError:
        pass  # ended meanwhile
    return held


def remove_shared_memory(inodes: set[int]) -> None:
    """Removes the files in /dev/shm that have these inodes."""
    for entry in os.scandir(SHM):
        try:
            if entry.inode() in inodes:
                os.unlink(entry.path)
        except FileNotFoundError:
            pass


def adopt_orphans() -> None:
    """From now on a process below this one whose parent dies becomes this one's child."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_all_below(root: int, but: int | None = None) -> None:
    """Kills every process below `root`, of which this process must be the parent or an adopter;
    returns when none is left. The exit code of the child `but` is left for its owner.
    """
    while left := descendants(root):
        for pid in left:
            _signal(pid, signal.SIGKILL)
        reap(but)
        time.sleep(0.02)


def reap(but: int | None) -> None:
    """Collects children of this process that have ended, all but one."""
    for name in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{name}/children", encoding="ascii") as listing:
                pids = [int(pid) for pid in listing.read().split()]
        except OSError:
            continue
        for pid in pids:
            if pid != but:
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    pass


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


class Keeper:
    """One command under watch."""

    def __init__(self, command: list[str], grace_s: float, watch_stdin: bool) -> None:
        self._grace_s = grace_s
        self._watch_stdin = watch_stdin
        self._memory: set[int] = set()
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        signal.set_wakeup_fd(self._waker)
        self._asked_to_end = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._end)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        adopt_orphans()
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in the terminal reaches the keeper alone
            preexec_fn=lambda: _prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
        )

    def run(self) -> int:
        """Returns the exit code once nothing is left."""
        while self._child.poll() is None and not self._asked_to_end:
            self._note_memory()
            reap(self._child.pid)
            self._sleep(SAMPLE_S)
        self._note_memory()  # while they are all there
        if self._child.poll() is None:
            self._child.terminate()
            self._await_child()
        self._sweep()
        code = self._child.wait()
        reap(self._child.pid)
        return code if code >= 0 else 128 - code

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._asked_to_end = True

    def _sleep(self, seconds: float) -> None:
        watched = [self._wake] + ([0] if self._watch_stdin else [])
        ready, _, _ = select.select(watched, [], [], seconds)
        if self._wake in ready:
            os.read(self._wake, 4096)
        if 0 in ready and not os.read(0, 4096):
            self._asked_to_end = True

    def _await_child(self) -> None:
        try:
            self._child.wait(self._grace_s)
        except subprocess.TimeoutExpired:
            pass

    def _note_memory(self) -> None:
        for pid in descendants(os.getpid()):
            self._memory |= shared_memory(pid)

    def _sweep(self) -> None:
        self._note_memory()
        end_all_below(os.getpid(), self._child.pid)
        remove_shared_memory(self._memory)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--grace", type=float, default=5.0)
    parser.add_argument("--watch-stdin", action="store_true")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    return Keeper(options.command, options.grace, options.watch_stdin).run()


if __name__ == "__main__":
    sys.exit(main())
