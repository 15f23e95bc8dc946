"""When an answer that a grammar holds begins."""

import pytest

from orchestrator.core import Request, RequestId, Role, token_ids
from orchestrator.engines import Sampling
from orchestrator.gateway.passage import Passage
from orchestrator.handoff import Handoff
from orchestrator.spec import HandoffSpec

END_THINK, CALLS = 7, 8


def passage(pin_ids: frozenset[int] | None) -> Passage:
    request = Request(RequestId("r"), 3, 10, 0.0, 1.0)
    machine = Handoff(HandoffSpec(), Role.UNIFIED, 3, 10)
    return Passage(request, token_ids((1, 2, 3)), Sampling(10), machine, "", pin_ids)


@pytest.mark.parametrize(
    ("pin_ids", "chunks", "pinned"),
    [
        (None, [[END_THINK], [5]], [False, False]),
        (frozenset(), [[5], [6]], [True, False]),
        (frozenset({END_THINK, CALLS}), [[5], [END_THINK], [END_THINK]], [False, True, False]),
        (frozenset({END_THINK, CALLS}), [[5], [CALLS]], [False, True]),
    ],
)
def test_output_is_pinned_as_it_arrives_and_once(
    pin_ids: frozenset[int] | None, chunks: list[list[int]], pinned: list[bool]
) -> None:
    seen = passage(pin_ids)
    assert [seen.pins(ids) for ids in chunks] == pinned
