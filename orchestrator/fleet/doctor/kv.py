"""Verdicts on KV: whether it is moved, found again, told of, kept apart and freed."""

from orchestrator.fleet.doctor.evidence import Evidence, PairSeen, RankSeen
from orchestrator.fleet.doctor.faults import SilentFault
from orchestrator.fleet.doctor.findings import Finding, Probe
from orchestrator.fleet.doctor.judging import Verdicts, parity

_PATHS = {"transfer", "dear_transfer", "late_elsewhere"}
_NOT_APART = "one pool does both"


def path(seen: Evidence) -> list[Finding]:
    """A long prompt is prefilled elsewhere, or it is known why not."""
    verdicts = Verdicts(Probe.PATH, "a long prompt goes to a prefill rank, or moving it is dearer")
    if not seen.wanted.apart:
        verdicts.off(seen.model, _NOT_APART)
    elif seen.path is None:
        verdicts.unknown(seen.model, "no rank that decodes can be reached")
    elif seen.path.path in _PATHS or seen.path.reason in _PATHS:
        verdicts.ok(seen.model, f"{seen.path.path}: {seen.path.reason}")
    else:
        verdicts.fault(
            seen.model,
            f"{seen.path.path}: {seen.path.reason}",
            "look at the prefill pool: `reached` says which of its ranks are missing",
            None,
        )
    return verdicts.found


def transfer(seen: Evidence) -> list[Finding]:
    """KV that a prefill rank made is read by the decode rank, and not computed again."""
    verdicts = Verdicts(Probe.TRANSFER, "decode reads the prompt's KV from prefill")
    if not seen.wanted.apart:
        verdicts.off(seen.model, _NOT_APART)
        return verdicts.found
    if not seen.pairs:
        verdicts.unknown(seen.model, "there are no two ranks that answer")
    for pair in seen.pairs:
        _transfer(pair, verdicts)
    return verdicts.found


def _transfer(pair: PairSeen, verdicts: Verdicts) -> None:
    subject, tokens = _name(pair), pair.prompt_tokens
    decoded = pair.decoded
    if pair.produced.failed or pair.produced.finish is None:
        why = pair.produced.cause or "no end in time"
        verdicts.fault(subject, f"prefill did not end: {why}", _CURE, None)
    elif decoded is None:
        verdicts.fault(subject, "prefill returned no reference to its KV", _CURE, None)
    elif decoded.failed or decoded.finish is None:
        why = decoded.cause or "no end in time"
        verdicts.fault(subject, f"decode did not get it: {why}", _CURE, None)
    elif pair.moved_tokens is not None and pair.moved_tokens < tokens / 2:
        verdicts.fault(
            subject,
            f"it answers, and its engine counts {pair.moved_tokens:.0f} of {tokens} prompt tokens "
            "as moved: decode computed the rest again",
            _CURE,
            SilentFault.DECODE_RECOMPUTES,
        )
    elif pair.moved_tokens is None:
        verdicts.unknown(subject, "it answers, and its engine does not count what is moved")
    else:
        verdicts.ok(subject, f"{pair.moved_tokens:.0f} tokens moved for a prompt of {tokens}")


_CURE = "look at the KV connector in both engines' logs and at the fabric between their nodes"


def transferred_text(seen: Evidence) -> list[Finding]:
    """What is drawn behind a transfer is what would have been drawn without."""
    verdicts = Verdicts(
        Probe.TRANSFERRED_TEXT, "behind a transfer the answer begins as it does without one"
    )
    if not seen.wanted.apart:
        verdicts.off(seen.model, _NOT_APART)
    for pair in seen.pairs:
        decoded, alone = pair.decoded, pair.alone
        if decoded is None or alone is None or not decoded.ids or not alone.ids:
            verdicts.unknown(_name(pair), "there are no two answers to compare")
        elif decoded.ids[0] == alone.ids[0] or decoded.ids[0] in alone.best_ids:
            # Kernels of other batches round otherwise: the second best may come first.
            verdicts.ok(_name(pair), "the same first token, or one of its best alternatives")
        else:
            verdicts.fault(
                _name(pair),
                f"it begins with {decoded.ids[0]}, alone with {alone.ids[0]}",
                "drain both gangs: users get wrong answers; look for a KV layout that differs",
                SilentFault.FOREIGN_KV,
            )
    return verdicts.found


def _name(pair: PairSeen) -> str:
    return f"{pair.prefill} → {pair.decode}"


def blocks_freed(seen: Evidence) -> list[Finding]:
    """At rest no more blocks are held than before the probes."""
    verdicts = Verdicts(Probe.BLOCKS_FREED, "at rest no more KV is held than before the probes")
    idle = all(rank.before is not None and _idle(rank) for rank in seen.ranks)
    for rank in seen.ranks:
        if rank.before is None:
            verdicts.unknown(rank.rank_id, "the engine does not tell")
        elif not idle or rank.rest_kv_usage is None:
            verdicts.unknown(rank.rank_id, "the fleet was not at rest")
        else:
            more = (rank.rest_kv_usage - rank.before.kv_usage) * rank.kv_blocks
            said = f"{max(0.0, more):.0f} blocks more than before, {rank.rest_kv_usage:.1%} in all"
            if more < 1:
                verdicts.ok(rank.rank_id, said)
            else:
                cure = "drain its gang before its cache is full; look whether references are read"
                verdicts.fault(rank.rank_id, said, cure, SilentFault.KEEPS_BLOCKS)
    return verdicts.found


def _idle(rank: RankSeen) -> bool:
    before = rank.before
    return before is not None and before.running + before.waiting == 0


def connector(seen: Evidence) -> list[Finding]:
    """Prefill and decode ranks hand KV on by one connector."""
    verdicts = Verdicts(Probe.CONNECTOR, "one KV connector on all ranks that hand KV on")
    if not seen.wanted.apart:
        verdicts.off(seen.model, _NOT_APART)
        return verdicts.found
    return parity(
        seen,
        verdicts,
        lambda rank: None if rank.features is None else rank.features.kv_connector,
        seen.wanted.connector,
        "start all engines of both pools from one spec",
        SilentFault.OTHER_CONNECTOR,
    )


def prefix_cache(seen: Evidence) -> list[Finding]:
    """A prompt that was asked before is found again."""
    verdicts = Verdicts(Probe.PREFIX_CACHE, "of the same prompt, asked again, most is found")
    for rank in seen.ranks:
        kv = rank.kv
        if kv is None or kv.again.finish is None or kv.again.failed:
            verdicts.unknown(rank.rank_id, "it answered no second probe")
        elif kv.again.cached_tokens:
            verdicts.ok(rank.rank_id, f"{kv.again.cached_tokens} tokens found")
        elif not (seen.wanted.prefix_cache or _caches(rank)):
            verdicts.off(rank.rank_id, "the engine runs without")
        else:
            verdicts.fault(
                rank.rank_id,
                "nothing is found",
                "look for `prefix caching` in the engine's log: some backends switch it off",
                SilentFault.NO_PREFIX_CACHE,
            )
    return verdicts.found


def _caches(rank: RankSeen) -> bool:
    return rank.features is not None and rank.features.prefix_cache


def isolation(seen: Evidence) -> list[Finding]:
    """A prompt of another tenant is not found."""
    verdicts = Verdicts(Probe.ISOLATION, "under another salt nothing of the prompt is found")
    for rank in seen.ranks:
        kv = rank.kv
        if kv is None or kv.other_salt.finish is None or kv.other_salt.failed:
            verdicts.unknown(rank.rank_id, "it answered no third probe")
        elif kv.other_salt.cached_tokens:
            verdicts.fault(
                rank.rank_id,
                f"{kv.other_salt.cached_tokens} tokens are found",
                "drain its gang at once: tenants can feel each other's prompts; upgrade the engine",
                SilentFault.SHARES_SALTS,
            )
        else:
            verdicts.ok(rank.rank_id, "nothing is found")
    return verdicts.found


def prefix_routing(seen: Evidence) -> list[Finding]:
    """What the gateway's index predicts is what the engine finds."""
    verdicts = Verdicts(Probe.PREFIX_ROUTING, "the engine finds what the index predicts")
    for rank in seen.ranks:
        kv = rank.kv
        if rank.events is None or rank.events.fault:
            verdicts.off(rank.rank_id, "without KV events the index has what was sent there only")
        elif kv is None or kv.indexed_tokens is None or not kv.again.cached_tokens:
            verdicts.unknown(rank.rank_id, "it found nothing, or was not asked twice")
        elif not kv.indexed_tokens:
            verdicts.unknown(rank.rank_id, "the index has not heard of it: see kv_events")
        elif abs(kv.indexed_tokens - kv.again.cached_tokens) <= rank.block_size:
            there = "goes there" if kv.routed_to == rank.rank_id else "would go elsewhere"
            said = f"{kv.indexed_tokens} predicted, {kv.again.cached_tokens} found"
            verdicts.ok(rank.rank_id, f"{said}; the router {there} ({kv.routed_reason})")
        else:
            verdicts.fault(
                rank.rank_id,
                f"{kv.indexed_tokens} tokens predicted, {kv.again.cached_tokens} found",
                "restart the gateway: its index is not what the engine holds",
                None,
            )
    return verdicts.found


def kv_events(seen: Evidence) -> list[Finding]:
    """What enters a rank's prefix cache is told."""
    verdicts = Verdicts(Probe.KV_EVENTS, "the probe's blocks are told of, and no batch is lost")
    for rank in seen.ranks:
        kv, events = rank.kv, rank.events
        if not rank.hashing:
            verdicts.off(rank.rank_id, "the engine publishes none")
        elif events is None:
            verdicts.unknown(rank.rank_id, "the gateway does not listen to it")
        elif events.fault:
            verdicts.unknown(rank.rank_id, "given up: see block_hashes")
        elif events.lost:
            verdicts.fault(
                rank.rank_id,
                f"{events.lost} batches are lost for good",
                "look at the network to its event port, and at `replay_endpoint` in its flags",
                SilentFault.LOSES_KV_EVENTS,
            )
        elif kv is None or kv.indexed_tokens is None or not kv.again.cached_tokens:
            verdicts.unknown(rank.rank_id, "nothing entered its prefix cache")
        elif kv.indexed_tokens:
            verdicts.ok(rank.rank_id, f"the index knows {kv.indexed_tokens} tokens of the probe's")
        else:
            verdicts.fault(
                rank.rank_id,
                "the index has heard nothing of a prompt that the engine holds",
                "look whether its event port can be reached, and for --kv-events-config",
                SilentFault.NO_KV_EVENTS,
            )
    return verdicts.found


def block_hashes(seen: Evidence) -> list[Finding]:
    """Blocks are hashed as the engine says, and alike on all ranks."""
    verdicts = Verdicts(Probe.BLOCK_HASHES, "blocks are hashed as the engine says, all alike")
    told = {rank.hashing for rank in seen.ranks if rank.hashing and not rank.refused}
    for rank in seen.ranks:
        if not rank.hashing:
            verdicts.off(rank.rank_id, "the engine publishes no hashes")
        elif rank.events is not None and rank.events.fault:
            verdicts.fault(
                rank.rank_id,
                rank.events.fault,
                "give all engines one PYTHONHASHSEED and one --prefix-caching-hash-algo",
                SilentFault.OTHER_HASHES,
            )
        elif len(told) > 1:
            verdicts.fault(
                rank.rank_id,
                f"{rank.hashing}, others {', '.join(sorted(told - {rank.hashing}))}",
                "give all engines one PYTHONHASHSEED and one --prefix-caching-hash-algo",
                SilentFault.OTHER_HASHES,
            )
        else:
            verdicts.ok(rank.rank_id, rank.hashing)
    return verdicts.found


def block_size(seen: Evidence) -> list[Finding]:
    """Blocks have one size."""
    return parity(
        seen,
        Verdicts(Probe.BLOCK_SIZE, "one block size on all ranks of a model"),
        lambda rank: str(rank.block_size) if rank.block_size else None,
        None,
        "set engine.block_size in the spec",
        SilentFault.OTHER_BLOCK_SIZE,
    )


def kv_type(seen: Evidence) -> list[Finding]:
    """KV is of one number type."""
    return parity(
        seen,
        Verdicts(Probe.KV_TYPE, "one type of KV on all ranks of a model"),
        lambda rank: None if rank.features is None else rank.features.kv_dtype,
        None,
        "set --kv-cache-dtype in engine.args, for both pools",
        SilentFault.OTHER_KV_TYPE,
    )
