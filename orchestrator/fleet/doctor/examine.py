"""All probes' verdicts on what was gathered."""

from collections.abc import Callable, Mapping

from orchestrator.fleet.doctor import kv, nodes, serving
from orchestrator.fleet.doctor.evidence import Evidence
from orchestrator.fleet.doctor.findings import Finding, Probe

PROBES: Mapping[Probe, Callable[[Evidence], list[Finding]]] = {
    Probe.REACHED: serving.reached,
    Probe.ANSWERS: serving.answers,
    Probe.PACE: serving.pace,
    Probe.CANCEL: serving.cancel,
    Probe.PATH: kv.path,
    Probe.TRANSFER: kv.transfer,
    Probe.TRANSFERRED_TEXT: kv.transferred_text,
    Probe.BLOCKS_FREED: kv.blocks_freed,
    Probe.CONNECTOR: kv.connector,
    Probe.PREFIX_CACHE: kv.prefix_cache,
    Probe.PREFIX_ROUTING: kv.prefix_routing,
    Probe.ISOLATION: kv.isolation,
    Probe.KV_EVENTS: kv.kv_events,
    Probe.BLOCK_HASHES: kv.block_hashes,
    Probe.BLOCK_SIZE: kv.block_size,
    Probe.VERSIONS: nodes.versions,
    Probe.KV_TYPE: kv.kv_type,
    Probe.KV_ROOM: nodes.kv_room,
    Probe.CONTEXT: nodes.context,
    Probe.EXPERTS: nodes.experts,
    Probe.DRAFTS: serving.drafts,
    Probe.BUDGET: serving.budget,
    Probe.CLOCK: nodes.clock,
    Probe.FABRIC: nodes.fabric,
    Probe.SHM: nodes.shm,
    Probe.DISK: nodes.disk,
}


def examine(seen: Evidence) -> tuple[Finding, ...]:
    """Every probe's findings, in the order of `PROBES`; equal evidence gives equal findings."""
    return tuple(finding for probe in PROBES.values() for finding in probe(seen))
