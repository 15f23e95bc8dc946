"""A gang in virtual time: DP ranks that step together, each with a scheduler of its own.

Every step waits for the slowest rank. Steps between which nothing can change (no prompt under way,
nobody ends, blocks suffice) are one event, however many they are; what comes in between cuts them
at the end of the step that is under way.
"""

import random

from orchestrator.core import Finish, KvSource
from orchestrator.routing import KvBatch
from orchestrator.sim.agenda import Agenda
from orchestrator.sim.gate import Gate
from orchestrator.sim.job import Around, GangModel, Job, Scheduling, Stage
from orchestrator.sim.rank import SimRank
from orchestrator.sim.steps import Drafts, Glide, Marks, Pass, Plan, Seen, due

_ALMOST = 1e-9  # of a step


class Gang:
    """One life of one gang. The same calls and the same stream give the same events."""

    def __init__(
        self,
        engine_id: str,
        model: GangModel,
        agenda: Agenda,
        around: Around,
        chance: random.Random,
        *,
        kv_events: bool,
    ) -> None:
        self.engine_id = engine_id
        self.model = model
        self.ranks = [SimRank(model, index) for index in range(model.ranks)]
        self.step = 0  # decode steps
        self.ticks = 0  # steps of any kind: progress, as a watch sees it
        self.slow = 1.0  # times every step
        self.dead = False
        self.hung = False
        self.preempted = 0
        self._agenda = agenda
        self._around = around
        self._chance = chance
        self._kv_events = kv_events
        self._doing: Glide | Pass | None = None
        self._plan = Plan(agenda)
        self._marks = Marks()
        self._joining: list[Job] = []  # pulled since the last step
        self._aborted: list[Job] = []
        self._stalled_s = 0.0  # since running decodes last gained a token
        self._numbers = 0
        self._gate = Gate(model)
        self._drafts = Drafts(model.accepted)

    # --- what comes from outside ---------------------------------------------------------------

    def submit(self, rank: int, job: Job, now: float) -> None:
        """Starts a job. Whatever goes wrong arrives as its end, never from inside this call."""
        self._numbers += 1
        job.rank, job.number = rank, self._numbers
        job.compute_tokens = job.prompt_tokens
        block = self.model.block_tokens
        blocks = -(-(job.prompt_tokens + job.output_tokens) // block) + 2
        if blocks > self.model.blocks:
            job.stage = Stage.OVER
            cause = f"{job.prompt_tokens} tokens and an answer are more than a rank's KV holds"
            self._agenda.soon(
                lambda: job.outlet.on_end(job, Finish.REFUSED, cause, self._agenda.now)
            )
            return
        self.ranks[rank].waiting.append(job)
        if self.ranks[rank].slots > 0:
            self._wake(now, arrival=True)

    def abort(self, job: Job, now: float) -> None:
        """Ends a job at the end of the step that is under way, or of its transfer."""
        if job.stage in {Stage.OVER, Stage.HELD} or self.dead or not job.number:
            return
        self._aborted.append(job)
        self._wake(now)

    def pulled(self, job: Job, cause: str, now: float) -> None:
        """A pull has ended; `cause` says why it failed, or is empty."""
        if self.dead or job.stage is not Stage.PULLING:
            return
        rank = self.ranks[job.rank]
        if cause or job in self._aborted:
            del rank.apart[job]
            if job in self._aborted:
                self._aborted.remove(job)
            rank.release(job)
            self._end(job, Finish.FAILED if cause else Finish.ABORTED, cause, now)
        else:
            rank.keep(job, publish=self._kv_events)
            job.cached_tokens = job.prompt_tokens
            job.pull = None
            self._joining.append(job)
            self._publish(rank, now)
        self._wake(now)

    def let_go(self, submission: str, now: float) -> None:
        """The KV of a prompt that was held is no longer needed here."""
        for rank in self.ranks:
            job = rank.held.pop(submission, None)
            if job is not None:
                rank.release(job)
                job.stage = Stage.OVER
                if rank.waiting:
                    self._wake(now)

    def hang(self) -> None:
        """Steps no more, and says nothing."""
        self.hung = True
        self._plan.drop()

    def die(self) -> None:
        """Everything in it is lost; nobody is told from here."""
        self.dead = True
        self._plan.drop()
        for rank in self.ranks:
            for job in (*rank.waiting, *rank.prefills, *rank.apart, *rank.running):
                job.stage = Stage.OVER
            rank.waiting.clear()
            rank.prefills.clear()
            rank.apart.clear()
            rank.running.clear()
            rank.held.clear()
            rank.blocks.clear()
        self._marks.clear()
        self._doing = None

    def emitted(self, job: Job) -> int:
        """Tokens of a running job that have been drawn by now."""
        if job.stage is not Stage.DECODE:
            return job.emitted
        step = self.step
        if isinstance(self._doing, Glide):
            step += min(self._doing.done(self._agenda.now), self._doing.steps)
        drawn = int(job.per_step * (step - job.from_step) + _ALMOST)
        return min(job.output_tokens, job.emitted + drawn)

    @property
    def progress(self) -> int:
        """Passes by now, those of a run of equal steps included."""
        doing = self._doing
        if self.hung or not isinstance(doing, Glide):
            return self.ticks
        return self.ticks + min(doing.done(self._agenda.now), doing.steps)

    @property
    def open(self) -> int:
        """Jobs that have not ended."""
        return sum(rank.open for rank in self.ranks)

    # --- steps ---------------------------------------------------------------------------------

    def _wake(self, now: float, *, arrival: bool = False) -> None:
        """Something has changed that the next step should know of, or the next that looks."""
        if self.dead or self.hung:
            return
        doing = self._doing
        if doing is None:
            self._plan.soon(self._start_idle)
        elif isinstance(doing, Glide):
            steps = doing.done(now) + 1
            if arrival:
                steps = self._gate.look_step(self.step + steps) - self.step
            if steps < doing.steps:
                doing.steps = steps
                self._await_glide(doing, now)

    def _start_idle(self) -> None:
        if not self.dead and not self.hung and self._doing is None:
            self._gate.look_now(self.step)
            self._start(self._agenda.now)

    def _await_glide(self, glide: Glide, now: float) -> None:
        ends_at = max(now, glide.began_at + glide.lasts_s(glide.steps))
        self._plan.at(ends_at, lambda when: self._glided(glide, when))

    def _glided(self, glide: Glide, now: float) -> None:
        self._doing = None
        self.step += glide.steps
        self.ticks += glide.steps
        tokens = round(glide.gained * glide.steps)
        fresh = glide.steps - glide.told
        if fresh:
            gap_s = (now - glide.began_at) / glide.steps
            gained = round(glide.gained * fresh)
            self._around.gaps(self, gap_s, glide.batch * fresh, gained)
        self._around.stepped(self, glide.began_at, now, tokens)
        self._look(now)
        self._start(now)

    def _start(self, now: float) -> None:
        """Plans what comes next and begins it."""
        if self.dead:  # what was told last has killed it
            return
        self._plan.drop()
        if self._aborted:
            self._end_aborted(now)
        if self._joining:
            for job in self._joining:
                del self.ranks[job.rank].apart[job]
                self._join(job, now)
            self._joining.clear()
        if not any(rank.running or rank.prefills for rank in self.ranks):
            self._gate.look_now(self.step)
        self._gate.receive(self.step, self._numbers)
        seen = Seen()
        for rank in self.ranks:
            self._look_at(rank, seen, now)
        if seen.parts:
            kept = self._gate.keeps(self.step, seen.prompting, seen.decoding)
            if kept:
                self._begin_glide(seen, kept, now)
            else:
                self._begin_pass(seen, now)
        elif seen.total:
            self._begin_glide(seen, seen.room, now)

    def _look_at(self, rank: SimRank, seen: Seen, now: float) -> None:
        """What the rank would do next."""
        if rank.at_step != self.step:
            rank.advance(self.step)
        if rank.running:
            self._make_room(rank, seen)
        if rank.waiting:
            self._take_up(rank, now)
        rank.look(seen)

    def _make_room(self, rank: SimRank, seen: Seen) -> None:
        steps = rank.room_steps()
        while steps < 1 and rank.busy > 1:
            rank.preempt(self.step)
            self.preempted += 1
            steps = rank.room_steps() if rank.running else seen.room
        if steps < seen.room:
            seen.room = max(steps, 1)

    def _begin_pass(self, seen: Seen, now: float) -> None:
        passes, stages = self.model.passes, self.model.stages
        alone_s = self.slow * passes.prefill_s(seen.most, seen.fresh, seen.attention_s)
        each_s = alone_s / stages  # the next may follow into the first stage
        decodes = seen.total > 0 and self.model.scheduling is Scheduling.MIXED
        decode_s = 0.0
        if decodes:
            decode_s = self.slow * passes.decode_s(seen.batch, seen.total, seen.context)
        doing = Pass(now, seen.parts, decodes, alone_s - each_s, seen.gained, seen.total)
        self._doing = doing
        self._plan.at(now + each_s + decode_s, lambda when: self._passed(doing, when))

    def _passed(self, done: Pass, now: float) -> None:
        self._doing = None
        self.ticks += 1
        tokens = 0
        if done.decodes:
            self.step += 1
            tokens = round(done.gained)
            gap_s = now - done.began_at + self._stalled_s
            self._around.gaps(self, gap_s, done.batch, tokens)
            self._stalled_s = 0.0
        elif any(rank.running for rank in self.ranks):
            self._stalled_s += now - done.began_at
        self._around.stepped(self, done.began_at, now, tokens)
        if done.decodes:
            self._look(now)
        self._gate.look_now(self.step)
        for job, part in done.parts:
            if job.stage is not Stage.PREFILL:
                continue  # preempted by what was planned since
            job.done_tokens += part
            if job.poison:
                self._around.poisoned(self, job, now)
                return
            if job.done_tokens >= job.compute_tokens:
                self._computed(job, done.through_s, now)
        self._start(now)

    def _begin_glide(self, seen: Seen, most: int, now: float) -> None:
        steps = min(self._marks.next_step() - self.step, seen.room, most)
        if self._numbers > self._gate.received:
            steps = min(steps, self._gate.look_step(self.step + 1) - self.step)
        passes = self.model.passes
        first_s = self.slow * passes.decode_s(seen.batch, seen.total, seen.context)
        more_s = 0.0
        if steps > 1:
            last_s = self.slow * passes.decode_s(
                seen.batch, seen.total, seen.context + seen.growth * (steps - 1)
            )
            more_s = (last_s - first_s) / (steps - 1)
        told = 0
        if self._stalled_s:
            gap_s = first_s + self._stalled_s
            self._around.gaps(self, gap_s, seen.total, round(seen.gained))
            self._stalled_s, told = 0.0, 1
        glide = Glide(now, first_s, max(more_s, 0.0), steps, seen.gained, told, seen.total)
        self._doing = glide
        self._await_glide(glide, now)

    # --- jobs ----------------------------------------------------------------------------------

    def _take_up(self, rank: SimRank, now: float) -> None:
        received = self._gate.received
        while rank.waiting and rank.slots > 0 and rank.waiting[0].number <= received:
            job = rank.take_up()
            if job is None:
                break
            if job.pull is not None:
                job.stage = Stage.PULLING
                rank.apart[job] = None
                self._around.pull(self, job, now)
            else:
                job.stage = Stage.PREFILL
                rank.prefills.append(job)
        self._publish(rank, now)

    def _computed(self, job: Job, through_s: float, now: float) -> None:
        """The last part of the prompt is computed."""
        rank = self.ranks[job.rank]
        rank.prefills.remove(job)
        if not through_s:
            self._first_token(job, now)
            return
        rank.apart[job] = None

        def through(when: float) -> None:
            if not self.dead and not self.hung and rank.apart.pop(job, True) is None:
                self._first_token(job, when)
                self._wake(when)

        self._agenda.at(now + through_s, through)

    def _first_token(self, job: Job, now: float) -> None:
        rank = self.ranks[job.rank]
        rank.keep(job, publish=self._kv_events)
        self._publish(rank, now)
        job.emitted += 1  # of a job that was preempted, the next
        if job in self._aborted:
            self._aborted.remove(job)
            rank.release(job)
            self._end(job, Finish.ABORTED, "", now)
            return
        if not job.told_first:
            job.told_first = True
            job.outlet.on_first(job, now)
        if job.source is KvSource.PRODUCE:
            self._hold(rank, job, now)
        elif job.emitted >= job.output_tokens:
            rank.release(job)
            self._end(job, job.finish, "", now)
        else:
            self._join(job, now)

    def _hold(self, rank: SimRank, job: Job, now: float) -> None:
        """Its KV stays until somebody has pulled it, or nobody has for too long."""
        # the part of a block behind the last full one, if there is one
        job.reserved = int(job.prompt_tokens % self.model.block_tokens > 0)
        rank.blocks.reserved += job.reserved
        job.stage = Stage.HELD
        rank.held[job.submission] = job
        self._agenda.at(now + self.model.kv_hold_s, lambda when: self._lapse(job, when))
        job.outlet.on_end(job, Finish.LENGTH, "", now)

    def _lapse(self, job: Job, now: float) -> None:
        if not self.dead and job.stage is Stage.HELD:
            self.let_go(job.submission, now)

    def _join(self, job: Job, now: float) -> None:
        left = job.output_tokens - job.emitted
        steps = self._steps(left)
        job.per_step = left / steps
        self.ranks[job.rank].join(job, self.step)
        self._marks.add(job, self.step + (steps if job.told_first else 1))

    def _steps(self, tokens: int) -> int:
        """Steps in which a sequence gains so many tokens: chance decides which drafts hold."""
        drafts = self._drafts
        if drafts.mean == 1.0:
            return tokens
        return drafts.steps(tokens, self._chance.gauss(tokens / drafts.mean, drafts.spread(tokens)))

    def _look(self, now: float) -> None:
        """Tells of first tokens and ends that the last step has brought."""
        while not self.dead and (job := self._marks.pop(self.step)) is not None:
            if not job.told_first:
                job.told_first = True
                last = due(job)
                job.outlet.on_first(job, now)
                if self.dead:
                    return
                if last > self.step:
                    self._marks.add(job, last)
                    continue
            rank = self.ranks[job.rank]
            rank.leave(job, self.step)
            job.emitted = job.output_tokens
            self._end(job, job.finish, "", now)

    def _end(self, job: Job, finish: Finish, cause: str, now: float) -> None:
        job.stage = Stage.OVER
        job.outlet.on_end(job, finish, cause, now)

    def _end_aborted(self, now: float) -> None:
        later: list[Job] = []
        for job in self._aborted:
            rank = self.ranks[job.rank]
            match job.stage:
                case Stage.WAITING:
                    rank.waiting.remove(job)
                case Stage.PREFILL if job in rank.prefills:
                    rank.prefills.remove(job)
                    rank.release(job)
                case Stage.PULLING | Stage.PREFILL:
                    if job not in self._joining:
                        later.append(job)  # its blocks are being written
                        continue
                    self._joining.remove(job)
                    del rank.apart[job]
                    rank.release(job)
                case Stage.DECODE:
                    rank.leave(job, self.step)
                case _:
                    continue
            self._end(job, Finish.ABORTED, "", now)
        self._aborted = later

    def _publish(self, rank: SimRank, now: float) -> None:
        if not rank.stored:
            return
        if self._kv_events:
            batch = KvBatch(rank.sequence, now, tuple(rank.stored))
            rank.sequence += 1
            self._around.publish(self, rank.index, batch, now)
        rank.stored.clear()

    # --- what must be true ---------------------------------------------------------------------

    def fault(self) -> str:
        """What is wrong with the gang, in a sentence, or ""."""
        if self.dead or self.hung:
            return ""
        for rank in self.ranks:
            if found := rank.fault():
                return f"{self.engine_id}: {found}"
        if self._doing is None:
            for rank in self.ranks:
                if rank.running or rank.prefills:
                    return f"{self.engine_id}: rank {rank.index} has work, and nothing runs"
                if rank.waiting and not rank.held and not rank.apart:
                    return f"{self.engine_id}: rank {rank.index} lets work wait, and nothing runs"
        return ""
