"""One DP rank of a simulated gang: its queue, its prompts under way, its decodes, its KV blocks."""

from collections import deque

from orchestrator.routing import KvEvent, Removed
from orchestrator.sim.blocks import Blocks
from orchestrator.sim.events import engine_hash, stored
from orchestrator.sim.job import GangModel, Job, Scheduling, Stage
from orchestrator.sim.steps import Seen

_ALMOST = 1e-9  # of a token: what sums of fractions may be off by


class SimRank:
    """State and arithmetic; the gang says when. Tokens of decodes are summed, not counted:
    `context` is right at step `at_step` and grows by `growth` with each step.
    """

    def __init__(self, model: GangModel, index: int) -> None:
        self.model = model
        self.index = index
        self.blocks = Blocks(model.blocks)
        self.waiting: deque[Job] = deque()
        self.prefills: list[Job] = []
        self.apart: dict[Job, None] = {}  # pulled, or on the way through the stages
        self.running: dict[Job, None] = {}
        self.held: dict[str, Job] = {}  # by submission, the first to lapse first
        self.context = 0.0
        self.growth = 0.0
        self.keyed = 0  # of the context, tokens in blocks with a key
        self.at_step = 0
        self.promised = 0  # blocks of whole answers, if they are guaranteed
        self.sequence = 0  # of the next batch of KV events
        self.stored: list[KvEvent] = []  # events that are not published yet

    @property
    def slots(self) -> int:
        """Requests that it could take up now."""
        return self.model.sequences_max - self.busy

    @property
    def busy(self) -> int:
        """Requests that it has taken up."""
        return len(self.prefills) + len(self.apart) + len(self.running)

    @property
    def open(self) -> int:
        """Requests that have not ended, those that wait included."""
        return self.busy + len(self.waiting)

    def advance(self, step: int) -> None:
        """The gang has come to this step."""
        self.context += self.growth * (step - self.at_step)
        self.at_step = step

    def room_tokens(self) -> float:
        """Tokens that decodes may still grow by before blocks run out; each may waste a part of
        its last block.
        """
        block = self.model.block_tokens
        return (self.blocks.free - len(self.running)) * block - (self.context - self.keyed)

    def room_steps(self) -> int:
        """Steps until then."""
        return int(self.room_tokens() / self.growth + _ALMOST)

    # --- taking up ---------------------------------------------------------------------------

    def take_up(self) -> Job | None:
        """The next waiting job, with blocks for its prompt; None if it has to wait."""
        job, block = self.waiting[0], self.model.block_tokens
        blocks = self.blocks
        promised = 0
        if self.model.guaranteed:
            promised = -(-(job.prompt_tokens + job.output_tokens) // block) + 1
            if self.busy and self.promised + promised > blocks.capacity:
                return None
        most = (job.compute_tokens - 1) // block  # the last token is computed always
        hits = min(blocks.leading(job.keys), most)
        held = job.keys[:hits]
        fresh = -(-job.compute_tokens // block) - hits
        idle = sum(1 for key in held if key not in blocks.used)
        if (fresh + idle + 1) * block > self.room_tokens():
            return None
        self.waiting.popleft()
        blocks.hold(held)
        blocks.reserved += fresh
        job.held, job.reserved = held, fresh
        job.promised = promised
        self.promised += promised
        job.done_tokens = job.cached_tokens = hits * block
        self.fit()
        return job

    def fit(self) -> None:
        """Makes room for what decodes have grown by."""
        blocks, block = self.blocks, self.model.block_tokens
        grown = -int(-(self.context - self.keyed) // block) + len(self.running)
        blocks.reserved += grown
        blocks.fit()
        blocks.reserved -= grown
        if blocks.gone:
            self.stored.append(Removed([engine_hash(key) for key in blocks.gone]))
            blocks.gone.clear()

    def keep(self, job: Job, *, publish: bool) -> None:
        """The prompt's KV is here: its full blocks get their keys."""
        blocks, keys = self.blocks, job.keys
        if publish:
            self._store(job)
        blocks.reserved -= job.reserved
        job.reserved = 0
        blocks.hold(keys[len(job.held) :])
        job.held = keys

    def _store(self, job: Job) -> None:
        used, idle, keys = self.blocks.used, self.blocks.idle, job.keys
        fresh = [
            at
            for at in range(len(job.held), len(keys))
            if keys[at] not in used and keys[at] not in idle
        ]
        self.stored += stored(fresh, keys, job.prompt_ids, self.model.block_tokens)

    # --- what it would do next ---------------------------------------------------------------

    def look(self, seen: Seen) -> None:
        """Adds what the rank would do in the next step."""
        running = len(self.running)
        if running:
            seen.decoding += 1
            seen.total += running
            seen.gained += self.growth
            if running > seen.batch:
                seen.batch = running
            if self.context > seen.context:
                seen.context, seen.growth = self.context, self.growth
        if self.prefills:
            seen.prompting += 1
            tokens, seconds = self._parts(self._budget(running), seen.parts)
            seen.fresh += tokens
            seen.most = max(seen.most, tokens)
            seen.attention_s = max(seen.attention_s, seconds)

    def _budget(self, running: int) -> int:
        """Prompt tokens that it computes in a pass beside so many decodes."""
        chunk = self.model.chunk_tokens
        if self.model.scheduling is Scheduling.PREFILL_FIRST:
            return chunk
        least = min(chunk, self.model.block_tokens)
        return max(chunk - running * (1 + len(self.model.accepted)), least)

    def _parts(self, budget: int, parts: list[tuple[Job, int]]) -> tuple[int, float]:
        """Adds what it computes of its prompts in this pass; the tokens, and attention's time."""
        left = budget
        tokens, seconds = 0, 0.0
        for job in self.prefills:
            part = min(left, job.compute_tokens - job.done_tokens)
            seconds += self.model.passes.attention_s(part, job.done_tokens, job.done_tokens)
            parts.append((job, part))
            tokens += part
            left -= part
            if not left:
                break
        return tokens, seconds

    # --- decoding ----------------------------------------------------------------------------

    def join(self, job: Job, step: int) -> None:
        """Decodes from this step on; `job.emitted` and `job.per_step` are set."""
        self.advance(step)
        job.stage, job.from_step = Stage.DECODE, step
        self.running[job] = None
        self.context += job.prompt_tokens + job.emitted
        self.keyed += len(job.held) * self.model.block_tokens
        self.growth += job.per_step

    def leave(self, job: Job, step: int) -> None:
        """Decodes no more, and gives its blocks back; `job.emitted` is brought up to date."""
        self.advance(step)
        del self.running[job]
        drawn = job.per_step * (step - job.from_step)
        self.context -= job.prompt_tokens + job.emitted + drawn
        self.keyed -= len(job.held) * self.model.block_tokens
        self.growth -= job.per_step
        if not self.running:
            self.context = self.growth = 0.0  # sums of fractions do not add up to nothing
        job.emitted = min(job.output_tokens, job.emitted + int(drawn + _ALMOST))
        self.release(job)

    def release(self, job: Job) -> None:
        """The job's blocks are nobody's any more, or others'."""
        self.blocks.release(job.held)
        self.blocks.reserved -= job.reserved
        self.promised -= job.promised
        job.held, job.reserved, job.promised = (), 0, 0

    def preempt(self, step: int) -> Job:
        """Sends the one that came last back to the front of the queue, to be computed again."""
        if self.running and (len(self.running) > 1 or not self.prefills):
            job = next(reversed(self.running))
            self.leave(job, step)
        else:
            job = self.prefills.pop()
            self.release(job)
        job.stage, job.done_tokens = Stage.WAITING, 0
        job.compute_tokens = job.prompt_tokens + job.emitted
        self.waiting.appendleft(job)
        return job

    # --- what must be true -------------------------------------------------------------------

    def fault(self) -> str:
        """What is wrong with the rank, in a sentence, or ""."""
        blocks = self.blocks
        if blocks.reserved < 0:
            return f"rank {self.index} has given back more blocks than it had"
        if len(blocks.used) + blocks.reserved > blocks.capacity:
            return f"rank {self.index} holds more blocks than it has"
        if self.busy > self.model.sequences_max:
            return f"rank {self.index} runs more than {self.model.sequences_max} sequences"
        if self.running and self.room_tokens() < -_SLACK * self.model.block_tokens:
            return f"rank {self.index} has decodes without room for their KV"
        if (blocks.used or blocks.reserved) and not (
            self.running or self.prefills or self.apart or self.held
        ):
            return (
                f"rank {self.index} is at rest and {len(blocks.used)} blocks are used, "
                f"{blocks.reserved} reserved"
            )
        return ""


_SLACK = 1.0  # blocks: a step that is under way has grown what the next look makes room for
