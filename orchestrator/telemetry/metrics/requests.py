"""Requests by phase, as a gateway sees them."""

from orchestrator.telemetry.metrics import labels as of
from orchestrator.telemetry.metrics.metric import Kind, Label, Metric, Unit

_TTFT_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)
_LONG_S = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_PHASE_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0)
_ITL_S = (0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 5.0)
_OWN_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)

_WHOSE = (of.MODEL, of.CLASS)


def _seconds(
    name: str, help_: str, buckets: tuple[float, ...], labels: tuple[Label, ...] = _WHOSE
) -> Metric:
    return Metric(f"r1_{name}_seconds", Kind.HISTOGRAM, help_, labels, buckets, Unit.SECONDS)


REQUESTS = Metric(
    "r1_requests_total",
    Kind.COUNTER,
    "Requests that ended, by how they ended.",
    (of.MODEL, of.CLASS, of.OUTCOME),
)
IN_FLIGHT = Metric(
    "r1_requests_in_flight", Kind.GAUGE, "Requests admitted and not yet ended.", (of.MODEL,)
)
WAITING = Metric("r1_requests_queued", Kind.GAUGE, "Requests waiting for admission.", (of.MODEL,))
SLOTS = Metric(
    "r1_request_slots",
    Kind.GAUGE,
    "Requests that this gateway may have admitted at once.",
    (of.MODEL,),
)
ADMISSION = Metric(
    "r1_admission_total",
    Kind.COUNTER,
    "Decisions of admission, by reason.",
    (of.MODEL, of.CLASS, of.DECISION, of.ADMISSION_REASON),
)
LIMITED = Metric(
    "r1_tenant_limits_total",
    Kind.COUNTER,
    "Requests refused since their tenant has used up a limit.",
    (of.LIMIT,),
)
THINKING_BUDGETS = Metric(
    "r1_thinking_budgets_total",
    Kind.COUNTER,
    "Requests whose thought has a budget, by whose it is.",
    (of.MODEL, of.BUDGET_REASON),
)

# --- phases, in the order that a request passes them ---------------------------------------------

STAGE = _seconds(
    "gateway_stage",
    "The gateway's own part before an engine has the request, by stage.",
    _OWN_S,
    (of.STAGE,),
)
QUEUED = _seconds("queue", "Arrival to admission.", _PHASE_S)
PREFILL = _seconds(
    "prefill",
    "Sent to a rank that prefills to its end or, where the same rank decodes, to the first token.",
    _PHASE_S,
    (*_WHOSE, of.PATH),
)
TRANSFERRED = _seconds(
    "transfer",
    "The prefill's end to the first token of the decode: rank chosen, KV moved, one step.",
    _PHASE_S,
)
TTFT = _seconds("ttft", "Arrival to first token sent.", _TTFT_S)
ANSWER = _seconds(
    "first_answer",
    "Arrival to first token of the answer, of requests that think.",
    _LONG_S,
)
ITL = _seconds("itl", "Gap between two chunks of tokens sent; of one stream in eight.", _ITL_S)
TPOT = _seconds("tpot", "Mean gap between tokens, one for each request of two and more.", _ITL_S)
E2E = _seconds("request", "Arrival to last token sent.", _LONG_S)

# --- tokens --------------------------------------------------------------------------------------

PROMPT_TOKENS = Metric(
    "r1_prompt_tokens_total",
    Kind.COUNTER,
    "Prompt tokens of admitted requests.",
    _WHOSE,
    unit=Unit.TOKENS,
)
TOKENS = Metric(
    "r1_output_tokens_total",
    Kind.COUNTER,
    "Tokens generated for clients, counted when their request ends.",
    (*_WHOSE, of.PART),
    unit=Unit.TOKENS,
)
PREFIX_HITS = Metric(
    "r1_prefix_hit_tokens_total",
    Kind.COUNTER,
    "Prompt tokens whose KV the prefilling rank had, as routing believed when it chose the rank "
    "and as the engine then counted; only of prefills that have ended.",
    (of.MODEL, of.HIT),
    unit=Unit.TOKENS,
)
PREFILLED = Metric(
    "r1_prefilled_tokens_total",
    Kind.COUNTER,
    "Prompt tokens of prefills that have ended: what prefix hits are a share of.",
    (of.MODEL,),
    unit=Unit.TOKENS,
)

# --- the way -------------------------------------------------------------------------------------

PATHS = Metric(
    "r1_prefill_paths_total",
    Kind.COUNTER,
    "How prompts were prefilled.",
    (of.MODEL, of.PATH, of.PATH_REASON),
)
TRANSFERS = Metric(
    "r1_transfers_total",
    Kind.COUNTER,
    "KV transfers by what became of them.",
    (of.MODEL, of.TRANSFER),
)
TRANSFERS_OPEN = Metric(
    "r1_transfers_open",
    Kind.GAUGE,
    "Requests whose decode waits for KV.",
    (of.MODEL,),
)
TRANSFERS_OLDEST = Metric(
    "r1_transfer_oldest_seconds",
    Kind.GAUGE,
    "How long the oldest of those has waited; 0 without any.",
    (of.MODEL,),
    unit=Unit.SECONDS,
)
RESUMED = Metric(
    "r1_requests_resumed_total",
    Kind.COUNTER,
    "Submissions after a rank failed or was left.",
    (of.MODEL,),
)
MOVED = Metric(
    "r1_requests_moved_total",
    Kind.COUNTER,
    "Requests moved from a rank that drains, by reason.",
    (of.MODEL, of.MOVE_REASON),
)
QUARANTINED = Metric(
    "r1_requests_quarantined_total",
    Kind.COUNTER,
    "Requests that engines died of, and that were given up.",
    (of.MODEL,),
)

# --- what users were promised --------------------------------------------------------------------

SLO = Metric(
    "r1_slo_requests_total",
    Kind.COUNTER,
    "Requests by what became of their SLO; none of a model without one, and none that the client "
    "left or that were the client's own fault.",
    (*_WHOSE, of.SLO),
)
SLO_TARGET = Metric(
    "r1_slo_target_ratio",
    Kind.GAUGE,
    "Share of the requests that is to keep its SLO.",
    (of.MODEL,),
    unit=Unit.RATIO,
)
EMPTY_ANSWERS = Metric(
    "r1_empty_answers_total",
    Kind.COUNTER,
    "Completions that ended inside their reasoning, by finish reason.",
    (of.MODEL, of.FINISH),
)
INVALID_JSON = Metric(
    "r1_invalid_json_total",
    Kind.COUNTER,
    "Answers that a grammar should have made JSON and that are none.",
    (of.MODEL,),
)
THOUGHTS_CLOSED = Metric(
    "r1_thoughts_closed_total",
    Kind.COUNTER,
    "Thoughts that the gateway closed, since the engine had not kept their budget.",
    (of.MODEL,),
)

REQUEST_METRICS = (
    *(REQUESTS, IN_FLIGHT, WAITING, SLOTS, ADMISSION, LIMITED, THINKING_BUDGETS),
    *(STAGE, QUEUED, PREFILL, TRANSFERRED, TTFT, ANSWER, ITL, TPOT, E2E),
    *(PROMPT_TOKENS, TOKENS, PREFIX_HITS, PREFILLED),
    *(PATHS, TRANSFERS, TRANSFERS_OPEN, TRANSFERS_OLDEST, RESUMED, MOVED, QUARANTINED),
    *(SLO, SLO_TARGET, EMPTY_ANSWERS, INVALID_JSON, THOUGHTS_CLOSED),
)
