"""Remembers the last error that any process of an engine wrote to stderr.

vLLM reports the reason of a failed start only in its children's logs; to the caller it says "see
root cause above". Children inherit stderr, so a pipe in its place sees all of it and passes it on.
"""

import os
import re
import threading
from collections import deque
from collections.abc import Callable

_ERROR = re.compile(
    r"(?:^|\s)((?:[A-Za-z_]+\.)*(?:[A-Z]\w*(?:Error|Exception)|MemoryError)): (\S.*)$"
)
_DEATH = re.compile(r"Worker proc \S+ died unexpectedly \(exit code: -?\d+\)")
_NOISE = re.compile(  # what vLLM raises because of the error that we look for
    r"core initialization failed|WorkerProc initialization failed|EngineCore encountered|cancelled"
)
_LINES = 200


class StderrTail:
    """Replaces this process's stderr by a pipe from construction to `close`; stdout too where it is
    the same file, since vLLM logs there.

    Each line is also given to `on_line`, on a thread of its own.
    """

    def __init__(self, on_line: Callable[[str], None] | None = None) -> None:
        self._on_line = on_line
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._stderr = os.dup(2)
        self._replaced = (1, 2) if os.path.sameopenfile(1, 2) else (2,)
        reader, writer = os.pipe()
        for fd in self._replaced:
            os.dup2(writer, fd)
        os.close(writer)
        self._thread = threading.Thread(
            target=self._copy, args=(reader,), name="stderr-tail", daemon=True
        )
        self._thread.start()

    def reason(self) -> str | None:
        """The first of the last errors, as "message (Type)", or None if there was none."""
        return last_reason(list(self._lines))

    def forget(self) -> None:
        """What was written up to now explains nothing any more."""
        self._lines.clear()

    def close(self) -> None:
        """Gives stderr back; what children write from now on is still passed on. Idempotent."""
        if self._stderr >= 0:
            for fd in self._replaced:
                os.dup2(self._stderr, fd)
            self._stderr, stderr = -1, self._stderr
            if not self._thread.is_alive():
                os.close(stderr)

    def _copy(self, reader: int) -> None:
        stderr = self._stderr  # `close` forgets it, children may still write
        rest = b""
        while data := os.read(reader, 1 << 16):
            os.write(stderr, data)
            *lines, rest = (rest + data.replace(b"\r", b"\n")).split(b"\n")  # progress bars
            for line in lines:
                text = line.decode(errors="replace")
                self._lines.append(text)
                if self._on_line is not None:
                    self._on_line(text)
        os.close(reader)


def last_reason(lines: list[str]) -> str | None:
    """The error that the others followed from: the first that is not noise, as "message (Type)"."""
    for line in lines:
        if (death := _DEATH.search(line)) is not None:
            return death[0]
        found = _ERROR.search(line)
        if found is not None and not _NOISE.search(line):
            kind = found[1].rpartition(".")[2]
            return f"{found[2].strip()} ({kind})"
    return None
