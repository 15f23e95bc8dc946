"""An engine without a model: recites in scripted time and with scripted faults.

One step clock for the whole engine, as with continuous batching: a step gives each running request
one token. It lets requests in up to `max_running` and its KV blocks; the others wait in order.
"""

import asyncio
import random
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.core import EngineStartError
from orchestrator.engines.engine import (
    LOGPROBS_MAX,
    End,
    EngineInfo,
    EngineLoad,
    Finish,
    KvParams,
    KvSource,
    Listener,
    Submit,
)
from orchestrator.engines.fake_faults import foreign, shown, step_s, told
from orchestrator.engines.fake_kv_events import FakeKvEvents
from orchestrator.engines.fake_prefix import PrefixMemory
from orchestrator.engines.fake_script import (
    END_OF_SENTENCE,
    VOCABULARY,
    FakeEngineSpec,
    fake_logprob,
    grammar_fault,
    recital,
    within_budget,
)
from orchestrator.engines.fake_transfer import FakeKvStore
from orchestrator.engines.kv_reference import kv_fault
from orchestrator.engines.vitals import vitals_of
from orchestrator.fleet.doctor import SilentFault, Vitals

# The ids that a model would draw for a submit, up to the end of sentence; a function of nothing but
# the submit, whose prompt may end in ids that were drawn already.
Author = Callable[[Submit], Sequence[int]]

_BLOCKED_S = 0.01  # until the next look, if nothing runs and nothing can be let in


@dataclass(slots=True)
class _Request:
    submit: Submit
    cycle: tuple[int, ...]  # what it recites, round and round
    at: int  # index of the next token
    tokens_max: int
    blocks: int
    fails_after: int | None  # tokens
    cached_tokens: int = 0
    tokens: int = 0
    aborted: bool = False


class FakeEngine:
    """Implements `Engine`; the same submits in the same order give the same tokens.

    It keeps thinking budgets unless it is told not to. Only what its author writes keeps to
    grammars; penalties and temperatures change nothing.
    """

    def __init__(
        self,
        spec: FakeEngineSpec | None = None,
        engine_id: str = "fake",
        author: Author | None = None,
    ) -> None:
        """`engine_id` names this engine in the KV parameters it gives out. Without an author it
        recites what `spec` says.
        """
        self._spec = spec or FakeEngineSpec()
        self._engine_id = engine_id
        self._author = author
        self._prefixes = PrefixMemory(self._spec.prefix_blocks, self._spec.block_size)
        self._failing = random.Random(f"{self._spec.seed}/fail_requests")
        self._faults = frozenset(self._spec.faults)
        self._step_s = step_s(self._spec)
        self._events: FakeKvEvents | None = None
        self._moved_tokens = 0  # of prompts, whose KV was pulled
        self._drafts = 0
        self._accepted_tokens = 0
        self._kept_blocks = 0  # handed over and never freed
        self._listener: Listener | None = None
        self._store: FakeKvStore | None = None
        self._open: dict[str, _Request] = {}
        self._waiting: deque[_Request] = deque()
        self._running: dict[str, _Request] = {}
        self._stepping: asyncio.Handle | None = None
        self._due = 0.0  # by the loop's clock: when the step under way is to end, or the last was
        self._steps = 0
        self._prompt_tokens = 0
        self._tokens = 0
        self._ends = dict.fromkeys(Finish, 0)
        self._failure: str | None = None
        self._stopped = False

    async def start(self, listener: Listener) -> EngineInfo:
        spec = self._spec
        await asyncio.sleep(spec.start_s)
        if spec.refuse_start:
            raise EngineStartError(spec.refuse_start, "start it without refuse_start")
        self._store = FakeKvStore(self._engine_id, spec.kv_hold_s, spec.kv_pull_s)
        await self._store.open(spec.kv_host)
        if spec.kv_events:
            self._events = FakeKvEvents(spec.block_size, spec.kv_host, self._faults)
        self._listener = listener
        info = EngineInfo(
            engine="fake 1",
            model=spec.model,
            max_model_len=spec.max_model_len,
            block_size=spec.block_size,
            kv_blocks=spec.kv_blocks,
            grammar=spec.grammar,
            kv_peer=self._store.peer(),
            kv_events=None if self._events is None else self._events.source,
        )
        return told(info, spec)

    def submit(self, submit: Submit) -> None:
        assert self._store is not None, "start it first"
        assert submit.request_id not in self._open, "the id of a running request"
        spec = self._spec
        cycle, at = self._script(submit)
        tokens_max = min(submit.sampling.max_tokens, spec.max_model_len - len(submit.prompt_ids))
        if submit.kv_source is KvSource.PRODUCE:
            tokens_max = min(tokens_max, 1)
        blocks = -(-(len(submit.prompt_ids) + tokens_max) // spec.block_size)
        failing, fails_after = self._failing.random(), self._failing.randrange(4)
        if SilentFault.FAILS_ALL in self._faults:
            failing, fails_after = -1.0, 0
        request = _Request(
            submit=submit,
            cycle=cycle,
            at=at,
            tokens_max=tokens_max,
            blocks=blocks,
            fails_after=fails_after if failing < spec.fail_requests else None,
        )
        self._open[submit.request_id] = request
        end = self._objection(request)
        if end is not None:
            asyncio.get_running_loop().call_soon(self._end, request, end)
        elif submit.kv_source is KvSource.TRANSFER:
            request.cached_tokens = self._store.pull(
                submit, lambda cause: self._pulled(request, cause)
            )
            self._step_soon()
        else:
            self._waiting.append(request)
            self._step_soon()

    def abort(self, request_id: str) -> None:
        request = self._open.get(request_id)
        if request is not None and SilentFault.KEEPS_CANCELLED not in self._faults:
            request.aborted = True
            self._step_soon()

    def load(self) -> EngineLoad:
        held = 0 if self._store is None else self._store.held_blocks()
        used = self._kept_blocks + held + sum(request.blocks for request in self._running.values())
        return EngineLoad(
            running=len(self._running),
            waiting=len(self._open) - len(self._running),
            kv_usage=min(1.0, used / self._spec.kv_blocks),
            steps=self._steps,
        )

    def failure(self) -> str | None:
        return self._failure

    def look(self) -> Vitals:
        """How it and this machine do, with its faults."""
        vitals = vitals_of(self.load(), self._failure, self.metrics(), (tempfile.gettempdir(),))
        return shown(vitals, self._spec)

    def metrics(self) -> bytes:
        load = self.load()
        label = f'{{engine="0",model_name="{self._spec.model}"}}'
        families = [  # vLLM's names, so that the same dashboards show both
            ("num_requests_running", "gauge", load.running),
            ("num_requests_waiting", "gauge", load.waiting),
            ("kv_cache_usage_perc", "gauge", load.kv_usage),
            ("prompt_tokens_total", "counter", self._prompt_tokens),
            ("generation_tokens_total", "counter", self._tokens),
        ]
        if self._spec.draft_tokens:
            families += [
                ("spec_decode_num_drafts_total", "counter", self._drafts),
                ("spec_decode_num_accepted_tokens_total", "counter", self._accepted_tokens),
            ]
        lines: list[str] = []
        for name, kind, value in families:
            lines += [f"# TYPE vllm:{name} {kind}", f"vllm:{name}{label} {value}"]
        lines.append("# TYPE vllm:prompt_tokens_by_source_total counter")
        for source, count in (
            ("local_compute", self._prompt_tokens),
            ("external_kv_transfer", self._moved_tokens),
        ):
            labels = f'{{engine="0",model_name="{self._spec.model}",source="{source}"}}'
            lines.append(f"vllm:prompt_tokens_by_source_total{labels} {count}")
        lines.append("# TYPE vllm:request_success_total counter")
        for finish, count in self._ends.items():
            labels = f'{{engine="0",finished_reason="{finish}",model_name="{self._spec.model}"}}'
            lines.append(f"vllm:request_success_total{labels} {count}")
        return ("\n".join(lines) + "\n").encode()

    async def stop(self) -> None:
        self._stopped = True
        self._halt()
        for request in list(self._open.values()):
            self._end(request, End(Finish.ABORTED))
        if self._store is not None:
            self._store.close()
        if self._events is not None:
            self._events.close()

    def _script(self, submit: Submit) -> tuple[tuple[int, ...], int]:
        """What is drawn in turn, round and round, and the index of the first one."""
        ignores = self._spec.ignores_budgets or SilentFault.IGNORES_BUDGETS in self._faults
        budget = None if ignores else submit.sampling.thinking_budget
        if self._author is None:
            cycle, at = recital(self._spec, tuple(submit.prompt_ids))
            if budget is None:
                return cycle, at
            script: Sequence[int] = cycle[at:]
        elif grammar_fault(submit.sampling, able=self._spec.grammar):
            return (END_OF_SENTENCE,), 0  # it will be refused
        else:
            script = self._author(submit)
            assert script, "an author writes at least the end of sentence"
        return within_budget(script, tuple(submit.prompt_ids), budget), 0

    def _objection(self, request: _Request) -> End | None:
        """Why a request cannot even wait, or None."""
        spec, submit = self._spec, request.submit
        ids = submit.prompt_ids
        if self._failure is not None or self._stopped:
            return End(Finish.FAILED, cause=self._failure or "the engine has stopped")
        if not ids or max(ids) >= VOCABULARY:
            return End(Finish.REFUSED, cause="the prompt is empty or has unknown token ids")
        if submit.sampling.max_tokens < 1:
            return End(Finish.REFUSED, cause="max_tokens must be at least 1")
        if not 0 <= (submit.sampling.logprobs or 0) <= LOGPROBS_MAX:
            return End(Finish.REFUSED, cause=f"logprobs must be at most {LOGPROBS_MAX}")
        if fault := grammar_fault(submit.sampling, able=spec.grammar):
            return End(Finish.REFUSED, cause=fault)
        if len(ids) >= spec.max_model_len:
            cause = f"a prompt of {len(ids)} tokens; the limit is {spec.max_model_len - 1}"
            return End(Finish.REFUSED, cause=cause)
        if request.blocks > spec.kv_blocks:
            cause = f"it needs {request.blocks} KV blocks; there are {spec.kv_blocks}"
            return End(Finish.REFUSED, cause=cause)
        if fault := kv_fault(submit):
            return End(Finish.REFUSED, cause=fault)
        if len(self._open) - len(self._running) > spec.max_waiting:
            return End(Finish.FAILED, cause=f"{spec.max_waiting} requests are waiting already")
        return None

    def _pulled(self, request: _Request, cause: str) -> None:
        if request.submit.request_id not in self._open or self._failure is not None:
            return
        if cause:
            self._end(request, End(Finish.FAILED, cause=f"KV transfer: {cause}"))
        else:
            if SilentFault.DECODE_RECOMPUTES in self._faults:
                request.cached_tokens = 0
            if SilentFault.FOREIGN_KV in self._faults:
                request.cycle = foreign(request.cycle)
            self._moved_tokens += request.cached_tokens
            self._waiting.append(request)
            self._step_soon()

    def _step_soon(self, since: float | None = None) -> None:
        """Begins a step unless one is under way: now, or as if it had begun at such a time."""
        if self._stepping is not None or self._stopped or not self._alive():
            return
        loop = asyncio.get_running_loop()
        prefill_tokens = self._let_in()
        self._prompt_tokens += prefill_tokens
        step_s = self._step_s + prefill_tokens * self._spec.prefill_s_per_token
        if not self._running:
            step_s = max(step_s, _BLOCKED_S)
        self._due = (loop.time() if since is None else since) + step_s
        self._stepping = (
            loop.call_at(self._due, self._step) if step_s > 0 else loop.call_soon(self._step)
        )

    def _let_in(self) -> int:
        """Lets waiting requests run, in order; returns the prompt tokens to prefill for them."""
        assert self._store is not None
        prefill_tokens = 0
        free = self._spec.kv_blocks - self._store.held_blocks()
        free -= sum(request.blocks for request in self._running.values())
        while self._waiting and len(self._running) < self._spec.max_running:
            request = self._waiting[0]
            if request.submit.request_id in self._open:  # it may have been aborted
                if request.blocks > free:
                    break
                free -= request.blocks
                self._running[request.submit.request_id] = request
                self._recall(request)
                prefill_tokens += len(request.submit.prompt_ids) - request.cached_tokens
            self._waiting.popleft()
        return prefill_tokens

    def _recall(self, request: _Request) -> None:
        submit = request.submit
        salt = "" if SilentFault.SHARES_SALTS in self._faults else submit.cache_salt
        finds = SilentFault.NO_PREFIX_CACHE not in self._faults
        if submit.kv_source is not KvSource.TRANSFER and finds:
            request.cached_tokens = self._prefixes.hit(salt, submit.prompt_ids)
        learnt = self._prefixes.learn(salt, submit.prompt_ids)
        if self._events is not None:
            if learnt.cleared:
                self._events.cleared()
            self._events.stored(submit.cache_salt, submit.prompt_ids, learnt.first)

    def _step(self) -> None:
        self._stepping = None
        self._steps += 1
        for request in [request for request in self._open.values() if request.aborted]:
            self._end(request, End(Finish.ABORTED, request.cached_tokens))
        for request in list(self._running.values()):
            if self._alive():
                self._advance(request)
        if self._alive() and self._open:
            # A host works beside its GPU: what it took to hand on these tokens does not lengthen
            # the next step. What it took beyond a step is lost.
            self._step_soon(max(self._due, asyncio.get_running_loop().time() - self._step_s))

    def _advance(self, request: _Request) -> None:
        """Gives a running request its next token, its end, or both."""
        assert self._listener is not None
        if request.submit.request_id not in self._running:  # a listener stopped us
            return
        if request.fails_after == request.tokens:
            self._end(request, End(Finish.FAILED, cause="a scripted fault"))
            return
        if SilentFault.ANSWERS_NOTHING in self._faults:
            self._end(request, self._finished(request, Finish.STOP))
            return
        token = request.cycle[request.at]
        request.at = (request.at + 1) % len(request.cycle)
        sampling = request.submit.sampling
        if token in sampling.stop_token_ids or (
            token == END_OF_SENTENCE and sampling.grammar is not None
        ):
            self._end(request, self._finished(request, Finish.STOP))
            return
        request.tokens += 1
        self._tokens += 1
        self._draft()
        logprobs = () if sampling.logprobs is None else (fake_logprob(token, sampling.logprobs),)
        self._listener.on_tokens(request.submit.request_id, [token], logprobs)
        if request.tokens >= request.tokens_max:
            self._end(request, self._finished(request, Finish.LENGTH))

    def _draft(self) -> None:
        """Three of four drafts are taken, as far as anybody counts; tokens come one by one."""
        if not self._spec.draft_tokens or SilentFault.NO_DRAFTS in self._faults:
            return
        self._drafts += 1
        if SilentFault.DRAFTS_REJECTED not in self._faults and self._drafts % 4:
            self._accepted_tokens += self._spec.draft_tokens

    def _finished(self, request: _Request, finish: Finish) -> End:
        params: KvParams | None = None
        submit = request.submit
        if submit.kv_source is KvSource.PRODUCE:
            assert self._store is not None
            params = self._store.hold(submit, request.blocks)
            if SilentFault.KEEPS_BLOCKS in self._faults:
                self._kept_blocks += request.blocks
        return End(finish, request.cached_tokens, params)

    def _end(self, request: _Request, end: End) -> None:
        assert self._listener is not None
        request_id = request.submit.request_id
        if self._open.get(request_id) is not request:
            return
        del self._open[request_id]
        self._running.pop(request_id, None)
        self._ends[end.finish] += 1
        self._listener.on_end(request_id, end)

    def _alive(self) -> bool:
        """Whether a step can be taken: neither died nor hangs, by script."""
        spec = self._spec
        if spec.die_after_tokens is not None and self._tokens >= spec.die_after_tokens:
            if self._failure is None:
                self._failure = f"died after {self._tokens} tokens, by its script"
                self._halt()
                for request in list(self._open.values()):
                    self._end(request, End(Finish.FAILED, cause=self._failure))
            return False
        if SilentFault.HANGS in self._faults:
            return False
        return spec.hang_after_tokens is None or self._tokens < spec.hang_after_tokens

    def _halt(self) -> None:
        if self._stepping is not None:
            self._stepping.cancel()
            self._stepping = None
