"""Pools and what they cost: ranks, features, work, money; and the gateway's own books."""

from orchestrator.telemetry.metrics import labels as of
from orchestrator.telemetry.metrics.metric import Kind, Metric, Unit

_POOL = (of.MODEL, of.ROLE)

RANKS = Metric("r1_ranks_open", Kind.GAUGE, "Ranks that this gateway can reach.", _POOL)
RANKS_PLANNED = Metric(
    "r1_ranks_planned",
    Kind.GAUGE,
    "Ranks that the spec asks for, of pools that are not scaled.",
    _POOL,
)
RANK_LOAD = Metric(
    "r1_rank_requests",
    Kind.GAUGE,
    "Requests that run on a rank, of all gateways, as it last said.",
    (*_POOL, of.RANK),
)
RANK_KV = Metric(
    "r1_rank_kv_ratio",
    Kind.GAUGE,
    "Share of a rank's KV blocks that are in use, as it last said.",
    (*_POOL, of.RANK),
    unit=Unit.RATIO,
)
RANK_STEPS = Metric(
    "r1_rank_steps_total",
    Kind.COUNTER,
    "Steps of a rank's engine, as it last said.",
    (*_POOL, of.RANK),
)
KV_BATCHES = Metric(
    "r1_kv_event_batches",
    Kind.GAUGE,
    "Batches of KV events of the ranks that are listed, by what became of them.",
    (of.MODEL, of.KV_BATCH),
)
KV_RANKS = Metric(
    "r1_kv_event_ranks",
    Kind.GAUGE,
    "Ranks whose KV events feed this gateway's prefix index.",
    (of.MODEL,),
)
FEATURE = Metric(
    "r1_feature_active",
    Kind.GAUGE,
    "1 if a feature that the spec asks for is seen to be on, 0 if not; none of what is not asked "
    "for, nor before anything could be seen.",
    (of.MODEL, of.FEATURE),
)

# --- scaling, in Serve's controller --------------------------------------------------------------

SCALING_TARGET = Metric(
    "r1_scaling_target_gangs", Kind.GAUGE, "Gangs that a pool is to have.", _POOL, ray=True
)
SCALING_NEEDED = Metric(
    "r1_scaling_needed_gangs", Kind.GAUGE, "Gangs that a pool's load needs.", _POOL, ray=True
)
SCALING_DECISIONS = Metric(
    "r1_scaling_decisions_total",
    Kind.COUNTER,
    "Scaling's decisions, by reason.",
    (*_POOL, of.SCALING_REASON),
    ray=True,
)

# --- money ---------------------------------------------------------------------------------------

POOL_GPUS = Metric("r1_pool_gpus", Kind.GAUGE, "GPUs of the gangs that can be reached.", _POOL)
GPU_PRICE = Metric(
    "r1_gpu_hour_price",
    Kind.GAUGE,
    "What a GPU costs an hour, as the spec says; none if it does not.",
    unit=Unit.MONEY,
)
RANK_HELD = Metric(
    "r1_rank_held_seconds_total",
    Kind.COUNTER,
    "Time that ranks could be reached, added up over the ranks of a pool.",
    _POOL,
    unit=Unit.SECONDS,
)
RANK_BUSY = Metric(
    "r1_rank_busy_seconds_total",
    Kind.COUNTER,
    "Of that, the time in which the rank had a request, of any gateway.",
    _POOL,
    unit=Unit.SECONDS,
)
WORK = Metric(
    "r1_work_seconds_total",
    Kind.COUNTER,
    "Time of a rank that this gateway's requests are predicted to have taken, by what the tokens "
    "are paid as: what the cost of busy ranks is shared out by.",
    (of.MODEL, of.ROLE, of.CLASS, of.TOKEN_CLASS),
    unit=Unit.SECONDS,
)
PAID_TOKENS = Metric(
    "r1_paid_tokens_total",
    Kind.COUNTER,
    "Tokens of requests that ranks have worked on, by what they are paid as.",
    (of.MODEL, of.CLASS, of.TOKEN_CLASS),
    unit=Unit.TOKENS,
)
REVENUE = Metric(
    "r1_revenue_total",
    Kind.COUNTER,
    "What tenants were charged, at the model's prices.",
    (of.MODEL, of.CLASS),
    unit=Unit.MONEY,
)

# --- what perf/ says of a pool, to compare with what is measured ---------------------------------

PEAK_FLOPS = Metric(
    "r1_pool_peak_flops",
    Kind.GAUGE,
    "Dense arithmetic of a pool's GPUs, a second, in the precision of the experts.",
    _POOL,
    unit=Unit.FLOPS,
)
PEAK_BANDWIDTH = Metric(
    "r1_pool_peak_bytes_per_second",
    Kind.GAUGE,
    "Memory bandwidth of a pool's GPUs.",
    _POOL,
    unit=Unit.BYTES_PER_SECOND,
)
TOKEN_FLOPS = Metric(
    "r1_model_token_flops",
    Kind.GAUGE,
    "Arithmetic of one token, attention over its context left out.",
    (of.MODEL,),
    unit=Unit.FLOPS,
)
STEP_BYTES = Metric(
    "r1_pool_step_bytes",
    Kind.GAUGE,
    "Bytes of weights that one decode step reads, of all GPUs of one rank, if every expert is hit.",
    _POOL,
    unit=Unit.BYTES,
)
STEP_PREDICTED = Metric(
    "r1_pool_step_predicted_seconds",
    Kind.GAUGE,
    "What the plan's costs predict of one step of a rank with as many requests as the pool's busy "
    "ranks have now, context left out; none without such costs.",
    _POOL,
    unit=Unit.SECONDS,
)

# --- the gateway's own books ---------------------------------------------------------------------

USAGE_FAULT = Metric(
    "r1_usage_fault", Kind.GAUGE, "1 while usage cannot be written, or others' cannot be read."
)
USAGE_LOST = Metric(
    "r1_usage_records_lost", Kind.GAUGE, "Records of usage that were given up, in this life."
)
KEY_AGE = Metric(
    "r1_key_oldest_seconds",
    Kind.GAUGE,
    "Age of the oldest file of API keys; none where the API is open.",
    unit=Unit.SECONDS,
)

POOL_METRICS = (
    *(RANKS, RANKS_PLANNED, RANK_LOAD, RANK_KV, RANK_STEPS),
    *(KV_BATCHES, KV_RANKS, FEATURE),
    *(SCALING_TARGET, SCALING_NEEDED, SCALING_DECISIONS),
    *(POOL_GPUS, GPU_PRICE, RANK_HELD, RANK_BUSY, WORK, PAID_TOKENS, REVENUE),
    *(PEAK_FLOPS, PEAK_BANDWIDTH, TOKEN_FLOPS, STEP_BYTES, STEP_PREDICTED),
    *(USAGE_FAULT, USAGE_LOST, KEY_AGE),
)
