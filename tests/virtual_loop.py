"""An event loop that takes no time: its clock jumps to whatever is next."""

import asyncio
import selectors

from typing_extensions import override


class _Jumping(selectors.SelectSelector):
    """Waits for nothing: when no socket is ready, the time that was to be waited has passed."""

    passed_s = 0.0

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self.passed_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock begins at 0 and jumps."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    @override
    def time(self) -> float:
        return self._jumping.passed_s

    def pass_s(self, seconds: float) -> None:
        """What runs now has taken so long."""
        self._jumping.passed_s += seconds
