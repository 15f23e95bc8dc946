"""What a process is set to once it is a gateway."""

import sys

from orchestrator.core.collection import keep_out_of_collections

# A thread that renders a long prompt gives the interpreter back after as long; Python's 5 ms are a
# quarter of a step, for every stream of the gateway.
_SWITCH_S = 0.0005


def settle() -> None:
    """Call once everything that lives as long as the process is there: it is not collected any
    more, and no thread holds up the event loop for long.
    """
    keep_out_of_collections()
    sys.setswitchinterval(_SWITCH_S)
