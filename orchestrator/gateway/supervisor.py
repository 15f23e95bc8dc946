"""The one task of a process that long-lived tasks are born in."""

import asyncio
from collections.abc import Coroutine


class Supervisor:
    """Runs long-lived tasks in one group; if one raises, all end and `failure` says why."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: dict[asyncio.Task[None], None] = {}  # a set that keeps its order
        self._main: asyncio.Task[None] | None = None
        self._started = asyncio.Event()
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Returns when tasks can be spawned."""
        loop = asyncio.get_running_loop()
        # The root of all tasks has no group to be born in.
        self._main = loop.create_task(self._run(), name="supervisor")
        await self._started.wait()

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Starts a task that lives until it returns, is cancelled, or the supervisor stops."""
        task = self._group.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return task

    def failure(self) -> str | None:
        """Why the supervisor ended although nobody stopped it, or None."""
        if self._main is None or not self._main.done() or self._stopping.is_set():
            return None
        error = self._main.exception() if not self._main.cancelled() else None
        return f"a background task failed: {error!r}"

    async def stop(self) -> None:
        """Cancels every task and returns when all have ended."""
        self._stopping.set()
        if self._main is not None:
            await asyncio.wait([self._main])

    async def _run(self) -> None:
        async with self._group:
            self._started.set()
            await self._stopping.wait()
            for task in list(self._tasks):  # each leaves the list when it is done
                task.cancel()
