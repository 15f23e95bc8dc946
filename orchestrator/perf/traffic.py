"""What a fleet is asked to do, and what is predicted of it."""

from dataclasses import dataclass

import numpy as np

from orchestrator.perf.layout import Array, Flags

# Tokens a decode step gains: the first draft is accepted with this chance, each further one with
# the chance before it times the decay. Middle of the published accept lengths: 1.80-1.92 with one
# draft, 2.58 with two, 2.18-2.82 with three, 2.44-2.99 with four (DeepSeek-V3 technical report
# 5.4.3; SGLang and TensorRT-LLM posts on R1's MTP).
FIRST_DRAFT_ACCEPTED = 0.86
DRAFT_DECAY = 0.75


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests of one kind; lengths are means over requests, in tokens."""

    input_tokens: float | Array
    output_tokens: float | Array
    prefix_hit: float | Array = 0.0  # share of the input that is cached where it is computed
    accept_tokens: float | Array | None = None  # a step's tokens with drafts; None: as published
    decode_context_tokens: float | Array | None = None  # mean over decode steps, of which long
    # outputs take more; None: input and half of the output, true where lengths vary little

    def context(self) -> Array:
        """Tokens of context that a sequence of a decode batch holds on average."""
        if self.decode_context_tokens is not None:
            return np.asarray(self.decode_context_tokens, dtype=float)
        return np.asarray(self.input_tokens + np.asarray(self.output_tokens) / 2, dtype=float)

    def steps(self, drafts: Array) -> Array:
        """Decode steps of a request: prefill gives the first token."""
        after = np.maximum(np.asarray(self.output_tokens, dtype=float) - 1, 1.0)
        return np.asarray(after / self.accepted(drafts))

    def accepted(self, drafts: Array) -> Array:
        """Tokens that a decode step gains with that many drafts."""
        if self.accept_tokens is not None:
            return np.where(drafts > 0, self.accept_tokens, 1.0)
        gained = np.ones_like(drafts)
        chance, reached = FIRST_DRAFT_ACCEPTED, 1.0
        for draft in range(1, int(np.max(drafts, initial=0)) + 1):
            reached *= chance
            gained = gained + np.where(drafts >= draft, reached, 0.0)
            chance *= DRAFT_DECAY
        return gained


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """So many requests are in the system at any time: when one ends, the next begins."""

    concurrency: float | Array  # of the whole fleet


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Requests arrive at a rate, whatever the fleet does with them."""

    request_rate: float | Array  # a second, of the whole fleet


Load = ClosedLoop | OpenLoop


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a fleet does under a load; arrays of the shape that grid, traffic and load broadcast to.

    Means over requests. Where a rate is more than the fleet can do, `saturated` is true, `ttft_s`
    infinite and the rest what it does at its limit.
    """

    ttft_s: Array
    tpot_s: Array
    request_rate: Array  # a second, of the whole fleet
    concurrency: Array  # requests in the system
    decode_batch: Array  # sequences of a decode rank
    prefill_load: Array  # share of the prefill capacity in use
    kv_limited: Flags  # true: requests wait because KV has no room
    saturated: Flags
    gpus: Array  # of the whole fleet
    output_tokens_per_s_per_gpu: Array
    total_tokens_per_s_per_gpu: Array  # with the input
