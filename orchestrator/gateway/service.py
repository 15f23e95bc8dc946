"""Hosts the deciding code for the requests of one model: admission, routing, handoff.

All of it runs on one event loop and never waits: events come from the HTTP side, the channels, the
fleet's list and a clock tick; decisions are logged with their inputs and done at once.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import replace as replaced
from typing import assert_never

from msgspec.structs import replace

from orchestrator import admission, handoff, routing, scaling
from orchestrator.admission import Admission, ThinkingBudget, ThinkingCase, thinking_budget
from orchestrator.codec import ThoughtLimit
from orchestrator.core import (
    Finish,
    FleetView,
    KvParams,
    KvSource,
    RankId,
    Request,
    RequestId,
    Role,
    TokenIds,
    TokenLogprob,
    token_ids,
)
from orchestrator.engines import ChannelLimits, End, KvPair, Sampling, Submit
from orchestrator.fleet.drill import Disturbance
from orchestrator.gateway.decision_log import admission_fields, decision_fields
from orchestrator.gateway.drains import Drains
from orchestrator.gateway.measures import Measures
from orchestrator.gateway.network import Member, Network
from orchestrator.gateway.passage import Passage
from orchestrator.gateway.pool_measures import PoolMeasures
from orchestrator.gateway.ranks import Ranks
from orchestrator.gateway.story import (
    Admitted,
    Began,
    Left,
    Moved,
    Over,
    PathChosen,
    RankChosen,
    Sent,
    Stories,
    Story,
)
from orchestrator.gateway.supervisor import Supervisor
from orchestrator.gateway.tracing import attempt_of
from orchestrator.handoff import Finished, Handoff
from orchestrator.spec import ModelSpec, Spec
from orchestrator.telemetry import Log, Metrics, metrics

TICK_S = 0.5  # how late a deadline may be noticed
LOAD_MAX = 1e9  # of a fleet without a slot that is asked for some
_SEED_STEP, _SEEDS = 0x9E3779B97F4A7C15, 1 << 63  # of Weyl's sequence; torch takes 64 bits
_CUT = "a drill keeps KV from being transferred"
_POISON = "engines have died of this prompt lately, so it is not tried again for a while"


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _loop_soon(action: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_soon(action)


@dataclass(frozen=True, slots=True)
class Host:
    """What the deciding code stands on: here an event loop and the network."""

    now: Callable[[], float] = _loop_time
    soon: Callable[[Callable[[], None]], None] = _loop_soon  # behind what is being done
    network: Network | None = None  # None: the real one
    passage: Callable[..., Passage] = Passage
    remembers: bool = True  # what happened to requests


class Service:
    """The requests of one model at one gateway replica."""

    def __init__(
        self,
        spec: Spec,
        model: ModelSpec,
        gateway_id: str,
        *,
        supervisor: Supervisor,
        metrics: Metrics,
        log: Log,
        decisions: Log,
        host: Host | None = None,
    ) -> None:
        self.spec = spec
        self.model = model
        self.metrics = metrics
        self._supervisor = supervisor
        self._log = log
        self._decisions = decisions
        self._decoder = Role.UNIFIED if model.pool(Role.UNIFIED) else Role.DECODE
        self._prefiller = Role.UNIFIED if model.pool(Role.UNIFIED) else Role.PREFILL
        self._admission = Admission(spec.admission)
        self._passages: dict[str, Passage] = {}  # until the last submission has ended
        self._stranded: dict[str, Passage] = {}  # found no rank when they last looked
        self._drains = Drains()
        others = spec.gateway.replicas > 1
        self._quarantine = handoff.Quarantine(gateway_id, handoff.SETTLE_S if others else 0.0)
        self._host = host or Host()
        self._now = self._host.now
        self._meter = scaling.Meter()
        self.stories = Stories(spec.why)
        self.on_traced: Callable[[Story], None] | None = None  # told of ended ones that have spans
        self.measures = Measures(metrics, model)
        self._pools = PoolMeasures(metrics, spec, model, self.measures)
        metrics.before_exposition(self._look)
        limits = ChannelLimits(
            heartbeat_s=spec.channel.heartbeat_s,
            lost_after_s=spec.channel.lost_after_s,
            max_requests=spec.channel.max_requests,
        )
        network = self._host.network or Network(gateway_id, limits)
        self.ranks = Ranks(
            limits,
            supervisor,
            self._fleet_changed,
            self._now,
            log,
            network,
            _costs(model),
            self._heard,
        )
        self.ranks.credits[self._decoder] = _credits(spec)
        self._slots = 0
        self._cut_until = 0.0  # by a drill
        self._changed = False
        decisions.info(
            "admission_opened",
            model=model.name,
            limits=spec.admission,
        )

    def start(self) -> None:
        """From now on requests can be opened; ranks come and go with `update_pool`."""
        self._supervisor.spawn(self._tick())

    def update_pool(self, role: Role, members: Sequence[Member]) -> None:
        """The fleet's list of one pool's ranks."""
        ranks = [member.rank_id for member in members]
        self._log.info("pool_listed", model=self.model.name, role=role, ranks=ranks)
        self.ranks.update(role, members)

    @property
    def held(self) -> int:
        """Requests that were admitted and have not been closed."""
        return self._admission.held

    def ready(self) -> bool:
        """Whether a request that came now could be decoded."""
        return bool(self.ranks.view(self._now()).of(self._decoder))

    def path_now(self, prompt: routing.Prompt) -> handoff.PathChoice | None:
        """Where a prompt would be prefilled if it came now; None if it could not be decoded."""
        view = self.ranks.view(self._now())
        if not view.of(self._decoder):
            return None
        return self._path(view, prompt)[0]

    def ranks_by_role(self) -> dict[str, int]:
        """How many ranks of each pool can be reached now."""
        view = self.ranks.view(self._now())
        return {pool.role.value: len(view.of(pool.role)) for pool in self.model.pools}

    def observe(self) -> scaling.Observation:
        """What this gateway has measured of the model's requests."""
        now = self._now()
        rooms = [rank.kv_tokens for rank in self.ranks.view(now).of(self._decoder)]
        kv_tokens = min(rooms, default=0)
        return self._meter.read(self._admission.held, self._admission.waiting, kv_tokens, now)

    # --- requests ------------------------------------------------------------------------------

    def open(
        self,
        request: Request,
        prompt_ids: TokenIds,
        sampling: Sampling,
        cache_salt: str = "",
        pin_ids: frozenset[int] | None = None,
        thought: ThoughtLimit | None = None,
        traceparent: str = "",
    ) -> Passage:
        """Starts a request; its output and its one end arrive at the passage.

        `thought` closes the thought if its engine does not; `traceparent` is `tracing.root_of`.

        `pin_ids` is for answers that a grammar holds: after one of these ids, or from the first
        one on if it is empty, no other rank can go on, since its grammar would start anew.
        """
        machine = Handoff(
            self.spec.handoff, self._decoder, len(prompt_ids), sampling.max_tokens, thought
        )
        passage = self._host.passage(request, prompt_ids, sampling, machine, cache_salt, pin_ids)
        self._passages[request.request_id] = passage
        if self._host.remembers:
            passage.story = self.stories.begin(request, traceparent)
        if self._quarantine.refuses(prompt_ids, self._now()):
            passage.finish(Finished(Finish.REFUSED, _POISON, poison=True))
            return passage
        costs = self.ranks.costs[self._prefiller]
        self._meter.arrived(len(prompt_ids), costs, self._now())
        self._admit(admission.Arrived(request, self._work_s(request)))
        return passage

    def thinking_budget(self, request_id: str, case: ThinkingCase) -> ThinkingBudget | None:
        """How long the request may think under the load of this moment; the load of the case is
        not read.
        """
        case = replaced(case, load=self.load)
        budget = thinking_budget(self.spec.thinking, case)
        if budget is not None:
            self.metrics.count(metrics.THINKING_BUDGETS, 1, self.model.name, budget.reason)
            self._decisions.info(
                "thinking",
                decision=budget.soft_tokens,
                hard_tokens=budget.hard_tokens,
                reason=budget.reason,
                request_id=request_id,
                model=self.model.name,
                case=case,
                limits=self.spec.thinking,
            )
        return budget

    @property
    def load(self) -> float:
        """Requests held and waiting, for each slot; without slots 0 as long as nobody waits."""
        asked = self._admission.held + self._admission.waiting
        return asked / self._slots if self._slots else (LOAD_MAX if asked else 0.0)

    def _work_s(self, request: Request) -> float:
        """What the request is predicted to cost."""
        usual = self._meter.output_tokens or admission.OUTPUT_TOKENS
        costs = self.ranks.costs
        return admission.work_s(
            costs[self._prefiller],
            costs[self._decoder],
            request.prompt_tokens,
            min(usual, request.max_tokens),
            self.ranks.credits[self._decoder],
        )

    def close(self, passage: Passage) -> None:
        """The HTTP side is done with the request, whether it has ended or not. Never waits."""
        self._over(passage, None)
        self._do(passage, passage.handoff.on(handoff.Cancelled(), self._now()))
        self._admit(admission.Left(passage.request.request_id))
        self.measures.closed(passage.request)
        del self._passages[passage.request.request_id]
        self._stranded.pop(passage.request.request_id, None)

    def _admit(self, event: admission.Event) -> None:
        now = self._now()
        decisions = self._admission.on(event, now)
        changed = bool(decisions) or not isinstance(event, admission.Passed)
        if changed and self._decisions.whole:
            self._decisions.info(
                "admission_input", model=self.model.name, now=now, **admission_fields(event)
            )
        for decision in decisions:  # all of them before what any of them brings about
            self._decisions.info(
                "admission",
                decision=decision.word,
                reason=decision.reason,
                request_id=decision.request_id,
                model=self.model.name,
                slots=self._slots,
                held=self._admission.held,
                queued=self._admission.waiting,
            )
        for decision in decisions:
            passage = self._passages[decision.request_id]
            if passage.story is not None:
                passage.story.events.append(self._admitted(decision, now))
            self.measures.decided(decision, passage.request, now)
            match decision:
                case admission.Admit():
                    self._begin(passage)
                case admission.Shed():
                    passage.finish(decision)
                case admission.Queue():
                    pass

    def _admitted(self, decision: admission.Decision, now: float) -> Admitted:
        return Admitted(
            now,
            decision.word,
            decision.reason,
            self._slots,
            self._admission.held,
            self._admission.waiting,
        )

    def _begin(self, passage: Passage) -> None:
        tokens = len(passage.prompt_ids)
        self.ranks.arrived()
        view = self.ranks.view(self._now())
        choice, prices = self._path(view, _prompt(passage))
        prefill_ranks = len(view.of(Role.PREFILL))
        self._decisions.info(
            "path",
            decision=choice.path,
            reason=choice.reason,
            request_id=passage.request.request_id,
            prompt_tokens=tokens,
            prefill_ranks=prefill_ranks,
            prices=prices,
            decoder=self._decoder,
            in_place_max_tokens=self.spec.handoff.in_place_max_tokens,
        )
        if passage.story is not None:
            chosen = PathChosen(self._now(), choice, prices, prefill_ranks)
            passage.story.events.append(chosen)
        self.metrics.count(metrics.PATHS, 1, self.model.name, choice.path, choice.reason)
        klass = passage.request.klass
        self.metrics.count(metrics.PROMPT_TOKENS, tokens, self.model.name, klass)
        self._do(passage, passage.handoff.on(handoff.Begun(choice.path), self._now()))

    def _path(
        self, view: FleetView, prompt: routing.Prompt
    ) -> tuple[handoff.PathChoice, routing.Prices | None]:
        """How the prompt's KV would come to the rank that decodes, and at what prices."""
        prices = self.ranks.price(self._decoder, prompt)
        tokens = len(prompt.ids)
        return handoff.choose_path(self.spec.handoff, view, self._decoder, tokens, prices), prices

    # --- drills --------------------------------------------------------------------------------

    def disturb(self, what: Disturbance, lasts_s: float) -> int:
        """Does without something for a while; returns how many ranks that concerns."""
        self._log.warning("disturbed", model=self.model.name, what=what, lasts_s=lasts_s)
        match what:
            case Disturbance.KV_EVENTS:
                return self.ranks.drop_events(lasts_s)
            case Disturbance.TRANSFERS:
                self._cut_until = self._now() + lasts_s
                return len(self.ranks.view(self._now()).of(Role.PREFILL))
            case _:
                assert_never(what)

    def ranks_of(self, session: str) -> list[str]:
        """The ranks that were last given the open requests of a session, by its client's name."""
        return [
            passage.attempts[max(passage.attempts)][0]
            for passage in self._passages.values()
            if passage.request.session.endswith(f"/{session}")
            and passage.attempts
            and not passage.ended
        ]

    # --- handoff -------------------------------------------------------------------------------

    def _do(self, passage: Passage, actions: list[handoff.Action]) -> None:
        for action in actions:
            match action:
                case handoff.Emit(ids, logprobs):
                    passage.put(ids, logprobs)
                    if passage.pins(ids):
                        self._do(passage, passage.handoff.on(handoff.Pinned(), self._now()))
                case handoff.Choose(role, excluded):
                    answer = self._route(passage, role, excluded)
                    self._do(passage, passage.handoff.on(answer, self._now()))
                case handoff.Send():
                    self._send(passage, action)
                case handoff.Release(kv_params):
                    self._release(passage, kv_params)
                case handoff.Abort(attempt):
                    rank_id, submission = passage.attempts[attempt]
                    self.ranks.cancel(RankId(rank_id), submission)
                case handoff.Finished():
                    if action.poison:
                        self._condemn(passage)
                    self._log_end(passage, action)
                    passage.finish(action)

    def _route(
        self, passage: Passage, role: Role, excluded: frozenset[RankId]
    ) -> handoff.Routed | handoff.NotRouted:
        if passage.handoff.suspect and not self._may_try(passage.request.request_id):
            self._stranded[passage.request.request_id] = passage
            return handoff.NotRouted()
        leg = passage.handoff.leg
        decision = self.ranks.decide(role, leg, _prompt(passage), excluded)
        choice = decision.choice
        if (story := passage.story) is not None:
            story.events.append(RankChosen(self._now(), decision, self.ranks.costs[role]))
            self.stories.grew(story, len(decision.view.ranks))
        self._decisions.info(
            "routing",
            decision=choice.rank_id if isinstance(choice, routing.Choice) else None,
            reason=choice.reason,
            request_id=passage.request.request_id,
            **(decision_fields(decision, self.ranks.costs[role]) if self._decisions.whole else {}),
        )
        if isinstance(choice, routing.Choice):
            passage.decisions[choice.rank_id] = decision
            return handoff.Routed(choice.rank_id)
        self._stranded[passage.request.request_id] = passage
        return handoff.NotRouted(choice.reason is routing.Reason.ALL_EXCLUDED)

    def _send(self, passage: Passage, send: handoff.Send) -> None:
        if send.kv_source is KvSource.TRANSFER and self._now() < self._cut_until:
            self._lose(passage, send)
            return
        submission = f"{passage.request.request_id}-{send.attempt}"
        passage.attempts[send.attempt] = (send.rank_id, submission)
        if passage.story is not None:
            sent = Sent(self._now(), send.attempt, send.rank_id, send.kv_source)
            passage.story.events.append(sent)
        if send.attempt > 1 and send.kv_source is not KvSource.TRANSFER:
            self.metrics.count(metrics.RESUMED, 1, self.model.name)
        seed = _later_seed(passage.sampling.seed, len(send.emitted))
        sampling = replace(passage.sampling, max_tokens=send.max_tokens, seed=seed)
        if send.kv_source is KvSource.PRODUCE:
            # Its one token is drawn again. A prefill that stopped at once would leave no KV.
            sampling = replace(
                sampling, stop_token_ids=(), logprobs=None, grammar=None, thinking_budget=None
            )
        elif sampling.thinking_budget is not None and not self.ranks.keeps_budgets(send.rank_id):
            sampling = replace(sampling, thinking_budget=None)  # `Handoff` closes the thought
        decision = passage.decisions[send.rank_id]
        assert isinstance(decision.choice, routing.Choice)
        story = passage.story
        traceparent = "" if story is None else attempt_of(story, send.attempt)
        pair = None
        if send.pair is not None:
            transfer_id = f"{passage.request.request_id}-{send.pair.number}"
            pair = KvPair(transfer_id, self.ranks.kv_peer(send.pair.peer))
        submit = Submit(
            submission,
            _continued(passage.prompt_ids, send.emitted),
            sampling,
            send.kv_source,
            send.kv_params,
            passage.request.request_id,
            passage.cache_salt,
            decision.choice.work_s,
            pair,
            traceparent,
        )
        assert passage.prompt is not None
        self.measures.sent(passage.request, send, decision, self._now())
        sink = _Sink(self, passage, send.attempt)
        self.ranks.submit(decision, passage.prompt, submit, sink)

    def _lose(self, passage: Passage, send: handoff.Send) -> None:
        """Does as if the rank had not got the KV."""
        request, now = passage.request, self._now()
        self.measures.sent(request, send, passage.decisions[send.rank_id], now)
        self.measures.left(request, send.attempt, Finish.FAILED, 0, now)
        passage.attempts[send.attempt] = (send.rank_id, "")
        if send.kv_params is not None:
            self._release(passage, send.kv_params)
        ended = handoff.Ended(send.attempt, Finish.FAILED, cause=_CUT)
        self._do(passage, passage.handoff.on(ended, now))

    def _release(self, passage: Passage, kv_params: KvParams) -> None:
        """A prefill rank frees the blocks once they have been read, so a decode rank reads them."""
        prompt = _prompt(passage)
        decision = self.ranks.decide(self._decoder, routing.Leg.DECODE, prompt, ())
        request_id = passage.request.request_id
        found = isinstance(decision.choice, routing.Choice)
        self._log.info("kv_released", request_id=request_id, read=found)
        if not found:
            return  # the prefill rank's lease ends
        submit = Submit(
            f"{request_id}-release",
            _continued(passage.prompt_ids, passage.handoff.emitted),
            Sampling(max_tokens=1),
            KvSource.TRANSFER,
            kv_params,
            request_id,
            passage.cache_salt,
        )
        self.ranks.submit(decision, prompt, submit, _Nobody())

    def _condemn(self, passage: Passage) -> None:
        digest = handoff.digest_of(passage.prompt_ids)
        self._quarantine.condemn(digest, self.spec.handoff.quarantine_s, self._now())
        self._speak()
        self.metrics.count(metrics.QUARANTINED, 1, self.model.name)
        self._log.error(
            "request_quarantined",
            request_id=passage.request.request_id,
            ranks=[rank_id for rank_id, _ in passage.attempts.values()],
            refused_s=self.spec.handoff.quarantine_s,
        )

    def _may_try(self, suspect: RequestId) -> bool:
        may = self._quarantine.may_try(suspect, self._now())
        self._speak()
        return may

    def _speak(self) -> None:
        for word in self._quarantine.words(self._now()):
            self.ranks.say(word)

    def _heard(self, word: handoff.Word) -> None:
        """Another gateway's suspect has its turn, or has had it, or a prompt is to be refused."""
        self._quarantine.heard(word, self._now())
        self._speak()
        self._fleet_changed()

    def _log_end(self, passage: Passage, end: handoff.Finished) -> None:
        output_tokens = len(passage.handoff.emitted)
        self._over(passage, end.finish)
        self.ranks.drew(output_tokens)
        if passage.handoff.closed_thought:
            self.metrics.count(metrics.THOUGHTS_CLOSED, 1, self.model.name)
        self._meter.ended(len(passage.prompt_ids), passage.handoff.cached_tokens, output_tokens)
        self._log.info(
            "request_ended",
            request_id=passage.request.request_id,
            finish=end.finish,
            # What an engine says of a request that it refuses may quote it; its client was told.
            cause="" if end.finish is Finish.REFUSED else end.cause,
            prompt_tokens=len(passage.prompt_ids),
            output_tokens=output_tokens,
            closed_thought=passage.handoff.closed_thought,
            ranks=[rank_id for rank_id, _ in passage.attempts.values()],
        )

    def _over(self, passage: Passage, finish: Finish | None) -> None:
        """The story's end, once."""
        if (story := passage.story) is not None:
            handed = passage.handoff
            over = Over(self._now(), finish, len(handed.emitted), handed.cached_tokens)
            story.events.append(over)
            passage.story = None
            if story.traceparent and self.on_traced is not None:
                self.on_traced(story)

    # --- fleet and time ------------------------------------------------------------------------

    def _fleet_changed(self) -> None:
        """Batches the changes of one loop turn; called from inside channel callbacks too."""
        if not self._changed:
            self._changed = True
            self._host.soon(self._look_again)

    def _look_again(self) -> None:
        self._changed = False
        view = self.ranks.view(self._now())
        slots = sum(rank.requests_max for rank in view.of(self._decoder))
        if slots != self._slots:
            self._slots = slots
            self._admit(admission.Capacity(slots))
        self._wake()

    def _wake(self) -> None:
        alone = self._quarantine.alone
        if alone is not None:
            tried = self._passages.get(alone)
            if tried is None or not tried.handoff.suspect:
                self._quarantine.settled()
        self._speak()
        stranded, self._stranded = self._stranded, {}
        for request_id, passage in stranded.items():
            if passage.handoff.waiting:
                self._do(passage, passage.handoff.on(handoff.Woken(), self._now()))
            if passage.handoff.waiting:  # perhaps without having looked
                self._stranded[request_id] = passage

    def tick(self) -> None:
        """Time has passed: to be called every `TICK_S`."""
        self._admit(admission.Passed())
        self._wake()
        self._look_at_drains()
        self.ranks.tick()
        self._pools.tick(self.ranks.seen(), self._now())

    def _look(self) -> None:
        """Somebody wants to know what only the moment knows."""
        self.measures.look(self._now())
        self._pools.look(self.ranks.seen())
        name = self.model.name
        self.metrics.set(metrics.SLOTS, self._slots, name)
        self.metrics.set(metrics.IN_FLIGHT, self._admission.held, name)
        self.metrics.set(metrics.WAITING, self._admission.waiting, name)
        for outcome, batches in self.ranks.kv_batches().items():
            self.metrics.set(metrics.KV_BATCHES, batches, name, outcome)

    def _look_at_drains(self) -> None:
        """Moves what runs on ranks that drain, if it is time."""
        drains, now = self.ranks.drains(), self._now()
        elsewhere = bool(self.ranks.view(now).of(self._decoder)) if drains else False
        usual = self._meter.output_tokens
        for passage, seen in self._drains.due(self._passages, drains, usual, elsewhere, now):
            self._decisions.info(
                "drain",
                decision="move",
                reason=seen.verdict.reason,
                request_id=passage.request.request_id,
                rank_id=seen.rank_id,
                running=seen.running,
                drain_at=drains[seen.rank_id],
                now=now,
            )
            if passage.story is not None:
                moved = Moved(now, seen.rank_id, seen.verdict.reason)
                passage.story.events.append(moved)
            self.metrics.count(metrics.MOVED, 1, self.model.name, seen.verdict.reason)
            self._do(passage, passage.handoff.on(handoff.Moved(), now))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()


class _Nobody:
    """Reads no output."""

    def on_tokens(self, ids: list[int], logprobs: Sequence[TokenLogprob] = ()) -> None: ...

    def on_end(self, end: End) -> None: ...


class _Sink:
    """Turns one submission's output into handoff events."""

    __slots__ = ("_attempt", "_passage", "_service", "on_tokens")

    def __init__(self, service: Service, passage: Passage, attempt: int) -> None:
        self._service = service
        self._passage = passage
        self._attempt = attempt
        self.on_tokens = self._first

    def _first(self, ids: list[int], logprobs: Sequence[TokenLogprob] = ()) -> None:
        self.on_tokens = self._more  # for all that follow, at no cost
        service, now = self._service, self._service._now()
        if (story := self._passage.story) is not None:
            story.events.append(Began(now, self._attempt))
        service.measures.began(self._passage.request, self._attempt, now)
        self._more(ids, logprobs)

    def _more(self, ids: list[int], logprobs: Sequence[TokenLogprob] = ()) -> None:
        passage = self._passage
        event = handoff.Tokens(self._attempt, ids, logprobs)
        self._service._do(passage, passage.handoff.on(event, 0.0))  # tokens are not judged by time

    def on_end(self, end: End) -> None:
        passage, now = self._passage, self._service._now()
        if (story := passage.story) is not None:
            story.events.append(Left(now, self._attempt, end.finish, end.cached_tokens))
        request, measures = passage.request, self._service.measures
        measures.left(request, self._attempt, end.finish, end.cached_tokens, now)
        event = handoff.Ended(
            self._attempt, end.finish, end.kv_params, end.cached_tokens, end.cause, end.died
        )
        self._service._do(passage, passage.handoff.on(event, now))


def _costs(model: ModelSpec) -> routing.Costs | None:
    """Of a rank of each pool, if the spec knows those of all."""
    known = {pool.role: pool.costs for pool in model.pools if pool.costs is not None}
    return known if len(known) == len(model.pools) else None


def _credits(spec: Spec) -> int:
    """Requests that this gateway may have open at one rank that decodes: its share."""
    most = spec.admission.rank_requests_max
    if most is None:
        return spec.channel.max_requests
    return min(spec.channel.max_requests, -(-most // spec.gateway.replicas))


def _later_seed(seed: int | None, emitted: int) -> int | None:
    """With which what has been emitted is continued elsewhere. An engine begins a seed's numbers
    anew, and the same ones again would make what follows resemble what came before.
    """
    return seed if seed is None or not emitted else (seed + emitted * _SEED_STEP) % _SEEDS


def _continued(prompt_ids: TokenIds, emitted: Sequence[int]) -> TokenIds:
    """The prompt with what has been drawn; itself, and no copy, until anything has."""
    return prompt_ids + token_ids(emitted) if emitted else prompt_ids


def _prompt(passage: Passage) -> routing.Prompt:
    """What is to be prefilled now: the prompt and what has been drawn."""
    emitted = passage.handoff.emitted
    tokens = len(passage.prompt_ids) + len(emitted)
    if passage.prompt is None or len(passage.prompt.ids) != tokens:
        passage.prompt = routing.Prompt(
            _continued(passage.prompt_ids, emitted),
            passage.sampling.max_tokens - len(emitted),
            passage.cache_salt,
            passage.request.session,
        )
    return passage.prompt
