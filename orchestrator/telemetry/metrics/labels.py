"""The labels of all metrics, with what bounds each of them. None ever names a request or tenant."""

from collections.abc import Iterable
from enum import StrEnum

from orchestrator import admission, fleet, handoff, scaling
from orchestrator.core import Role, TokenClass
from orchestrator.telemetry.metrics.metric import Bound, Label


class Part(StrEnum):
    """What part of a reply a token is."""

    REASONING = "reasoning"
    ANSWER = "answer"


class Slo(StrEnum):
    """What became of a request's SLO."""

    KEPT = "kept"
    TTFT = "ttft"  # its first token came too late
    TPOT = "tpot"  # the tokens after it came too slowly
    FAILED = "failed"  # it was refused for want of room, or could not be completed


class Stage(StrEnum):
    """What the gateway itself does to a request before an engine has it."""

    PREPARE = "prepare"  # the body read into a prompt: parsed, rendered, encoded
    OPEN = "open"  # tenants' limits, admission and, if it is admitted at once, routing


class Transfer(StrEnum):
    """What became of a KV transfer."""

    MOVED = "moved"  # the decode rank began with the whole prompt's KV
    RECOMPUTED = "recomputed"  # it began, and had computed KV that was to be moved
    FAILED = "failed"


class Source(StrEnum):
    """Who reads a node's GPUs."""

    NVML = "nvml"
    RECORDED = "recorded"  # a recording that is played, of no GPU of this fleet
    NONE = "none"  # nobody can


class Feature(StrEnum):
    """What can be configured and may, in silence, not be on."""

    DISAGGREGATION = "disaggregation"  # prefill and decode in pools of their own
    KV_EVENTS = "kv_events"  # ranks say what their caches hold
    THINKING_BUDGET = "thinking_budget"  # engines close thoughts that get too long


class Clock(StrEnum):
    """What holds a GPU's clocks down."""

    POWER = "power"
    THERMAL = "thermal"
    HARDWARE = "hardware"  # the board slows itself: power brake or emergency


class Direction(StrEnum):
    """Of bytes over a link, as the GPU sees it."""

    SENT = "sent"
    RECEIVED = "received"


def _enum(name: str, help_: str, values: Iterable[str]) -> Label:
    return Label(name, Bound.ENUM, help_, frozenset(str(value) for value in values))


# What an answer can end with, and the statuses that the API refuses with.
OUTCOMES = (
    *("stop", "length", "tool_calls", "insufficient_system_resource", "cancelled", "stalled"),
    *(f"error_{status}" for status in (400, 401, 402, 403, 404, 405, 413, 422, 429, 500, 503)),
)

MODEL = Label("model", Bound.SPEC, "a model of the spec; empty: none was named yet")
CLASS = Label(
    "class", Bound.SPEC, "the class of service that the request's tenant has; empty: the usual one"
)
ROLE = _enum("role", "of the pool", Role)
OUTCOME = _enum("outcome", "how a request ended", OUTCOMES)
PART = _enum("part", "of the reply", Part)
TOKEN_CLASS = _enum("part", "what the tokens are paid as", TokenClass)
PATH = _enum("path", "how the prompt's KV reaches the rank that decodes", handoff.Path)
PATH_REASON = _enum("reason", "why that path", handoff.Reason)
FINISH = _enum("reason", "as the client was told", ("stop", "length", "tool_calls"))
MOVE_REASON = _enum("reason", "why it was moved", fleet.DrainReason)
DECISION = _enum("decision", "of admission", ("admit", "queue", "shed"))
ADMISSION_REASON = _enum("reason", "why", admission.Reason)
LIMIT = _enum("limit", "that a tenant has used up", admission.Limit)
BUDGET_REASON = _enum("reason", "whose budget it is", admission.BudgetReason)
SCALING_REASON = _enum("reason", "why the pool has that target", scaling.Reason)
SLO = _enum("slo", "what became of it", Slo)
STAGE = _enum("stage", "of the gateway's own work", Stage)
HIT = _enum("hit", "as routing predicted it, or as the engine counted it", ("predicted", "actual"))
TRANSFER = _enum("outcome", "of the transfer", Transfer)
FEATURE = _enum("feature", "that the spec asks for", Feature)
KV_BATCH = _enum("outcome", "what became of a batch", ("applied", "repeated", "lost", "malformed"))

NODE = Label("node", Bound.FLEET, "a host")
GPU = Label("gpu", Bound.FLEET, "index of the GPU in its host")
GANG = Label("gang", Bound.FLEET, "a gang that runs")
RANK = Label("rank", Bound.FLEET, "of the gang's data-parallel ranks")
PROCESS = Label("process", Bound.FLEET, "a process of ours that has metrics")
CERTIFICATE = Label("certificate", Bound.SPEC, "a file that `telemetry.certificates` names")
SOURCE = _enum("source", "who reads the GPU; `recorded` is played, and of no GPU here", Source)
CLOCK = _enum("reason", "what holds the clocks down", Clock)
DIRECTION = _enum("direction", "as the GPU sees it", Direction)
ECC = _enum("kind", "whether the memory could mend it", ("corrected", "uncorrected"))
XID = Label("xid", Bound.FLEET, "a number of NVIDIA's list of XID errors, below 200")
