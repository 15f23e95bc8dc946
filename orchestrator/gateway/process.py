"""What a process is set to once it is a gateway."""

import gc
import sys

# A thread that renders a long prompt gives the interpreter back after as long; Python's 5 ms are a
# quarter of a step, for every stream of the gateway.
_SWITCH_S = 0.0005


def settle() -> None:
    """Call once everything that lives as long as the process is there: it is not collected any
    more, and no thread holds up the event loop for long.
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_S)
