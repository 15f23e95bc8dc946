"""What the doctor's rounds say; alerts on features that are not active rest on these too."""

from orchestrator.fleet.doctor import Probe, SilentFault, State
from orchestrator.telemetry.metrics import labels as of
from orchestrator.telemetry.metrics.metric import Bound, Kind, Label, Metric, Unit

PROBE = Label("probe", Bound.ENUM, "of the doctor", frozenset(map(str, Probe)))
STATE = Label("state", Bound.ENUM, "that it has found", frozenset(map(str, State)))
FAULT = Label("fault", Bound.ENUM, "that nobody would be told of", frozenset(map(str, SilentFault)))

DOCTOR_PROBE = Metric(
    "r1_doctor_probe",
    Kind.GAUGE,
    "Subjects that a probe of the last round has found in a state.",
    (of.MODEL, PROBE, STATE),
)
DOCTOR_FAULT = Metric(
    "r1_doctor_fault",
    Kind.GAUGE,
    "Ranks that have a silent fault, by its name, as of the last round.",
    (of.MODEL, FAULT),
)
DOCTOR_ROUNDS = Metric(
    "r1_doctor_rounds_total",
    Kind.COUNTER,
    "Rounds of the doctor, by the worst that they found.",
    (STATE,),
)
DOCTOR_LAST = Metric(
    "r1_doctor_last_round_seconds",
    Kind.GAUGE,
    "When the last round ended, in Unix time.",
    unit=Unit.SECONDS,
)

DOCTOR_EVERY = Metric(
    "r1_doctor_every_seconds",
    Kind.GAUGE,
    "How often the doctor is to make a round; none if only when it is asked to.",
    unit=Unit.SECONDS,
)

DOCTOR_METRICS = (DOCTOR_PROBE, DOCTOR_FAULT, DOCTOR_ROUNDS, DOCTOR_LAST, DOCTOR_EVERY)
