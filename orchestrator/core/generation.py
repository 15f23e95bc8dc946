"""Words that every room uses for one generation: where its KV comes from, how it ends."""

from enum import StrEnum
from typing import NamedTuple

KvParams = dict[str, object]  # what a prefill rank returns and a decode rank takes; opaque to us


class KvSource(StrEnum):
    """Where the KV of a prompt comes from, and whether it is kept for a peer."""

    LOCAL = "local"  # computed here, used here
    PRODUCE = "produce"  # computed here and held for one decode rank; the end carries `KvParams`
    TRANSFER = "transfer"  # pulled from the prefill rank that `kv_params` names


class Finish(StrEnum):
    """Why a generation ended."""

    STOP = "stop"  # a stop token was drawn (it is not among the ids)
    LENGTH = "length"  # max_tokens or the context length reached
    ABORTED = "aborted"  # on our request
    REFUSED = "refused"  # the engine cannot serve this request anywhere (too long, malformed)
    FAILED = "failed"  # the engine could not serve it this time; another rank may
    LOST = "lost"  # the engine or the way to it died; set by the channel, never by an engine


class TokenLogprob(NamedTuple):
    """How probable one token was, of the natural logarithms that it was drawn by.

    `top` has the most probable ids with theirs, best first; the token may be among them or not.
    """

    logprob: float
    top: tuple[tuple[int, float], ...] = ()
