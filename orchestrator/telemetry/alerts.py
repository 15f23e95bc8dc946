"""Alerts: what has to be looked at, each with a page in docs/runbooks that says what to do."""

from dataclasses import dataclass
from enum import StrEnum

RUNBOOKS = "docs/runbooks"


class Severity(StrEnum):
    """How soon somebody must look."""

    PAGE = "page"  # now: users are hurt, or will be within the hour
    TICKET = "ticket"  # this week


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. `summary` is a sentence with Prometheus' `{{ $labels.x }}` and `{{ $value }}`."""

    name: str
    query: str
    for_s: int
    severity: Severity
    summary: str

    @property
    def runbook(self) -> str:
        """Its page, below the project."""
        return f"{RUNBOOKS}/{self.name}.md"


_PAGE, _TICKET = Severity.PAGE, Severity.TICKET

USERS = (
    # Burn rates and windows: "The Site Reliability Workbook" (2018), chapter 5, table 5-8.
    Alert(
        "R1SloBurnFast",
        "r1:slo_burn_1h:budgets > 14.4 and r1:slo_burn_5m:budgets > 14.4",
        120,
        _PAGE,
        "Class '{{ $labels.class }}' of {{ $labels.model }} uses up its error budget "
        "{{ $value | humanize }} times as fast as it may: a month's within two days.",
    ),
    Alert(
        "R1SloBurnSlow",
        "r1:slo_burn_6h:budgets > 6 and r1:slo_burn_30m:budgets > 6",
        900,
        _TICKET,
        "Class '{{ $labels.class }}' of {{ $labels.model }} uses up its error budget "
        "{{ $value | humanize }} times as fast as it may: a month's within five days.",
    ),
    Alert(
        "R1QueueGrowing",
        "sum by (model) (r1_requests_queued) > 0 and "
        "sum by (model) (min_over_time(r1_requests_queued[5m])) > 0 and "
        "sum by (model) (deriv(r1_requests_queued[5m])) > 0.02",
        180,
        _PAGE,
        "Requests for {{ $labels.model }} wait, and more of them all the time.",
    ),
    Alert(
        "R1NoRank",
        "(max by (model, role) (r1_ranks_planned) > 0) unless on (model, role) "
        "(max by (model, role) (r1_ranks_open) > 0)",
        60,
        _PAGE,
        "No {{ $labels.role }} rank of {{ $labels.model }} can be reached by any gateway.",
    ),
    Alert(
        "R1RanksMissing",
        "max by (model, role) (r1_ranks_planned) - max by (model, role) (r1_ranks_open) > 0",
        900,
        _TICKET,
        "{{ $value }} {{ $labels.role }} ranks of {{ $labels.model }} are missing.",
    ),
    Alert(
        "R1KvPressure",
        "avg by (model, role) (r1:rank_kv:ratio) > 0.95",
        300,
        _TICKET,
        "The KV cache of the {{ $labels.role }} ranks of {{ $labels.model }} is "
        "{{ $value | humanizePercentage }} full: engines preempt and compute again.",
    ),
)

FEATURES = (
    Alert(
        "R1DoctorFault",
        "max by (model, fault) (r1_doctor_fault) > 0",
        0,
        _PAGE,
        "{{ $value }} ranks of {{ $labels.model }} have the silent fault {{ $labels.fault }}.",
    ),
    Alert(
        "R1DoctorSilent",
        "time() - max(r1_doctor_last_round_seconds) > 3 * max(r1_doctor_every_seconds)",
        0,
        _TICKET,
        "The doctor has made no round for {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "R1FeatureInactive",
        "min by (model, feature) (r1_feature_active) == 0",
        120,
        _PAGE,
        "{{ $labels.feature }} is asked for and is not on for {{ $labels.model }}; requests are "
        "answered all the same.",
    ),
    Alert(
        "R1PrefixHitsMissed",
        'r1:prefix_hit:ratio{hit="predicted"} > 0.1 and on (model) '
        '(r1:prefix_hit:ratio{hit="predicted"} - ignoring (hit) r1:prefix_hit:ratio{hit="actual"}) '
        '/ ignoring (hit) r1:prefix_hit:ratio{hit="predicted"} > 0.5',
        600,
        _TICKET,
        "Routing of {{ $labels.model }} counts on prefix hits that the engines do not have.",
    ),
    Alert(
        "R1TransferStuck",
        "max by (model) (r1_transfer_oldest_seconds) > 30",
        30,
        _PAGE,
        "A decode of {{ $labels.model }} has waited {{ $value | humanizeDuration }} for its KV.",
    ),
    Alert(
        "R1TransfersFail",
        'sum by (model) (increase(r1_transfers_total{outcome!="moved"}[5m])) > 5 and '
        'sum by (model) (rate(r1_transfers_total{outcome!="moved"}[5m])) / '
        "sum by (model) (rate(r1_transfers_total[5m])) > 0.1",
        60,
        _PAGE,
        "{{ $value | humanize }} KV transfers of {{ $labels.model }} have failed, or were computed "
        "again, in five minutes.",
    ),
    Alert(
        "R1RankSkew",
        "r1:rank_skew:ratio > 1",
        600,
        _TICKET,
        "One {{ $labels.role }} rank of {{ $labels.model }} has {{ $value | humanizePercentage }} "
        "more requests than the mean.",
    ),
    Alert(
        "R1ThoughtsNotClosed",
        "sum by (model) (increase(r1_thoughts_closed_total[15m])) > 5",
        60,
        _TICKET,
        "Engines of {{ $labels.model }} do not keep thinking budgets; gateways close the thoughts.",
    ),
)

GPUS = (
    Alert(
        "R1GpuXid",
        "r1:gpu_xid:per_10m > 0",
        0,
        _PAGE,
        "GPU {{ $labels.gpu }} of {{ $labels.node }} has reported an XID error.",
    ),
    Alert(
        "R1GpuEcc",
        "increase(r1:gpu_ecc_uncorrected:total[1h]) > 0",
        0,
        _PAGE,
        "GPU {{ $labels.gpu }} of {{ $labels.node }} has had memory errors that ECC cannot mend.",
    ),
    Alert(
        "R1GpuHangs",
        "avg_over_time(r1:gpu_any_kernel:ratio[5m]) > 0.95 and "
        "avg_over_time(r1:gpu_sm_active:ratio[5m]) < 0.02",
        120,
        _PAGE,
        "GPU {{ $labels.gpu }} of {{ $labels.node }} looks busy and does nothing: as a "
        "collective does that waits for a dead rank.",
    ),
    Alert(
        "R1GpuSkew",
        "r1:gang_sm_skew:ratio > 0.5",
        600,
        _TICKET,
        "GPUs of gang {{ $labels.gang }} differ by {{ $value | humanizePercentage }} of "
        "the busiest: one of them holds up or idles.",
    ),
    Alert(
        "R1GpuThrottled",
        'max by (node, gpu, reason) (min_over_time(r1_gpu_clock_limited{reason!="power"}[5m])) '
        "== 1",
        300,
        _TICKET,
        "GPU {{ $labels.gpu }} of {{ $labels.node }} is slowed down: {{ $labels.reason }}.",
    ),
    Alert(
        "R1GpuUnread",
        'max by (node) (r1_gpu_telemetry{source="none"}) == 1 and on () '
        "(count(r1:gpu_power:watts) > 0)",
        900,
        _TICKET,
        "GPUs of {{ $labels.node }} cannot be read, while those of other hosts can.",
    ),
)

MONEY_AND_BOOKS = (
    Alert(
        "R1CostAnomaly",
        "r1:cost_per_million_output:money > 2 * "
        "(avg_over_time(r1:cost_per_million_output:money[1d] offset 1h) > 0)",
        1800,
        _TICKET,
        "A million output tokens of {{ $labels.model }} cost {{ $value | humanize }}, over twice "
        "what they cost on the day before.",
    ),
    Alert(
        "R1UsageNotKept",
        "max(r1_usage_fault) == 1 or max(increase(r1_usage_records_lost[1h])) > 0",
        120,
        _PAGE,
        "Usage cannot be written or read: tenants' budgets do not hold, and bills will be short.",
    ),
    Alert(
        "R1CertificateExpires",
        "min by (certificate) (r1_certificate_expiry_seconds) < 14 * 86400",
        600,
        _TICKET,
        "{{ $labels.certificate }} expires in {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "R1KeysOld",
        "max(r1_key_oldest_seconds) > 180 * 86400",
        600,
        _TICKET,
        "The oldest file of API keys was last changed {{ $value | humanizeDuration }} ago.",
    ),
    Alert(
        "R1TelemetryMissing",
        "max by (process) (r1_target_up) == 0",
        300,
        _TICKET,
        "{{ $labels.process }} gives no metrics: what it does is not seen.",
    ),
)

ALERTS: tuple[Alert, ...] = (*USERS, *FEATURES, *GPUS, *MONEY_AND_BOOKS)
