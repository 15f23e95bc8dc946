"""Gathers the doctor's evidence of one model at one gateway; what it means is decided elsewhere.

The load is bounded: a handful of requests of a few blocks for each rank, one after the other, on
`ranks_at_once` ranks at a time. A rank where requests wait, or that drains, is left in peace.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from orchestrator import routing
from orchestrator.codec import ControlIds
from orchestrator.core import Finish, KvParams, Role, TokenIds
from orchestrator.engines import EngineInfo, KvPair
from orchestrator.fleet.doctor import (
    Answer,
    EventsSeen,
    Evidence,
    KvSeen,
    PairSeen,
    PathSeen,
    RankSeen,
    Vitals,
    Wanted,
    slow_ones,
)
from orchestrator.fleet.doctor.vitals import MOVED_TOKENS
from orchestrator.gateway.probes import (
    DRAWN,
    DRAWN_PREFILLING,
    Patient,
    ProbeLimits,
    patients,
    probe_ids,
    thought_ids,
)
from orchestrator.gateway.ranks import Listed
from orchestrator.gateway.service import Service
from orchestrator.spec import KvHandoff

_PATH_TOKENS = 4_096  # of the long prompt whose path is asked for
_AGAIN_S = 0.3  # between two looks at a rank where requests wait
_POLL_S = 0.01
_BUDGET_DRAWN = 24
_PACE_AGAIN = 4  # more answers that a rank must be slow in
_LEGS = {Role.PREFILL: routing.Leg.PREFILL, Role.DECODE: routing.Leg.WHOLE}
_SALT = "r1-doctor"  # no tenant's: those are hex digits or empty


@dataclass(slots=True)
class _Case:
    """One rank while it is examined."""

    listed: Listed
    patient: Patient
    seen: RankSeen

    @property
    def answers(self) -> bool:
        """Whether it may be asked more."""
        answer = self.seen.answer
        return answer is not None and bool(answer.ids) and not answer.failed


_Look = Callable[[_Case], Awaitable[None]]


class Examiner:
    """Examines the ranks that one gateway's service knows."""

    def __init__(
        self,
        service: Service,
        control: ControlIds,
        gateway_id: str,
        wanted: Wanted,
        limits: ProbeLimits | None = None,
    ) -> None:
        self._service = service
        self._control = control
        self._gateway_id = gateway_id
        self._limits = limits or ProbeLimits()
        self._wanted = replace(
            wanted, answer_s=self._limits.answer_s, cancel_s=self._limits.cancel_s
        )
        self._lost_before: dict[str, int] = {}  # KV event batches, by rank

    @property
    def ranks(self) -> int:
        """How many there are to examine."""
        return len(self._service.ranks.listed())

    async def examine(self) -> Evidence:
        """All of it; takes seconds, and at worst a minute. Run one at a time."""
        nonce = uuid4().hex[:12]
        listed = sorted(self._service.ranks.listed(), key=lambda each: each.member.rank_id)
        found = patients([each.member for each in listed], self._gateway_id, self._limits, nonce)
        async with asyncio.TaskGroup() as group:
            for patient in found:
                group.create_task(patient.run())
            try:
                return await self._gather(listed, found, nonce)
            finally:
                for patient in found:
                    patient.close()

    async def _gather(
        self, listed: Sequence[Listed], found: Sequence[Patient], nonce: str
    ) -> Evidence:
        cases = [
            _Case(each, patient, RankSeen(each.member.rank_id, each.member.role, reached=False))
            for each, patient in zip(listed, found, strict=True)
        ]
        await self._each(cases, self._reach)
        await self._each(cases, lambda case: self._rank(case, nonce))
        await self._slow_again(cases, nonce)
        pairs = await self._pairs(cases, nonce)
        await self._each(cases, self._afterwards)
        return replace(self._evidence(cases), pairs=pairs, path=self._path(nonce))

    def _evidence(self, cases: Sequence[_Case]) -> Evidence:
        ranks = tuple(case.seen for case in cases)
        return Evidence(self._service.model.name, self._wanted, ranks)

    async def _slow_again(self, cases: Sequence[_Case], nonce: str) -> None:
        """More answers of ranks that look slow, until they do not, or have been slow in all."""
        for turn in range(_PACE_AGAIN):
            slow = slow_ones(self._evidence(cases))
            for case in cases:
                if case.seen.rank_id in slow:
                    ids = probe_ids(f"{nonce} {case.seen.rank_id} pace {turn}", 16)
                    gap_s = (await case.patient.ask(ids, _SALT, DRAWN)).gap_s
                    if gap_s is not None:
                        case.seen = replace(case.seen, paces_s=(*case.seen.paces_s, gap_s))

    async def _each(self, cases: Sequence[_Case], look: _Look) -> None:
        room = asyncio.Semaphore(self._limits.ranks_at_once)

        async def one(case: _Case) -> None:
            async with room:
                await look(case)

        async with asyncio.TaskGroup() as group:
            for case in cases:
                group.create_task(one(case))

    # --- one rank ------------------------------------------------------------------------------

    async def _reach(self, case: _Case) -> None:
        await case.patient.reach()
        info = case.patient.info
        case.seen = replace(case.seen, refused=case.listed.refused)
        if info is None:
            case.seen = replace(case.seen, cause=case.patient.cause)
            return
        events = info.kv_events
        case.seen = replace(
            case.seen,
            reached=True,
            engine=info.engine,
            features=info.features,
            max_model_len=info.max_model_len,
            block_size=info.block_size,
            kv_blocks=info.kv_blocks,
            hashing="" if events is None else f"{events.hash_algorithm}, {events.hash_seed}",
            keeps_budgets=info.grammar,
        )
        if (looked := await case.patient.look()) is not None:
            vitals, off_s, error_s = looked
            case.seen = replace(case.seen, before=vitals, clock_off_s=off_s, clock_error_s=error_s)

    async def _rank(self, case: _Case, nonce: str) -> None:
        info = case.patient.info
        if info is None:
            return
        if why := await self._busy(case):
            case.seen = replace(case.seen, skipped=why)
            return
        ids = probe_ids(f"{nonce} {case.seen.rank_id}", _tokens(info))
        answer = await case.patient.ask(ids, _SALT, _drawn(case))
        case.seen = replace(case.seen, answer=answer)
        if not case.answers:
            return
        case.seen = replace(case.seen, kv=await self._kv(case, ids))
        if case.seen.role is not Role.PREFILL:
            await self._decoder(case, nonce, info)

    async def _busy(self, case: _Case) -> str:
        """Why the rank is not to be asked now; one that takes no steps is asked, for that shows."""
        before = case.seen.before
        if case.patient.drains:
            return "it drains"
        if before is None or not before.waiting:
            return ""
        await asyncio.sleep(_AGAIN_S)
        again = await case.patient.look()
        if again is None or again[0].steps == before.steps or not again[0].waiting:
            return ""
        return f"busy: {again[0].waiting} requests wait there"

    async def _kv(self, case: _Case, ids: TokenIds) -> KvSeen:
        """The same prompt again, and under another salt."""
        prompt = routing.Prompt(ids, 1, _SALT)
        indexed = await self._indexed(case, prompt)
        role = case.seen.role
        leg = _LEGS.get(role, routing.Leg.WHOLE)
        choice = self._service.ranks.decide(role, leg, prompt, ()).choice
        again = await case.patient.ask(ids, _SALT, _drawn(case))
        if again.finish is not None and not again.cached_tokens:
            again = await case.patient.ask(ids, _SALT, 1)  # its blocks may have been evicted
        other = await case.patient.ask(ids, f"{_SALT}, another", 1)
        return KvSeen(
            again,
            other,
            indexed,
            choice.rank_id if isinstance(choice, routing.Choice) else None,
            choice.reason.value,
        )

    async def _indexed(self, case: _Case, prompt: routing.Prompt) -> int | None:
        """What the index has heard of the prompt, once it has heard all or time is up."""
        ranks, rank_id = self._service.ranks, case.seen.rank_id
        loop = asyncio.get_running_loop()
        until = loop.time() + self._limits.events_s
        while (tokens := ranks.indexed_tokens(rank_id, prompt)) is not None:
            if tokens or loop.time() >= until:
                break
            await asyncio.sleep(_POLL_S)
        return tokens

    async def _decoder(self, case: _Case, nonce: str, info: EngineInfo) -> None:
        """What only ranks that answer clients are asked."""
        if self._wanted.thinks and info.grammar:
            ids = thought_ids(self._control, f"{nonce} {case.seen.rank_id} budget")
            answer = await case.patient.ask(ids, _SALT, _BUDGET_DRAWN, self._wanted.budget_tokens)
            mark = self._control.end_think
            at = answer.ids.index(mark) if mark in answer.ids else None
            case.seen = replace(case.seen, budget=answer, budget_at=at)
        ids = probe_ids(f"{nonce} {case.seen.rank_id} cancel", 16)
        ended_s = await case.patient.cancelled(ids, _SALT, info.max_model_len)
        case.seen = replace(case.seen, cancel_tried=True, cancel_s=ended_s)

    async def _afterwards(self, case: _Case) -> None:
        """Another look, once blocks have had the time to be freed; and what events came to."""
        before = case.seen.before
        vitals = rest = None
        if before is not None:
            vitals = await self._rest(case.patient, before)
            if vitals is not None and vitals.running + vitals.waiting == 0:
                rest = vitals.kv_usage
        case.seen = replace(case.seen, after=vitals, rest_kv_usage=rest, events=self._events(case))

    async def _rest(self, patient: Patient, before: Vitals) -> Vitals | None:
        """How it does when it holds no more than before, or when that has had its time."""

        def rests(vitals: Vitals) -> bool:
            busy = vitals.running + vitals.waiting > before.running + before.waiting
            return not busy and vitals.kv_usage <= before.kv_usage

        return await _looked(patient, self._limits.rest_s, rests)

    def _events(self, case: _Case) -> EventsSeen | None:
        """With those batches only that were lost since the last examination."""
        rank_id = case.seen.rank_id
        now = next(
            (e.events for e in self._service.ranks.listed() if e.member.rank_id == rank_id), None
        )
        if now is None:
            return None
        before = self._lost_before.get(rank_id, 0)
        self._lost_before[rank_id] = now.lost
        return replace(now, lost=max(0, now.lost - before))

    # --- two ranks -----------------------------------------------------------------------------

    async def _pairs(self, cases: Sequence[_Case], nonce: str) -> tuple[PairSeen, ...]:
        """Each rank once at least: prefill ranks around, as often as there are of the others."""
        prefills = [c for c in cases if c.seen.role is Role.PREFILL and c.answers]
        decodes = [c for c in cases if c.seen.role is Role.DECODE and c.answers]
        if not prefills or not decodes:
            return ()
        found: dict[int, PairSeen] = {}

        async def all_of(decode: _Case) -> None:
            """One after the other: what the engine has counted is then of this pair, or users'."""
            first = decodes.index(decode)
            for at in range(first, max(len(prefills), len(decodes)), len(decodes)):
                prefill = prefills[at % len(prefills)]
                found[at] = await self._pair(prefill, decode, f"{nonce} pair {at}")

        await self._each(decodes, all_of)
        return tuple(found[at] for at in sorted(found))

    async def _pair(self, prefill: _Case, decode: _Case, nonce: str) -> PairSeen:
        info = decode.patient.info
        size = 1 if info is None else info.block_size
        limit = 64 if info is None else info.max_model_len // 4
        ids = probe_ids(nonce, max(16, min(2 * size + 5, limit)))
        seen = PairSeen(prefill.seen.rank_id, decode.seen.rank_id, len(ids), Answer())
        before = await decode.patient.look()
        produced, decoded = await self._handed_on(prefill, decode, ids, nonce)
        moved = None
        if before is not None and (after := await self._counted(decode.patient, before[0])):
            counters = after.counters
            if MOVED_TOKENS in counters:
                moved = counters[MOVED_TOKENS] - before[0].counters.get(MOVED_TOKENS, 0.0)
        alone = await decode.patient.ask(ids, f"{_SALT}, alone", 4)
        return replace(seen, produced=produced, decoded=decoded, alone=alone, moved_tokens=moved)

    async def _counted(self, patient: Patient, before: Vitals) -> Vitals | None:
        """Its counters, once they have changed or have had the time to."""
        known = before.counters.get(MOVED_TOKENS)
        limit_s = min(1.0, self._limits.rest_s)
        return await _looked(patient, limit_s, lambda v: v.counters.get(MOVED_TOKENS) != known)

    async def _handed_on(
        self, prefill: _Case, decode: _Case, ids: TokenIds, nonce: str
    ) -> tuple[Answer, Answer | None]:
        """One prompt's passage as the connector does it."""
        to_decode, to_prefill = _peer(decode), _peer(prefill)
        name = nonce.replace(" ", "-")
        match self._service.spec.handoff.kv:
            case KvHandoff.PUSH:
                async with asyncio.TaskGroup() as group:
                    producing = group.create_task(
                        prefill.patient.produce(ids, _SALT, KvPair(name, to_decode))
                    )
                    taking = group.create_task(
                        decode.patient.take(ids, _SALT, None, KvPair(name, to_prefill))
                    )
                return producing.result()[0], taking.result()
            case KvHandoff.PULL:
                produced, end = await prefill.patient.produce(ids, _SALT, None)
            case KvHandoff.PULL_BOUND:
                pair = KvPair(name, to_decode)
                produced, end = await prefill.patient.produce(ids, _SALT, pair)
        if end.finish not in {Finish.STOP, Finish.LENGTH} or end.kv_params is None:
            return produced, None
        return produced, await decode.patient.take(ids, _SALT, end.kv_params, None)

    def _path(self, nonce: str) -> PathSeen | None:
        tokens = min(_PATH_TOKENS, self._service.model.max_model_len // 2)
        choice = self._service.path_now(
            routing.Prompt(probe_ids(f"{nonce} path", tokens), 1, _SALT)
        )
        return None if choice is None else PathSeen(choice.path.value, choice.reason.value)


async def _looked(
    patient: Patient, limit_s: float, enough: Callable[[Vitals], bool]
) -> Vitals | None:
    """How it does once that is enough, or time is up. A look costs an engine some milliseconds, so
    each pause is twice the one before.
    """
    loop = asyncio.get_running_loop()
    until, pause_s = loop.time() + limit_s, _POLL_S
    while (looked := await patient.look()) is not None:
        if enough(looked[0]) or loop.time() >= until:
            return looked[0]
        await asyncio.sleep(pause_s)
        pause_s *= 2
    return None


def _peer(case: _Case) -> KvParams:
    info = case.patient.info
    return {} if info is None else info.kv_peer or {}


def _drawn(case: _Case) -> int:
    return DRAWN_PREFILLING if case.seen.role is Role.PREFILL else DRAWN


def _tokens(info: EngineInfo) -> int:
    """Two full blocks and a little, or what fits the engine."""
    return max(16, min(2 * info.block_size + 5, info.max_model_len // 4))
