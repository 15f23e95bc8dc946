"""Does what the handoffs of one model's requests decide: asks routing, sends to ranks, takes what
comes back to the handoff that waits for it, and keeps those that found no rank until there is one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from orchestrator import handoff, routing
from orchestrator.core import (
    Finish,
    KvParams,
    KvSource,
    RankId,
    RequestId,
    Role,
    TokenIds,
    TokenLogprob,
    token_ids,
)
from orchestrator.engines import End, KvPair, Sampling, Submit
from orchestrator.gateway.decision_log import decision_fields
from orchestrator.gateway.drains import Drains
from orchestrator.gateway.measures import Measures
from orchestrator.gateway.passage import Passage
from orchestrator.gateway.ranks import Ranks
from orchestrator.gateway.story import Began, Left, Moved, RankChosen, Sent, Stories
from orchestrator.gateway.tracing import attempt_of
from orchestrator.handoff import Finished
from orchestrator.spec import HandoffSpec
from orchestrator.telemetry import Log, Metrics, metrics

_SEED_STEP, _SEEDS = 0x9E3779B97F4A7C15, 1 << 63  # of Weyl's sequence; torch takes 64 bits
_CUT = "a drill keeps KV from being transferred"


@dataclass(frozen=True, slots=True)
class Records:
    """Where what happens to requests is written down."""

    log: Log
    decisions: Log
    metrics: Metrics
    measures: Measures
    stories: Stories


class Carrier:
    """What happens between a decision of a handoff and its next event; never waits."""

    def __init__(
        self,
        spec: HandoffSpec,
        model: str,
        decoder: Role,
        ranks: Ranks,
        quarantine: handoff.Quarantine,
        records: Records,
        now: Callable[[], float],
        on_end: Callable[[Passage, Finished], None],
    ) -> None:
        """`on_end` is told of a request's end before its passage is."""
        self._spec = spec
        self._model = model
        self._decoder = decoder
        self._ranks = ranks
        self._quarantine = quarantine
        self._records = records
        self._now = now
        self._on_end = on_end
        self._stranded: dict[str, Passage] = {}  # found no rank when they last looked
        self._drains = Drains()
        self._cut_until = 0.0  # by a drill

    def forget(self, request_id: str) -> None:
        """The request is closed."""
        self._stranded.pop(request_id, None)

    def heard(self, word: handoff.Word) -> None:
        """Another gateway's suspect has its turn, or has had it, or a prompt is to be refused."""
        self._quarantine.heard(word, self._now())
        self._speak()

    def wake(self, passages: Mapping[str, Passage]) -> None:
        """The fleet may have changed: those that found no rank look again. `passages` are open."""
        alone = self._quarantine.alone
        if alone is not None:
            tried = passages.get(alone)
            if tried is None or not tried.handoff.suspect:
                self._quarantine.settled()
        self._speak()
        stranded, self._stranded = self._stranded, {}
        for request_id, passage in stranded.items():
            if passage.handoff.waiting:
                self.do(passage, passage.handoff.on(handoff.Woken(), self._now()))
            if passage.handoff.waiting:  # perhaps without having looked
                self._stranded[request_id] = passage

    # --- drains and drills ---------------------------------------------------------------------

    def move_drained(self, passages: Mapping[str, Passage], usual_tokens: float) -> None:
        """Moves what runs on ranks that drain, if it is time; `usual_tokens` is an output's."""
        drains, now = self._ranks.drains(), self._now()
        elsewhere = bool(self._ranks.view(now).of(self._decoder)) if drains else False
        for passage, seen in self._drains.due(passages, drains, usual_tokens, elsewhere, now):
            self._records.decisions.info(
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
            self._records.metrics.count(metrics.MOVED, 1, self._model, seen.verdict.reason)
            self.do(passage, passage.handoff.on(handoff.Moved(), now))

    def cut_transfers(self, lasts_s: float) -> None:
        """From now on, for a while, does as if no KV got to another rank."""
        self._cut_until = self._now() + lasts_s

    # --- handoff -------------------------------------------------------------------------------

    def do(self, passage: Passage, actions: list[handoff.Action]) -> None:
        """What a request's handoff wants done, and all that follows from it at once."""
        for action in actions:
            match action:
                case handoff.Emit(ids, logprobs):
                    passage.put(ids, logprobs)
                    if passage.pins(ids):
                        self.do(passage, passage.handoff.on(handoff.Pinned(), self._now()))
                case handoff.Choose(role, excluded):
                    answer = self._route(passage, role, excluded)
                    self.do(passage, passage.handoff.on(answer, self._now()))
                case handoff.Send():
                    self._send(passage, action)
                case handoff.Release(kv_params):
                    self._release(passage, kv_params)
                case handoff.Abort(attempt):
                    rank_id, submission = passage.attempts[attempt]
                    self._ranks.cancel(RankId(rank_id), submission)
                case handoff.Finished():
                    if action.poison:
                        self._condemn(passage)
                    self._on_end(passage, action)
                    passage.finish(action)

    def _route(
        self, passage: Passage, role: Role, excluded: frozenset[RankId]
    ) -> handoff.Routed | handoff.NotRouted:
        if passage.handoff.suspect and not self._may_try(passage.request.request_id):
            self._stranded[passage.request.request_id] = passage
            return handoff.NotRouted()
        leg = passage.handoff.leg
        decision = self._ranks.decide(role, leg, prompt_of(passage), excluded)
        choice = decision.choice
        if (story := passage.story) is not None:
            story.events.append(RankChosen(self._now(), decision, self._ranks.costs[role]))
            self._records.stories.grew(story, len(decision.view.ranks))
        self._records.decisions.info(
            "routing",
            decision=choice.rank_id if isinstance(choice, routing.Choice) else None,
            reason=choice.reason,
            request_id=passage.request.request_id,
            **(
                decision_fields(decision, self._ranks.costs[role])
                if self._records.decisions.whole
                else {}
            ),
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
            self._records.metrics.count(metrics.RESUMED, 1, self._model)
        seed = _later_seed(passage.sampling.seed, len(send.emitted))
        sampling = replace(passage.sampling, max_tokens=send.max_tokens, seed=seed)
        if send.kv_source is KvSource.PRODUCE:
            # Its one token is drawn again. A prefill that stopped at once would leave no KV.
            sampling = replace(
                sampling, stop_token_ids=(), logprobs=None, grammar=None, thinking_budget=None
            )
        elif sampling.thinking_budget is not None and not self._ranks.keeps_budgets(send.rank_id):
            sampling = replace(sampling, thinking_budget=None)  # `Handoff` closes the thought
        decision = passage.decisions[send.rank_id]
        assert isinstance(decision.choice, routing.Choice)
        story = passage.story
        traceparent = "" if story is None else attempt_of(story, send.attempt)
        pair = None
        if send.pair is not None:
            transfer_id = f"{passage.request.request_id}-{send.pair.number}"
            pair = KvPair(transfer_id, self._ranks.kv_peer(send.pair.peer))
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
        self._records.measures.sent(passage.request, send, decision, self._now())
        sink = _Sink(self, passage, send.attempt)
        self._ranks.submit(decision, passage.prompt, submit, sink)

    def _lose(self, passage: Passage, send: handoff.Send) -> None:
        """Does as if the rank had not got the KV."""
        request, now = passage.request, self._now()
        self._records.measures.sent(request, send, passage.decisions[send.rank_id], now)
        self._records.measures.left(request, send.attempt, Finish.FAILED, 0, now)
        passage.attempts[send.attempt] = (send.rank_id, "")
        if send.kv_params is not None:
            self._release(passage, send.kv_params)
        ended = handoff.Ended(send.attempt, Finish.FAILED, cause=_CUT)
        self.do(passage, passage.handoff.on(ended, now))

    def _release(self, passage: Passage, kv_params: KvParams) -> None:
        """A prefill rank frees the blocks once they have been read, so a decode rank reads them."""
        prompt = prompt_of(passage)
        decision = self._ranks.decide(self._decoder, routing.Leg.DECODE, prompt, ())
        request_id = passage.request.request_id
        found = isinstance(decision.choice, routing.Choice)
        self._records.log.info("kv_released", request_id=request_id, read=found)
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
        self._ranks.submit(decision, prompt, submit, _Nobody())

    def _condemn(self, passage: Passage) -> None:
        digest = handoff.digest_of(passage.prompt_ids)
        self._quarantine.condemn(digest, self._spec.quarantine_s, self._now())
        self._speak()
        self._records.metrics.count(metrics.QUARANTINED, 1, self._model)
        self._records.log.error(
            "request_quarantined",
            request_id=passage.request.request_id,
            ranks=[rank_id for rank_id, _ in passage.attempts.values()],
            refused_s=self._spec.quarantine_s,
        )

    def _may_try(self, suspect: RequestId) -> bool:
        may = self._quarantine.may_try(suspect, self._now())
        self._speak()
        return may

    def _speak(self) -> None:
        for word in self._quarantine.words(self._now()):
            self._ranks.say(word)


class _Nobody:
    """Reads no output."""

    def on_tokens(self, ids: list[int], logprobs: Sequence[TokenLogprob] = ()) -> None: ...

    def on_end(self, end: End) -> None: ...


class _Sink:
    """Turns one submission's output into handoff events."""

    __slots__ = ("_attempt", "_carrier", "_passage", "on_tokens")

    def __init__(self, carrier: Carrier, passage: Passage, attempt: int) -> None:
        self._carrier = carrier
        self._passage = passage
        self._attempt = attempt
        self.on_tokens = self._first

    def _first(self, ids: list[int], logprobs: Sequence[TokenLogprob] = ()) -> None:
        self.on_tokens = self._more  # for all that follow, at no cost
        carrier, now = self._carrier, self._carrier._now()
        if (story := self._passage.story) is not None:
            story.events.append(Began(now, self._attempt))
        carrier._records.measures.began(self._passage.request, self._attempt, now)
        self._more(ids, logprobs)

    def _more(self, ids: list[int], logprobs: Sequence[TokenLogprob] = ()) -> None:
        passage = self._passage
        event = handoff.Tokens(self._attempt, ids, logprobs)
        self._carrier.do(passage, passage.handoff.on(event, 0.0))  # tokens are not judged by time

    def on_end(self, end: End) -> None:
        passage, now = self._passage, self._carrier._now()
        if (story := passage.story) is not None:
            story.events.append(Left(now, self._attempt, end.finish, end.cached_tokens))
        request, measures = passage.request, self._carrier._records.measures
        measures.left(request, self._attempt, end.finish, end.cached_tokens, now)
        event = handoff.Ended(
            self._attempt, end.finish, end.kv_params, end.cached_tokens, end.cause, end.died
        )
        self._carrier.do(passage, passage.handoff.on(event, now))


def _later_seed(seed: int | None, emitted: int) -> int | None:
    """With which what has been emitted is continued elsewhere. An engine begins a seed's numbers
    anew, and the same ones again would make what follows resemble what came before.
    """
    return seed if seed is None or not emitted else (seed + emitted * _SEED_STEP) % _SEEDS


def _continued(prompt_ids: TokenIds, emitted: Sequence[int]) -> TokenIds:
    """The prompt with what has been drawn; itself, and no copy, until anything has."""
    return prompt_ids + token_ids(emitted) if emitted else prompt_ids


def prompt_of(passage: Passage) -> routing.Prompt:
    """What is to be prefilled now: the prompt and what has been drawn."""
    emitted = passage.handoff.emitted
    tokens = len(passage.prompt_ids) + len(emitted)
    if passage.prompt is None or len(passage.prompt.ids) != tokens:
        passage.prompt = routing.Prompt(
            _continued(passage.prompt_ids, emitted),
            passage.sampling.max_tokens - len(emitted),
            passage.cache_salt,
            passage.request.session,
            None if emitted else passage.due_at,
        )
    return passage.prompt
