"""How the scaling policy learns its spec: gateways put it where the policy looks, and they are
replaced when it changes.

In Serve's configuration it would be a part of the application's version, and a new ceiling would
replace every gang.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor

from ray.experimental import internal_kv

from orchestrator.spec import Spec, scaling_part, spec_text

LOOK_S = 5.0
_KEY, _NAMESPACE = b"scaling", b"r1-serve"


def publish(spec: Spec) -> None:
    """Puts what scaling predicts with into Ray's store; from a process of the cluster."""
    internal_kv._internal_kv_put(
        _KEY, spec_text(scaling_part(spec)).encode(), overwrite=True, namespace=_NAMESPACE
    )


class Latest:
    """What was published last, read by a thread: asking never waits."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "scaling-spec")
        self._reading: Future[bytes | None] | None = None
        self._due = 0.0
        self._text: str | None = None

    def __call__(self) -> str | None:
        """The spec as of some seconds ago; None: not known yet."""
        if self._reading is None:
            if time.monotonic() >= self._due:
                self._reading = self._thread.submit(_read)
        elif self._reading.done():
            reading, self._reading = self._reading, None
            self._due = time.monotonic() + LOOK_S
            if reading.exception() is None and (found := reading.result()) is not None:
                self._text = found.decode()
        return self._text


def _read() -> bytes | None:
    found: bytes | None = internal_kv._internal_kv_get(_KEY, namespace=_NAMESPACE)
    return found
