"""Verdicts on what engines were started as, and on the nodes that they run on."""

from collections.abc import Mapping
from statistics import median

from orchestrator.fleet.doctor.evidence import Evidence
from orchestrator.fleet.doctor.faults import SilentFault
from orchestrator.fleet.doctor.findings import Finding, Probe
from orchestrator.fleet.doctor.judging import Verdicts, parity, peers

KV_ROOM_MIN = 0.8  # of its peers' blocks
CLOCK_OFF_S_MAX = 1.0  # beyond that logs and spans of a request are out of order
SHM_FREE_BYTES_MIN = 32 << 20  # NCCL's and vLLM's segments of one rank more
DISK_FREE_BYTES_MIN = 1 << 30  # some hours of logs
_FABRIC_CURE = "look at its links (`ibstat`), at NCCL_SOCKET_IFNAME, and whether RDMA is used"


def versions(seen: Evidence) -> list[Finding]:
    """One release of the engine."""
    return parity(
        seen,
        Verdicts(Probe.VERSIONS, "one release of the engine on all ranks of a model"),
        lambda rank: rank.engine or None,
        seen.wanted.version,
        "use one image on all nodes",
        SilentFault.OTHER_VERSION,
    )


def kv_room(seen: Evidence) -> list[Finding]:
    """Ranks of one pool have about the same KV cache."""
    verdicts = Verdicts(Probe.KV_ROOM, f"at least {KV_ROOM_MIN:.0%} of its peers' KV blocks")
    for rank in seen.ranks:
        others = [float(peer.kv_blocks) for peer in peers(seen, rank) if peer.kv_blocks]
        if not rank.kv_blocks:
            verdicts.unknown(rank.rank_id, "the engine does not tell")
        elif not others:
            verdicts.ok(rank.rank_id, f"{rank.kv_blocks:,} blocks, and no peer to compare with")
        elif rank.kv_blocks >= KV_ROOM_MIN * median(others):
            verdicts.ok(rank.rank_id, f"{rank.kv_blocks:,} blocks")
        else:
            verdicts.fault(
                rank.rank_id,
                f"{rank.kv_blocks:,} blocks, its peers {median(others):,.0f}",
                "look for another process that holds memory of its GPUs (`nvidia-smi`)",
                SilentFault.LITTLE_KV,
            )
    return verdicts.found


def context(seen: Evidence) -> list[Finding]:
    """Ranks take requests as long as was asked for."""
    wanted = seen.wanted.max_model_len
    verdicts = Verdicts(Probe.CONTEXT, f"requests of {wanted:,} tokens" if wanted else "any")
    for rank in seen.ranks:
        if not rank.max_model_len or wanted is None:
            verdicts.unknown(rank.rank_id, "the engine does not tell")
        elif rank.max_model_len >= wanted:
            verdicts.ok(rank.rank_id, f"{rank.max_model_len:,} tokens")
        else:
            verdicts.fault(
                rank.rank_id,
                f"{rank.max_model_len:,} tokens",
                "look for --max-model-len in its command line: its memory may be too small",
                SilentFault.SHORT_CONTEXT,
            )
    return verdicts.found


def experts(seen: Evidence) -> list[Finding]:
    """Experts exchange tokens by the backend that was asked for."""
    wanted = seen.wanted.all2all
    verdicts = Verdicts(Probe.EXPERTS, f"experts exchange by {wanted}")
    if wanted is None:
        verdicts = Verdicts(Probe.EXPERTS, "nothing in particular")
        verdicts.off(seen.model, "no --all2all-backend, or no expert parallelism")
        return verdicts.found
    return parity(
        seen,
        verdicts,
        lambda rank: None if rank.features is None else rank.features.all2all,
        wanted,
        "look for `all2all` in the engine's log: a backend that is missing is replaced by a slow "
        "one",
        SilentFault.OTHER_EXPERT_BACKEND,
    )


def clock(seen: Evidence) -> list[Finding]:
    """The node's clock is in step with the gateway's."""
    verdicts = Verdicts(Probe.CLOCK, f"within {CLOCK_OFF_S_MAX:g} s of the gateway's clock")
    for rank in seen.ranks:
        off = rank.clock_off_s
        if off is None:
            verdicts.unknown(rank.rank_id, "the engine does not tell")
        elif abs(off) <= CLOCK_OFF_S_MAX + rank.clock_error_s:
            verdicts.ok(rank.rank_id, f"{off:+.3f} s, ± {rank.clock_error_s:.3f} s")
        else:
            cure = "look at chrony or ntpd on its node"
            verdicts.fault(rank.rank_id, f"{off:+.1f} s", cure, SilentFault.CLOCK_OFF)
    return verdicts.found


def fabric(seen: Evidence) -> list[Finding]:
    """Collectives reach what the fabric is built for."""
    floor = seen.wanted.fabric_floor_bytes_per_s
    said = f"at least {floor / 1e9:.1f} GB/s" if floor is not None else "nothing in particular"
    verdicts = Verdicts(Probe.FABRIC, f"{said} in an all-reduce")
    for rank in seen.ranks:
        speed = rank.before.link_bytes_per_s if rank.before is not None else None
        if speed is None:
            verdicts.unknown(
                rank.rank_id, "not measured where engines serve: `r1-serve doctor --collective`"
            )
        elif floor is None:
            verdicts.off(rank.rank_id, f"{speed / 1e9:.1f} GB/s; no handoff.fabric to hold it to")
        elif speed >= floor:
            verdicts.ok(rank.rank_id, f"{speed / 1e9:.1f} GB/s")
        else:
            said = f"{speed / 1e9:.1f} GB/s"
            verdicts.fault(rank.rank_id, said, _FABRIC_CURE, SilentFault.SLOW_FABRIC)
    return verdicts.found


def links(speeds: Mapping[str, float], floor: float) -> list[Finding]:
    """What an all-reduce among nodes has reached, in bytes a second, by the name of each."""
    verdicts = Verdicts(Probe.FABRIC, f"at least {floor / 1e9:.2g} GB/s in an all-reduce")
    for name, speed in speeds.items():
        said = f"{speed / 1e9:.2f} GB/s"
        if speed >= floor:
            verdicts.ok(name, said)
        else:
            verdicts.fault(name, said, _FABRIC_CURE, SilentFault.SLOW_FABRIC)
    return verdicts.found


def shm(seen: Evidence) -> list[Finding]:
    """There is room in shared memory."""
    verdicts = Verdicts(Probe.SHM, f"{SHM_FREE_BYTES_MIN >> 20} MiB free in /dev/shm")
    for rank in seen.ranks:
        free = rank.before.shm_free_bytes if rank.before is not None else None
        if free is None:
            verdicts.unknown(rank.rank_id, "the engine does not tell")
        elif free >= SHM_FREE_BYTES_MIN:
            verdicts.ok(rank.rank_id, f"{free >> 20:,} MiB free")
        else:
            verdicts.fault(
                rank.rank_id,
                f"{free >> 20} MiB free",
                "remove what dead processes left there, or mount a larger emptyDir of medium "
                "Memory at /dev/shm",
                SilentFault.SHM_FULL,
            )
    return verdicts.found


def disk(seen: Evidence) -> list[Finding]:
    """There is room on the disks that the engine writes to."""
    verdicts = Verdicts(Probe.DISK, f"{DISK_FREE_BYTES_MIN >> 30} GiB free on each disk")
    for rank in seen.ranks:
        disks = rank.before.disks if rank.before is not None else ()
        if not disks:
            verdicts.unknown(rank.rank_id, "the engine does not tell")
            continue
        least = min(disks, key=lambda each: each.free_bytes)
        said = f"{least.free_bytes / 2**30:,.1f} GiB free on {least.path}"
        if least.free_bytes >= DISK_FREE_BYTES_MIN:
            verdicts.ok(rank.rank_id, said)
        else:
            cure = "remove old logs, traces and checkpoints from it"
            verdicts.fault(rank.rank_id, said, cure, SilentFault.DISK_FULL)
    return verdicts.found
