"""Hosts the deciding code for the requests of one model: admission, routing, handoff.

All of it runs on one event loop and never waits: events come from the HTTP side, the channels, the
fleet's list and a clock tick; decisions are logged with their inputs and done at once. What follows
from a handoff's own decisions is in `carrier`.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace as replaced
from typing import assert_never

from orchestrator import admission, handoff, routing, scaling
from orchestrator.admission import Admission, ThinkingBudget, ThinkingCase, thinking_budget
from orchestrator.codec import ThoughtLimit
from orchestrator.core import (
    Finish,
    FleetView,
    Request,
    Role,
    TokenIds,
)
from orchestrator.engines import ChannelLimits, Sampling
from orchestrator.fleet.drill import Disturbance
from orchestrator.gateway.carrier import Carrier, Records, prompt_of
from orchestrator.gateway.decision_log import admission_fields
from orchestrator.gateway.host import Host
from orchestrator.gateway.measures import Measures
from orchestrator.gateway.network import Member, Network
from orchestrator.gateway.passage import Passage
from orchestrator.gateway.pool_measures import PoolMeasures
from orchestrator.gateway.ranks import Ranks, costs_of, credits_of
from orchestrator.gateway.story import (
    Admitted,
    Over,
    PathChosen,
    Stories,
    Story,
)
from orchestrator.gateway.supervisor import Supervisor
from orchestrator.handoff import Finished, Handoff
from orchestrator.spec import ModelSpec, Spec
from orchestrator.telemetry import Log, Metrics, metrics

TICK_S = 0.5  # how late a deadline may be noticed
LOAD_MAX = 1e9  # of a fleet without a slot that is asked for some
_POISON = "engines have died of this prompt lately, so it is not tried again for a while"


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
            costs_of(model),
            self._heard,
        )
        self.ranks.credits[self._decoder] = credits_of(spec)
        self._carrier = Carrier(
            spec.handoff,
            model.name,
            self._decoder,
            self.ranks,
            self._quarantine,
            Records(log, decisions, metrics, self.measures, self.stories),
            self._now,
            self._ended,
        )
        self._slots = 0
        self._slo = model.scaling  # None: nothing is promised
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
        if self._slo is not None:
            passage.due_at = request.arrived_at + self._slo.ttft_s
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
        self._carrier.do(passage, passage.handoff.on(handoff.Cancelled(), self._now()))
        self._admit(admission.Left(passage.request.request_id))
        self.measures.closed(passage.request)
        del self._passages[passage.request.request_id]
        self._carrier.forget(passage.request.request_id)

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
        choice, prices = self._path(view, prompt_of(passage))
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
        self._carrier.do(passage, passage.handoff.on(handoff.Begun(choice.path), self._now()))

    def _path(
        self, view: FleetView, prompt: routing.Prompt
    ) -> tuple[handoff.PathChoice, routing.Prices | None]:
        """How the prompt's KV would come to the rank that decodes, and at what prices."""
        tpot_s = None if self._slo is None else self._slo.tpot_s
        prices = self.ranks.price(self._decoder, prompt, tpot_s)
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
                self._carrier.cut_transfers(lasts_s)
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

    def _ended(self, passage: Passage, end: Finished) -> None:
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

    def _heard(self, word: handoff.Word) -> None:
        """Another gateway has said something of requests that engines died of."""
        self._carrier.heard(word)
        self._fleet_changed()

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
        self._carrier.wake(self._passages)

    def tick(self) -> None:
        """Time has passed: to be called every `TICK_S`."""
        self._admit(admission.Passed())
        self._carrier.wake(self._passages)
        self._carrier.move_drained(self._passages, self._meter.output_tokens)
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

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()
