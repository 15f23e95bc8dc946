"""Verdicts on whether ranks serve: reached, answering, at their pace, free when told."""

from statistics import median

from orchestrator.core import RankId
from orchestrator.fleet.doctor.evidence import Evidence, RankSeen
from orchestrator.fleet.doctor.faults import SilentFault
from orchestrator.fleet.doctor.findings import Finding, Probe
from orchestrator.fleet.doctor.judging import DECODERS, Verdicts, peers
from orchestrator.fleet.doctor.vitals import ACCEPTED_TOKENS, DRAFTS

SLOWER = 3.0  # times its peers' pace
SLOWER_S = 0.01  # and at least so much a token: below that it is this machine's own unrest
BUSIER = 2.0  # times its peers' requests: then a rank may be slower
DRAFTS_MIN = 32  # below that there is nothing to say of them
ACCEPTED_MIN = 0.02  # DeepSeek reports 0.85 to 0.90 (DeepSeek-V3 technical report, section 5.4.3)
_DRAFTS_CURE = "look for --speculative-config in the engine's command line and log"


def reached(seen: Evidence) -> list[Finding]:
    """Every listed rank can be reached, and takes part in routing."""
    verdicts = Verdicts(Probe.REACHED, "every listed rank is reached and gets requests")
    if not seen.ranks:
        verdicts.fault(
            seen.model,
            "no rank is listed",
            "look at why no gang has started: its log, and `ray status`",
            None,
        )
    for rank in seen.ranks:
        if not rank.reached:
            cure = "look at its gang's log and at the network between gateway and node"
            verdicts.fault(rank.rank_id, f"not reached: {rank.cause}", cure, None)
        elif rank.refused:
            cure = "start all engines of a model with the same flags"
            verdicts.fault(rank.rank_id, f"gets no requests: {rank.refused}", cure, None)
        else:
            verdicts.ok(rank.rank_id, f"reached, {rank.engine}")
    return verdicts.found


def answers(seen: Evidence) -> list[Finding]:
    """A small request of our own is answered, whatever `/health` says."""
    verdicts = Verdicts(
        Probe.ANSWERS, f"a probe's request has its first token within {seen.wanted.answer_s:g} s"
    )
    for rank in seen.ranks:
        _answers(rank, verdicts)
    return verdicts.found


def _answers(rank: RankSeen, verdicts: Verdicts) -> None:
    answer = rank.answer
    healthy = rank.before is not None and rank.before.healthy
    health = "/health is green" if healthy else "its health is not known"
    if answer is None:
        verdicts.unknown(rank.rank_id, rank.skipped or "it was not reached")
    elif answer.ids:
        first = f" after {answer.first_s * 1e3:.0f} ms" if answer.first_s is not None else ""
        verdicts.ok(rank.rank_id, f"{len(answer.ids)} tokens{first}")
    elif answer.failed:
        verdicts.fault(
            rank.rank_id,
            f"it ends with {answer.finish}: {answer.cause}; {health}",
            "drain its gang (`r1-serve drain`), and read its engine's log",
            SilentFault.FAILS_ALL,
        )
    elif answer.finish is not None:
        verdicts.fault(
            rank.rank_id,
            f"it ends with {answer.finish} and without a token",
            "drain its gang; on EFA look whether every NIC is in the pod",
            SilentFault.ANSWERS_NOTHING,
        )
    elif rank.after is None or rank.before is None:
        verdicts.unknown(rank.rank_id, "no token, and it does not say whether it takes steps")
    elif rank.after.steps > rank.before.steps:
        steps = rank.after.steps - rank.before.steps
        waiting = rank.after.waiting
        verdicts.unknown(rank.rank_id, f"busy: {steps} steps meanwhile, {waiting} requests wait")
    else:
        verdicts.fault(
            rank.rank_id,
            f"no token and no step, {rank.after.running + rank.after.waiting} requests in hand; "
            f"{health}",
            "drain its gang; `fleet.stuck_after_s` says when that happens by itself",
            SilentFault.HANGS,
        )


def pace(seen: Evidence) -> list[Finding]:
    """No rank is much slower than its peers."""
    verdicts = Verdicts(Probe.PACE, f"at most {SLOWER:g} times its pool's usual time a token")
    for rank in seen.ranks:
        own = _gap_s(rank)
        others = [gap_s for peer in peers(seen, rank) if (gap_s := _gap_s(peer)) is not None]
        if own is None:
            verdicts.unknown(rank.rank_id, "it drew too few tokens")
            continue
        if not others:
            verdicts.unknown(rank.rank_id, f"{own * 1e3:.1f} ms, and no peer to compare with")
            continue
        usual_s = median(others)
        said = f"{own * 1e3:.1f} ms a token, its peers {usual_s * 1e3:.1f} ms"
        if not _slower(own, usual_s):
            verdicts.ok(rank.rank_id, said)
        elif _busier(seen, rank):
            verdicts.unknown(rank.rank_id, f"{said}; it has more to do than they")
        else:
            cure = "look at its GPUs' clocks, temperature and XID events, then drain its gang"
            verdicts.fault(rank.rank_id, said, cure, SilentFault.SLOW)
    return verdicts.found


def slow_ones(seen: Evidence) -> list[RankId]:
    """The ranks that look slow by what has come so far: they are to be asked again, since anything
    may have held up some answers, and a rank that is slow is slow in each.
    """
    found = []
    for rank in seen.ranks:
        own = _gap_s(rank)
        others = [gap_s for peer in peers(seen, rank) if (gap_s := _gap_s(peer)) is not None]
        if own is not None and others and _slower(own, median(others)):
            found.append(rank.rank_id)
    return found


def _slower(own_s: float, usual_s: float) -> bool:
    return own_s > SLOWER * usual_s and own_s > usual_s + SLOWER_S


def _gap_s(rank: RankSeen) -> float | None:
    """The best of its answers' paces."""
    answers = [rank.answer, rank.kv.again if rank.kv is not None else None]
    gaps = [a.gap_s for a in answers if a is not None and a.gap_s is not None]
    return min((*gaps, *rank.paces_s), default=None)


def _busier(seen: Evidence, rank: RankSeen) -> bool:
    if rank.before is None:
        return True
    others = [peer.before.running for peer in peers(seen, rank) if peer.before is not None]
    return rank.before.running > BUSIER * max(others, default=0)


def cancel(seen: Evidence) -> list[Finding]:
    """A request that its client has left ends at once, and frees the rank."""
    verdicts = Verdicts(Probe.CANCEL, f"a cancelled request ends within {seen.wanted.cancel_s:g} s")
    for rank in seen.ranks:
        if rank.role not in DECODERS:
            continue
        if not rank.cancel_tried:
            verdicts.unknown(rank.rank_id, "it answered no probe")
        elif rank.cancel_s is not None:
            verdicts.ok(rank.rank_id, f"ended after {rank.cancel_s * 1e3:.0f} ms")
        else:
            verdicts.fault(
                rank.rank_id,
                "it runs on",
                "upgrade the engine; until then clients that leave cost as much as those that stay",
                SilentFault.KEEPS_CANCELLED,
            )
    return verdicts.found


def budget(seen: Evidence) -> list[Finding]:
    """A thought is closed when its budget is used up."""
    tokens = seen.wanted.budget_tokens
    latest = tokens + 1 + 2 * seen.wanted.draft_tokens + 2  # what may have been under way
    verdicts = Verdicts(Probe.BUDGET, f"a thought with a budget of {tokens} tokens is closed then")
    for rank in seen.ranks:
        if rank.role not in DECODERS:
            continue
        answer, at = rank.budget, rank.budget_at
        if not seen.wanted.thinks:
            verdicts.off(rank.rank_id, "the model does not think")
        elif rank.reached and not rank.keeps_budgets:
            verdicts.off(rank.rank_id, "the engine takes no budgets: the gateway closes thoughts")
        elif answer is None or answer.finish is None or (not answer.ids and at is None):
            verdicts.unknown(rank.rank_id, "it answered no probe")
        elif answer.failed:
            verdicts.unknown(rank.rank_id, f"{answer.finish}: {answer.cause}")
        elif at is not None and at <= latest:
            verdicts.ok(rank.rank_id, f"closed after {at} tokens")
        elif at is None and len(answer.ids) <= latest:
            verdicts.unknown(rank.rank_id, f"the answer ended after {len(answer.ids)} tokens")
        else:
            where = f"closed after {at}" if at is not None else "not closed"
            verdicts.fault(
                rank.rank_id,
                f"{where}; {len(answer.ids)} tokens came",
                "look whether the engine runs with its reasoning parser; the gateway closes "
                "thoughts at their hard budget meanwhile (r1_thoughts_closed_total)",
                SilentFault.IGNORES_BUDGETS,
            )
    return verdicts.found


def drafts(seen: Evidence) -> list[Finding]:
    """MTP proposes tokens, and some are taken."""
    verdicts = Verdicts(Probe.DRAFTS, "MTP proposes tokens, and some of them are taken")
    for rank in seen.ranks:
        if rank.role not in DECODERS:
            continue
        counters = rank.after.counters if rank.after is not None else {}
        told = rank.features
        if not seen.wanted.draft_tokens:
            verdicts.off(rank.rank_id, "no --speculative-config")
        elif told is not None and not told.draft_tokens:
            verdicts.fault(
                rank.rank_id, "the engine runs without", _DRAFTS_CURE, SilentFault.NO_DRAFTS
            )
        elif rank.answer is None or len(rank.answer.ids) <= 1:
            verdicts.unknown(rank.rank_id, "it answered no probe")
        elif DRAFTS not in counters:
            verdicts.unknown(rank.rank_id, "the engine does not count drafts")
        elif not (made := counters[DRAFTS]):
            verdicts.fault(
                rank.rank_id,
                f"no draft in {len(rank.answer.ids)} tokens and more",
                _DRAFTS_CURE,
                SilentFault.NO_DRAFTS,
            )
        elif made < DRAFTS_MIN:
            verdicts.unknown(rank.rank_id, f"{made:.0f} drafts so far are too few to tell")
        else:
            taken = counters.get(ACCEPTED_TOKENS, 0.0)
            said = f"{taken:.0f} tokens taken of {made:.0f} drafts"
            if taken < ACCEPTED_MIN * made:
                cure = "look whether the checkpoint has its MTP layer, or leave MTP out: it costs"
                verdicts.fault(rank.rank_id, said, cure, SilentFault.DRAFTS_REJECTED)
            else:
                verdicts.ok(rank.rank_id, said)
    return verdicts.found
