"""All that one gateway remembers for routing, behind one face: ledger, prefix index, sessions.

A host tells what happens to its submissions and asks where the next one goes. The decision itself
is `choose_rank`, a function of values that the host can log.
"""

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from orchestrator.core import FleetView, RankId, Role
from orchestrator.routing.candidates import Leg, Question
from orchestrator.routing.choose import Choice, NoRank, Reason, choose_rank
from orchestrator.routing.default_costs import Costs
from orchestrator.routing.keys import prompt_keys
from orchestrator.routing.kv_events import KvEvent
from orchestrator.routing.kv_stream import Apply, AskReplay, Forget, GiveUp, Step
from orchestrator.routing.ledger import Ledger, Member
from orchestrator.routing.prefix_index import PrefixHits, PrefixIndex
from orchestrator.routing.ways import Prices, price_ways

EVENTS_WITHIN_S = 5.0  # an engine's events about a prefill are here by then, or are lost
SESSIONS_MAX = 16_384
_HOPE_HALF_LIFE = 4  # requests: an engine does it always or never, so one learns fast


@dataclass(slots=True)
class Prompt:
    """One request's prompt, as routing remembers it while the request lives."""

    ids: Sequence[int]
    max_tokens: int
    salt: str = ""
    session: str = ""
    due_at: float | None = None  # when the first token is promised; None: never, or it has come
    keys: Sequence[int] | None = None  # of its blocks, once somebody has asked


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer with all that it came from: `choose_rank` of these gives it again."""

    choice: Choice | NoRank
    view: FleetView
    role: Role
    question: Question
    excluded: tuple[RankId, ...]
    sure_tokens: int = 0  # that the chosen rank is known to hold
    hoped_tokens: int = 0  # with what is under way to it


@dataclass(slots=True)
class _Submission:
    rank_id: RankId
    prompt: Prompt
    keys: Sequence[int]
    leg: Leg
    sure_tokens: int
    hoped_tokens: int
    begun: bool = False  # its first token has come


def nowhere(
    view: FleetView, role: Role, leg: Leg, prompt: Prompt, excluded: Collection[RankId]
) -> Decision:
    """The decision of a gateway that has not seen any rank yet."""
    question = Question(leg, len(prompt.ids), prompt.max_tokens, {})
    excluded = tuple(sorted(excluded))
    return Decision(NoRank(Reason.NO_RANK), view, role, question, excluded)


class Router:
    """Routing's memory at one gateway, for the ranks of one model."""

    def __init__(self, block_tokens: int, blocks_max: int, costs: Costs) -> None:
        self.ledger = Ledger()
        self.index = PrefixIndex(block_tokens, blocks_max)
        self.costs = costs
        self._submissions: dict[str, _Submission] = {}
        self._confirmed: deque[tuple[float, RankId, Sequence[int]]] = deque()
        self._sessions: OrderedDict[str, tuple[RankId, int]] = OrderedDict()
        self._hope = 0.5  # how much of what was under way turned out to be a prefix hit

    # --- ranks -------------------------------------------------------------------------------

    def join(self, member: Member, *, kv_events: bool) -> None:
        """A rank can be chosen from now on. Without events its blocks are what we sent there."""
        self.ledger.join(member)
        self.index.join(member.rank_id, None if kv_events else self._own_max(member))

    def leave(self, rank_id: RankId) -> None:
        """The rank is gone."""
        self.ledger.leave(rank_id)
        self.index.leave(rank_id)

    def without_events(self, rank_id: RankId) -> None:
        """The rank's events are of no use: from now on its blocks are what we sent there."""
        if self.index.has(rank_id):
            self.index.without_events(rank_id, self._own_max(self.ledger.member(rank_id)))

    def _own_max(self, member: Member) -> int:
        return member.kv_tokens // self.index.block_tokens

    def take(self, rank_id: RankId, steps: Sequence[Step]) -> list[AskReplay]:
        """Does what the rank's event stream says; returns what only the host can do."""
        asked: list[AskReplay] = []
        for step in steps:
            match step:
                case Apply(events):
                    self.on_events(rank_id, events)
                case Forget():
                    self.index.join(rank_id)
                case GiveUp():
                    self.without_events(rank_id)
                case AskReplay():
                    asked.append(step)
        return asked

    def on_events(self, rank_id: RankId, events: Sequence[KvEvent]) -> None:
        """The next events of a rank's stream."""
        if self.index.has(rank_id):
            for event in events:
                self.index.on(rank_id, event)

    # --- requests ----------------------------------------------------------------------------

    def arrived(self, now: float) -> None:
        """A request has arrived."""
        self.ledger.arrived(now)

    def view(self, rank_ids: Iterable[RankId], now: float) -> FleetView:
        """These ranks, which the host can reach, as a view; `rank_ids` are in order."""
        ledger = self.ledger
        return FleetView(ledger.views(rank_ids), now, ledger.arrivals_per_s, ledger.output_tokens)

    def decide(
        self,
        view: FleetView,
        role: Role,
        leg: Leg,
        prompt: Prompt,
        excluded: Collection[RankId] = (),
    ) -> Decision:
        """The rank for one leg of the request."""
        question, hits = self._asked(leg, prompt)
        choice = choose_rank(view, role, question, self.costs[role], excluded)
        sure = hoped = 0
        if isinstance(choice, Choice):
            block = self.index.block_tokens
            most = (len(prompt.ids) - 1) // block
            sure = min(hits.sure.get(choice.rank_id, 0), most) * block
            hoped = min(hits.hoped.get(choice.rank_id, 0), most) * block
        return Decision(choice, view, role, question, tuple(sorted(excluded)), sure, hoped)

    def price(
        self, view: FleetView, decoder: Role, prompt: Prompt, tpot_s: float | None = None
    ) -> Prices | None:
        """What it costs to prefill the prompt where it is decoded, and elsewhere; None if there is
        no choice.
        """
        if Role.PREFILL not in self.costs:
            return None  # a model of unified gangs: there is no other way
        return price_ways(view, decoder, self._asked(Leg.WHOLE, prompt)[0], self.costs, tpot_s)

    def _asked(self, leg: Leg, prompt: Prompt) -> tuple[Question, PrefixHits]:
        if prompt.keys is None:
            prompt.keys = prompt_keys(prompt.ids, self.index.block_tokens, prompt.salt)
        hits = self.index.hits(prompt.keys)
        block = self.index.block_tokens
        # an engine computes at least the last token of a prompt
        most = (len(prompt.ids) - 1) // block
        believed = hits.hoped if self._hope >= 0.5 else hits.sure
        tokens = {rank: min(blocks, most) * block for rank, blocks in believed.items()}
        session_rank, session_tokens = self._sessions.get(prompt.session, (None, 0))
        return (
            Question(
                leg,
                len(prompt.ids),
                prompt.max_tokens,
                tokens,
                session_rank,
                session_tokens,
                prompt.due_at,
            ),
            hits,
        )

    def sent(self, submission: str, decision: Decision, prompt: Prompt, now: float) -> None:
        """The decision was carried out."""
        choice = decision.choice
        assert isinstance(choice, Choice)
        assert prompt.keys is not None
        leg = decision.question.leg
        rank_id = choice.rank_id
        max_tokens = 1 if leg is Leg.PREFILL else prompt.max_tokens
        self.ledger.sent(
            rank_id, submission, len(prompt.ids), max_tokens, choice.work_s, now, prompt.due_at
        )
        self.index.expect(rank_id, prompt.keys)
        self._submissions[submission] = _Submission(
            rank_id, prompt, prompt.keys, leg, decision.sure_tokens, decision.hoped_tokens
        )
        if prompt.session and leg is not Leg.PREFILL:
            self._sessions[prompt.session] = (rank_id, len(prompt.ids))
            self._sessions.move_to_end(prompt.session)
            if len(self._sessions) > SESSIONS_MAX:
                self._sessions.popitem(last=False)

    def first_token(self, submission: str, now: float, cached_tokens: int | None = None) -> None:
        """The submission's first token has come; again and of unknown ones it is ignored.

        `cached_tokens` is what the engine did not have to compute, if it has said so by now.
        """
        sent = self._submissions.get(submission)
        if sent is None or sent.begun:
            return
        sent.begun = True
        self.ledger.prefilled(sent.rank_id, submission, now)
        self.index.confirm(sent.rank_id, sent.keys)
        self._confirmed.append((now + EVENTS_WITHIN_S, sent.rank_id, sent.keys))
        if cached_tokens is not None:
            self._learn(sent, cached_tokens)

    def ended(self, submission: str, now: float, cached_tokens: int | None = None) -> None:
        """The submission is over, whatever the way."""
        sent = self._submissions.pop(submission, None)
        if sent is None:
            return
        if not sent.begun:
            self.index.unexpect(sent.rank_id, sent.keys)
        elif cached_tokens is not None:
            self._learn(sent, cached_tokens)
        self.ledger.ended(sent.rank_id, submission, now)
        self.tick(now)

    def tick(self, now: float) -> None:
        """Time has passed: what events should have confirmed by now is no longer believed."""
        while self._confirmed and self._confirmed[0][0] <= now:
            _, rank_id, keys = self._confirmed.popleft()
            self.index.forget(rank_id, keys)

    def _learn(self, sent: _Submission, cached_tokens: int) -> None:
        """Whether this engine counts as a hit what was still being computed for another request."""
        hope = sent.hoped_tokens - sent.sure_tokens
        if hope > 0 and sent.leg is not Leg.DECODE:
            came_true = min(1.0, max(0.0, (cached_tokens - sent.sure_tokens) / hope))
            self._hope += (came_true - self._hope) / _HOPE_HALF_LIFE
