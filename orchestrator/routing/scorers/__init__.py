"""One file, one term of the cost of a candidate: predicted seconds, a number for each rank."""

from collections.abc import Callable, Mapping

from orchestrator.routing.candidates import Candidates, Leg
from orchestrator.routing.scorers.affinity import affinity
from orchestrator.routing.scorers.crowding import crowding
from orchestrator.routing.scorers.decode import decode
from orchestrator.routing.scorers.kv_room import kv_room
from orchestrator.routing.scorers.prefill import prefill
from orchestrator.routing.scorers.queue import queue
from orchestrator.routing.scorers.stall import stall
from orchestrator.routing.scorers.transfer import transfer

Scorer = Callable[[Candidates], list[float]]

# A new term is a line here. A rank's cost is the sum; the request's own seconds and those that it
# costs others count alike.
SCORERS: Mapping[Leg, Mapping[str, Scorer]] = {
    Leg.WHOLE: {
        "prefill": prefill,
        "queue": queue,
        "crowding": crowding,
        "decode": decode,
        "stall": stall,
        "kv_room": kv_room,
        "affinity": affinity,
    },
    Leg.PREFILL: {
        "prefill": prefill,
        "queue": queue,
        "crowding": crowding,
        "affinity": affinity,
    },
    Leg.DECODE: {
        "transfer": transfer,
        "queue": queue,
        "decode": decode,
        "kv_room": kv_room,
    },
}

__all__ = ["SCORERS", "Scorer"]
