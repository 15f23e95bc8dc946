"""Step times one at a time: the passes of one gang as tables, for hosts that ask a million times.

`step.py` is sampled once, term by term; a step is then some additions. Unlike there, ranks may
differ: `batch`, `tokens` and `context` are those of the rank that the barrier waits for, `total` is
of all DP ranks of the gang together, which share the experts.
"""

from dataclasses import replace

import numpy as np

from orchestrator.perf.factors import Efficiency
from orchestrator.perf.layout import Array
from orchestrator.perf.point import Point
from orchestrator.perf.step import decode_pass, prefill_pass

_NODES = 192  # samples of a curve, closer where it is small
_PARTS = 16_384  # entries of a table over all ranks' tokens

Terms = dict[str, Array]


class PassTables:
    """Of one layout (`point` of shape [] or [1]); `sequences_max` is a rank's largest batch.

    `luck` scales what the busiest EP rank has more than its share: 1 is the expected value.
    """

    def __init__(self, point: Point, e: Efficiency, sequences_max: int, luck: float = 1.0) -> None:
        self._p = p = Point.stack([point])
        self._e = e
        self._layers = float(p.layers[0])
        self._drafts = float(p.drafts[0])
        self._hidden = float((p.overlap * e.overlap)[0])  # of the shorter, what overlap hides
        self._sequences_max = sequences_max
        self._chunk = int(p.chunk_tokens[0])
        self._luck = luck
        self._decode_tables()
        self._prefill_tables()

    # --- decode --------------------------------------------------------------------------------

    def _decode_tables(self) -> None:
        p, e, most = self._p, self._e, self._sequences_max
        nodes = _nodes(most)
        terms = dict(decode_pass(p, e, nodes, np.zeros_like(nodes)).terms)
        every = np.arange(most + 1, dtype=float)
        self._d_compute = _list(every, nodes, _compute(terms))
        self._d_communication = _list(every, nodes, terms["communication"])
        self._d_rest = _list(every, nodes, terms["hand_over"] + terms["launch"])
        self._d_head = _list(every, nodes, terms["head"] * (1 + self._drafts))
        self._d_step = float(np.asarray(terms["step"]).flat[0])
        dp = float(p.dp[0])
        totals = _nodes(int(most * dp))
        self._d_stride, self._d_experts = self._experts_table(totals, totals / dp, prefill=False)
        one = np.ones(1) * float(p.pp[0])
        attention = decode_pass(p, e, one, one * 0 + 1000.0).terms["attention"]
        self._d_context_s = float(attention[0]) / 1000.0 / float(p.pp[0])

    def decode_s(self, batch: int, total: int, context: float) -> float:
        """One step of `batch` sequences with `context` tokens together on the slowest rank."""
        compute = (
            self._d_compute[batch]
            + self._d_experts[total // self._d_stride]
            + self._d_context_s * context
        )
        communication = self._d_communication[batch]
        inner = compute + communication + self._d_rest[batch]
        inner -= self._hidden * (compute if compute < communication else communication)
        return inner * (1 + self._drafts / self._layers) + self._d_head[batch] + self._d_step

    # --- prefill -------------------------------------------------------------------------------

    def _prefill_tables(self) -> None:
        p, e, most = self._p, self._e, self._chunk
        nodes = _nodes(most)
        zero = np.zeros_like(nodes)
        terms = dict(prefill_pass(p, e, nodes, zero, zero).terms)
        every = np.arange(most + 1, dtype=float)
        self._p_compute = _list(every, nodes, _compute(terms))
        self._p_communication = _list(every, nodes, terms["communication"])
        self._p_rest = _list(every, nodes, np.asarray(terms["hand_over"]) + zero)
        dp = float(p.dp[0])
        totals = _nodes(int(most * dp))
        self._p_stride, self._p_experts = self._experts_table(totals, totals / dp, prefill=True)
        one = np.ones(1)
        pair = prefill_pass(p, e, one, one * 1000.0, one * 0).terms["attention"]
        cached = prefill_pass(p, e, one, one * 0, one * 1000.0).terms["attention"]
        self._p_pair_s = float(pair[0]) / 1000.0
        self._p_cached_s = float(cached[0]) / 1000.0
        pace = float(np.asarray(e.pace).flat[0])
        self._p_floor_s = float(np.asarray(e.prefill_layer_s).flat[0]) * self._layers * pace

    def attention_s(self, tokens: int, before: int, cached: int) -> float:
        """Attention of one part of a prompt of which `before` tokens have been, `cached` of them
        in earlier passes.
        """
        return self._p_pair_s * tokens * (before + tokens / 2) + self._p_cached_s * cached

    def prefill_s(self, tokens: int, total: int, attention_s: float) -> float:
        """One pass over `tokens` prompt tokens on the slowest rank; through all stages."""
        compute = self._p_compute[tokens] + self._p_experts[total // self._p_stride] + attention_s
        communication = self._p_communication[tokens]
        inner = compute + communication + self._p_rest[tokens]
        inner -= self._hidden * (compute if compute < communication else communication)
        return inner if inner > self._p_floor_s else self._p_floor_s

    def _experts_table(
        self, totals: Array, balanced: Array, *, prefill: bool
    ) -> tuple[int, list[float]]:
        def experts(p: Point) -> Array:
            zero = np.zeros_like(balanced)
            if prefill:
                return np.asarray(prefill_pass(p, self._e, balanced, zero, zero).terms["experts"])
            return np.asarray(decode_pass(p, self._e, balanced, zero).terms["experts"])

        found = experts(self._p)
        if self._luck != 1.0:
            even = experts(replace(self._p, unbalanced=np.zeros(1)))
            found = even + self._luck * (found - even)
        stride = max(1, int(totals[-1]) // _PARTS)
        every = np.arange(int(totals[-1]) // stride + 1, dtype=float) * stride + (stride - 1) / 2
        return stride, _list(every, totals, found)


def _compute(terms: Terms) -> Array:
    """What grows with a rank's own tokens."""
    return np.asarray(
        terms["projections"] + terms["dense"] + terms["shared_expert"] + terms["activations"]
    )


def _nodes(most: int) -> Array:
    """Whole numbers from 1 to `most`."""
    first = min(most, 64)
    rest = np.geomspace(first, max(most, first), _NODES - first if most > first else 1)
    return np.unique(np.rint(np.concatenate([np.arange(1, first + 1), rest])))


def _list(every: Array, nodes: Array, values: Array) -> list[float]:
    found: list[float] = np.interp(every, nodes, np.broadcast_to(values, nodes.shape)).tolist()
    return found
