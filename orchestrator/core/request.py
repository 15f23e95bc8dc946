"""What a policy may know of a request, and how its tokens are to be drawn."""

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.ids import RequestId


class Role(StrEnum):
    """What the ranks of a pool do for a request."""

    PREFILL = "prefill"  # compute the prompt's KV and hand it over
    DECODE = "decode"  # generate from transferred KV, or from a prompt prefilled in place
    UNIFIED = "unified"  # both, for every request


@dataclass(frozen=True, slots=True)
class Request:
    """One completion call as policies see it; the output length is not known to them.

    `arrived_at` and `deadline` are instants of the host's monotonic clock; after `deadline` a
    request that has not started is worthless.
    """

    request_id: RequestId
    prompt_tokens: int
    max_tokens: int
    arrived_at: float
    deadline: float
    session: str = ""  # requests of one session share a prefix; empty: nobody has said
    tenant: str = ""  # whose it is, for fairness; empty: everybody's
    klass: str = ""  # of service
