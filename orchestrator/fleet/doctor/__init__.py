"""Whether what is configured is really on: evidence in, findings out. No I/O, no clock."""

from orchestrator.fleet.doctor.evidence import (
    Answer,
    EventsSeen,
    Evidence,
    KvSeen,
    PairSeen,
    PathSeen,
    RankSeen,
    Wanted,
)
from orchestrator.fleet.doctor.examine import PROBES, examine
from orchestrator.fleet.doctor.faults import SilentFault
from orchestrator.fleet.doctor.findings import Finding, Probe, State, worst
from orchestrator.fleet.doctor.nodes import links
from orchestrator.fleet.doctor.serving import slow_ones
from orchestrator.fleet.doctor.vitals import Disk, Features, Vitals

__all__ = [
    "PROBES",
    "Answer",
    "Disk",
    "EventsSeen",
    "Evidence",
    "Features",
    "Finding",
    "KvSeen",
    "PairSeen",
    "PathSeen",
    "Probe",
    "RankSeen",
    "SilentFault",
    "State",
    "Vitals",
    "Wanted",
    "examine",
    "links",
    "slow_ones",
    "worst",
]
