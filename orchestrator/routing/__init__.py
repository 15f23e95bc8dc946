"""Which rank serves a request: what each would have to compute, and what is ahead of it there."""

from orchestrator.routing.candidates import Candidates, Leg, Question, candidates
from orchestrator.routing.choose import (
    Choice,
    NoRank,
    Reason,
    choose_rank,
    explain,
    filter_ranks,
    pick,
    score,
)
from orchestrator.routing.default_costs import DEFAULT_COSTS, Costs, same_costs
from orchestrator.routing.keys import chain_keys, prompt_keys, root_key
from orchestrator.routing.kv_events import (
    HASH_MASK,
    Cleared,
    KvBatch,
    KvEvent,
    Removed,
    Stored,
)
from orchestrator.routing.kv_stream import (
    Apply,
    AskReplay,
    Forget,
    GiveUp,
    KvStream,
    Step,
    StreamCounts,
)
from orchestrator.routing.ledger import Credit, Ledger, Member
from orchestrator.routing.prefix_index import IndexCounts, PrefixHits, PrefixIndex
from orchestrator.routing.router import Decision, Prompt, Router, nowhere
from orchestrator.routing.ways import Prices, Way, price_ways
from orchestrator.spec import StepCosts

__all__ = [
    "DEFAULT_COSTS",
    "HASH_MASK",
    "Apply",
    "AskReplay",
    "Candidates",
    "Choice",
    "Cleared",
    "Costs",
    "Credit",
    "Decision",
    "Forget",
    "GiveUp",
    "IndexCounts",
    "KvBatch",
    "KvEvent",
    "KvStream",
    "Ledger",
    "Leg",
    "Member",
    "NoRank",
    "PrefixHits",
    "PrefixIndex",
    "Prices",
    "Prompt",
    "Question",
    "Reason",
    "Removed",
    "Router",
    "Step",
    "StepCosts",
    "Stored",
    "StreamCounts",
    "Way",
    "candidates",
    "chain_keys",
    "choose_rank",
    "explain",
    "filter_ranks",
    "nowhere",
    "pick",
    "price_ways",
    "prompt_keys",
    "root_key",
    "same_costs",
    "score",
]
