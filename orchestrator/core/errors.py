"""Operating errors, one small tree; programmer errors are asserts.

    R1ServeError
    +-- SpecError           the operator's input is wrong: fix it, then try again
    |   +-- LayoutError     the layout cannot be placed on the nodes there are
    +-- StartError          something did not start
        +-- EngineStartError
        +-- PortInUseError

Each carries one sentence with the cause and one with the cure.
"""

from typing_extensions import override


class R1ServeError(Exception):
    """Base of all: `cause` and `cure`, a sentence each, on one line; survives pickling."""

    def __init__(self, cause: str, cure: str = "") -> None:
        super().__init__(cause, cure)
        self.cause = " ".join(cause.split())
        self.cure = cure

    @override
    def __str__(self) -> str:
        return f"{self.cause} [{self.cure}]" if self.cure else self.cause


class SpecError(R1ServeError):
    """The operator's input is wrong; nothing was started."""


class LayoutError(SpecError):
    """The layout cannot be placed on the nodes there are."""


class StartError(R1ServeError):
    """Something that should run did not start."""


class EngineStartError(StartError):
    """An engine process did not become ready."""


class PortInUseError(StartError):
    """A port that we were told to use belongs to another process."""
