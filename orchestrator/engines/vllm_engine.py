"""vLLM behind the `Engine` protocol: token ids in, token ids out; nothing is detokenised here.

The engine core and the workers are processes of vLLM's; this one only feeds them. Importing this
module imports vLLM, which takes seconds.
"""

import asyncio
import multiprocessing
import os
import socket
import tempfile
import threading
import urllib.request
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NoReturn, TypeVar, cast

import msgspec
import vllm
import vllm.envs
from prometheus_client import generate_latest
from typing_extensions import override
from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMClientError
from vllm.inputs.engine import tokens_input
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core.kv_cache_utils import resolve_none_hash_seed
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.prometheus import get_prometheus_registry
from vllm.v1.metrics.stats import SchedulerStats

from orchestrator.core import EngineStartError, Finish, KvParams, KvSource
from orchestrator.engines.command import bracketed
from orchestrator.engines.engine import (
    End,
    EngineInfo,
    EngineLoad,
    KvEventSource,
    Listener,
    Submit,
)
from orchestrator.engines.kv_connector import MOONCAKE
from orchestrator.engines.kv_reference import reference_fault
from orchestrator.engines.start_phases import phase_of
from orchestrator.engines.stderr_tail import StderrTail
from orchestrator.engines.vitals import vitals_of
from orchestrator.engines.vllm_requests import (
    grammar_fault,
    prompt_fault,
    sampling_params,
    token_logprobs,
)
from orchestrator.fleet.doctor import Features, Vitals

_GRAMMAR_BACKEND = "xgrammar"  # whose structural tags `GrammarKind` means
SUPPORTED_VLLM = ("0.32",)  # releases whose interfaces this file was checked against
Worked = TypeVar("Worked")

_START_CURE = "the engine's log above says more"
_CURES = (  # what a cause contains, in lower case, and what helps
    ("mooncake is not available", "install mooncake-transfer-engine and the package libibverbs1"),
    ("memory", "lower gpu-memory-utilization or kv-cache-memory-bytes, or max_model_len"),
    ("address already in use", "another process owns the port: stop it or choose another"),
    ("divisible", "change the parallel sizes of the pool"),
)
REGISTRY_S = 30.0  # Mooncake's workers have registered before vLLM says that it is ready
_FINISHES = {"stop": Finish.STOP, "length": Finish.LENGTH, "abort": Finish.ABORTED}


class _Registered(msgspec.Struct):
    """One rank in the registry of Mooncake's workers."""

    engine_id: str


class VllmEngine:
    """Implements `Engine` on vLLM's `AsyncLLM`.

    `flags` are vLLM's own, as `vllm serve` takes them, but for those of its HTTP server. One per
    process: vLLM's metrics are global, and stderr is watched for the reasons of failures.
    `on_phase` is told, on any thread, what the start is at.
    """

    def __init__(
        self, flags: tuple[str, ...], on_phase: Callable[[str], None] | None = None
    ) -> None:
        self._flags = flags
        self._on_phase = on_phase
        self._llm: AsyncLLM | None = None
        self._tail: StderrTail | None = None
        self._listener: Listener | None = None
        self._load = EngineLoad(running=0, waiting=0, kv_usage=0.0, steps=0)
        self._vocabulary = 0
        self._block_size = 1
        self._grammar = False
        self._tasks: dict[str, asyncio.Task[End]] = {}

    async def start(self, listener: Listener) -> EngineInfo:
        self._listener = listener
        self._tail = _watched_stderr(self._on_phase)
        try:
            llm = await _in_thread(self._build)
        except BaseException:
            _end_children()
            self._tail.close()
            raise
        self._tail.forget()  # warnings of a start that went well explain nothing later
        self._llm = llm
        config = llm.vllm_config
        self._vocabulary = config.model_config.get_vocab_size()
        self._block_size = config.cache_config.block_size
        self._grammar = not config.model_config.skip_tokenizer_init
        return EngineInfo(
            engine=f"vllm {vllm.__version__}",
            model=_served_name(config.model_config.served_model_name),
            max_model_len=config.model_config.max_model_len,
            block_size=self._block_size,
            kv_blocks=config.cache_config.num_gpu_blocks,
            grammar=self._grammar,
            kv_events=_kv_event_source(llm),
            kv_peer=await _in_thread(partial(_kv_peer, config)),
            features=_features(config),
        )

    def submit(self, submit: Submit) -> None:
        assert self._llm is not None, "start it first"
        assert submit.request_id not in self._tasks, "the id of a running request"
        # Its result and its exception are read in `_ended`; a group would end with the first.
        task = asyncio.get_running_loop().create_task(self._generate(self._llm, submit))
        self._tasks[submit.request_id] = task
        task.add_done_callback(partial(self._ended, submit.request_id))

    def abort(self, request_id: str) -> None:
        task = self._tasks.get(request_id)
        if task is not None:
            task.cancel()

    def load(self) -> EngineLoad:
        seen = self._load
        unseen = len(self._tasks) - seen.running - seen.waiting
        # What came after the last step waits, and in an engine that is stuck there is no next one.
        return seen if unseen <= 0 else msgspec.structs.replace(seen, waiting=seen.waiting + unseen)

    def failure(self) -> str | None:
        if self._llm is None or not self._llm.errored:
            return None
        reason = self._tail.reason() if self._tail is not None else None
        return f"vLLM's engine core died: {reason or 'a process of it was ended from outside'}"

    def look(self) -> Vitals:
        """How it and its node do."""
        folders = (tempfile.gettempdir(), os.getcwd())
        return vitals_of(self.load(), self.failure(), self.metrics(), folders)

    def metrics(self) -> bytes:
        text: bytes = generate_latest(get_prometheus_registry())
        return text

    async def stop(self) -> None:
        if self.failure() is not None:
            _end_children(BaseProcess.kill)  # they would wait for the dead
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        llm, self._llm = self._llm, None
        if llm is not None:
            await _in_thread(llm.shutdown)
        if self._tail is not None:
            self._tail.close()

    def _build(self) -> AsyncLLM:
        """Blocks until the weights are loaded, for minutes with large ones."""
        config = engine_config(self._flags, headless=False)
        _check_kv_port(config)
        try:
            return AsyncLLM.from_vllm_config(config, stat_loggers=[self._step_logger()])
        except Exception as error:  # whatever its children died of arrives as RuntimeError
            assert self._tail is not None
            raise _start_error(error, self._tail) from error

    def _step_logger(self) -> type[StatLoggerBase]:
        """vLLM makes an instance itself, so the class is what knows its engine."""
        engine = self

        class StepLogger(StatLoggerBase):  # type: ignore[misc]  # untyped
            @override
            def __init__(self, vllm_config: object, engine_index: int = 0) -> None:
                pass

            @override
            def record(
                self,
                scheduler_stats: SchedulerStats | None,
                iteration_stats: object,
                mm_cache_stats: object = None,
                engine_idx: int = 0,
            ) -> None:
                if scheduler_stats is not None:
                    engine._stepped(scheduler_stats)

            @override
            def log_engine_initialized(self) -> None:
                pass

        return StepLogger

    def _stepped(self, stats: SchedulerStats) -> None:
        self._load = EngineLoad(
            running=stats.num_running_reqs,
            waiting=stats.num_waiting_reqs + stats.num_skipped_waiting_reqs,
            kv_usage=stats.kv_cache_usage,
            steps=self._load.steps + 1,
        )

    async def _generate(self, llm: AsyncLLM, submit: Submit) -> End:
        """One request; cancelling it aborts the generation in the engine core."""
        assert self._listener is not None
        fault = prompt_fault(submit.prompt_ids, self._vocabulary)
        if fault := fault or grammar_fault(submit, self._grammar):
            return End(Finish.REFUSED, cause=fault)
        if submit.kv_params is not None and (
            fault := reference_fault(submit.kv_params, len(submit.prompt_ids), self._block_size)
        ):
            return End(Finish.FAILED, cause=fault)
        prompt = tokens_input(submit.prompt_ids.tolist(), cache_salt=submit.cache_salt or None)
        params = sampling_params(submit)
        kv_params: KvParams | None = None
        begun = False
        trace = {"traceparent": submit.traceparent} if submit.traceparent else None
        async for output in llm.generate(prompt, params, submit.request_id, trace_headers=trace):
            completion = output.outputs[0]
            ids = list(completion.token_ids)
            kv_params = output.kv_transfer_params or kv_params
            if (
                completion.finish_reason == "stop"
                and ids
                and ids[-1] in submit.sampling.stop_token_ids
            ):
                ids.pop()
            if ids:
                logprobs = token_logprobs(completion.logprobs, len(ids), params.logprobs)
                self._listener.on_tokens(submit.request_id, ids, logprobs)
                begun = True
            if completion.finish_reason == "error" and not begun and _may_not_compile(submit):
                return End(Finish.REFUSED, cause="vLLM cannot compile the grammar")
            if completion.finish_reason is not None:
                return _end(submit, completion.finish_reason, output.num_cached_tokens, kv_params)
        return End(Finish.FAILED, cause="vLLM ended the output without a reason")

    def _ended(self, request_id: str, task: asyncio.Task[End]) -> None:
        assert self._listener is not None
        del self._tasks[request_id]
        if task.cancelled():
            end = End(Finish.ABORTED)
        elif (error := task.exception()) is not None:
            end = self._error_end(error)
        else:
            end = task.result()
        self._listener.on_end(request_id, end)

    def _error_end(self, error: BaseException) -> End:
        match error:
            case VLLMClientError():
                return End(Finish.REFUSED, cause=one_line(str(error)))
            case EngineDeadError():
                return End(Finish.FAILED, cause=self.failure() or "vLLM's engine core died")
            case _:
                cause = f"{error.__cause__ or error} ({type(error).__name__})"
                return End(Finish.FAILED, cause=one_line(cause))


async def run_headless(
    flags: tuple[str, ...], on_phase: Callable[[str], None] | None = None
) -> None:
    """The workers of a node rank above 0; returns when one of them ends. Cancel it to end them.

    They do not notice that node 0 has gone: whoever runs the gang must end them.
    """
    tail = _watched_stderr(on_phase)
    try:
        executor = await _in_thread(lambda: _headless_executor(flags, tail))
        try:
            await _first_end([worker.proc for worker in executor.workers])
            cause = tail.reason() or "a worker was ended from outside"
            raise EngineStartError(f"a headless worker ended: {cause}", _START_CURE)
        finally:
            for worker in executor.workers:
                worker.proc.kill()  # it has nothing to save, and takes 9 s to end when asked
            executor.shutdown()
    finally:
        _end_children()
        tail.close()


def _watched_stderr(on_phase: Callable[[str], None] | None) -> StderrTail:
    known = ""

    def read(line: str) -> None:
        nonlocal known
        phase = phase_of(line)
        if on_phase is not None and phase is not None and phase != known:
            known = phase
            on_phase(phase)

    return StderrTail(read)


def _headless_executor(flags: tuple[str, ...], tail: StderrTail) -> MultiprocExecutor:
    config = engine_config(flags, headless=True)
    try:
        return MultiprocExecutor(config, monitor_workers=False)
    except Exception as error:  # whatever its children died of arrives as RuntimeError
        raise _start_error(error, tail) from error


async def _first_end(processes: list[BaseProcess]) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for process in processes:
        loop.add_reader(process.sentinel, ended.set)
    try:
        await ended.wait()
    finally:
        for process in processes:
            loop.remove_reader(process.sentinel)


def engine_config(flags: tuple[str, ...], *, headless: bool) -> VllmConfig:
    """What vLLM makes of its flags; reads the model's config.json and no weights.

    Raises EngineStartError if this is no supported vLLM, or if it refuses the flags.
    """
    if not vllm.__version__.startswith(SUPPORTED_VLLM):
        raise EngineStartError(
            f"vLLM {vllm.__version__} is installed; r1-serve runs on {', '.join(SUPPORTED_VLLM)}",
            "install r1-serve[gpu], or r1-serve[cpu] on a machine without GPUs",
        )
    arguments = AsyncEngineArgs.add_cli_args(_Parser(allow_abbrev=False)).parse_args(list(flags))
    model = Path(arguments.model)
    if model.is_absolute() and not (model / "config.json").is_file():
        raise EngineStartError(
            f"{model} has no config.json", "set model.path to the folder of a checkpoint"
        )
    # "auto" chooses for each request, but the first grammar of an engine's life settles it for all:
    # after one that only another backend takes, every call of a tool would fail to compile.
    if arguments.structured_outputs_config.backend == "auto":
        arguments.structured_outputs_config.backend = _GRAMMAR_BACKEND
    try:
        return AsyncEngineArgs.from_cli_args(arguments).create_engine_config(headless=headless)
    except Exception as error:  # ValueError, pydantic's, OSError, NotImplementedError, ...
        cause = one_line(str(error))
        raise EngineStartError(f"vLLM refuses its flags: {cause}", _cure(cause)) from error


class _Parser(FlexibleArgumentParser):  # type: ignore[misc]  # untyped
    @override
    def error(self, message: str) -> NoReturn:
        raise EngineStartError(f"vLLM refuses its flags: {message}", "correct engine.args")


def _kv_event_source(llm: AsyncLLM) -> KvEventSource | None:
    """Where this engine's KV events are, if it publishes any; the ports are vLLM's choice."""
    config = llm.vllm_config
    rank = config.parallel_config.data_parallel_index
    events = llm.get_kv_event_sources().get(rank)
    if events is None or events.publisher != "zmq" or not config.cache_config.enable_prefix_caching:
        return None
    algorithm = config.cache_config.prefix_caching_hash_algo
    return KvEventSource(
        endpoint=events.endpoint,
        replay_endpoint=events.replay_endpoint or "",
        topic=events.topic,
        hash_algorithm=algorithm,
        hash_seed=resolve_none_hash_seed(get_hash_fn_by_name(algorithm)),
    )


def _features(config: VllmConfig) -> Features:
    """What vLLM has made of its flags, which may be less than they say."""
    transfer, speculative = config.kv_transfer_config, config.speculative_config
    parallel, cache = config.parallel_config, config.cache_config
    return Features(
        kv_connector="" if transfer is None else transfer.kv_connector or "",
        kv_dtype=str(cache.cache_dtype),
        all2all=parallel.all2all_backend if parallel.enable_expert_parallel else "",
        draft_tokens=0 if speculative is None else speculative.num_speculative_tokens,
        prefix_cache=bool(cache.enable_prefix_caching),
    )


def _may_not_compile(submit: Submit) -> bool:
    """Whether an error before the first token is the grammar's: nothing else of it can fail."""
    return submit.sampling.grammar is not None and submit.kv_source is KvSource.LOCAL


def _end(submit: Submit, reason: str, cached: int | None, kv_params: KvParams | None) -> End:
    finish = _FINISHES.get(reason, Finish.FAILED)
    cause = f"vLLM ended the request with {reason!r}" if finish is Finish.FAILED else ""
    # Of KV that was moved vLLM counts the whole prompt, and computes the last token again.
    cached = min(cached or 0, len(submit.prompt_ids) - 1)
    return End(finish, cached, kv_params, cause)


def _check_kv_port(config: VllmConfig) -> None:
    """Raises if the KV side channel's port is taken: vLLM's engine core would hang for ever."""
    if config.kv_transfer_config is None:
        return
    if config.kv_transfer_config.kv_connector == MOONCAKE:
        host, port = "0.0.0.0", vllm.envs.VLLM_MOONCAKE_BOOTSTRAP_PORT
    else:
        host = vllm.envs.VLLM_NIXL_SIDE_CHANNEL_HOST
        port = vllm.envs.VLLM_NIXL_SIDE_CHANNEL_PORT + config.parallel_config.data_parallel_rank
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise EngineStartError(
                f"the KV side channel cannot listen on {host}:{port}: {error.strerror}",
                "stop what owns the port, or choose another",
            ) from error


def _kv_peer(config: VllmConfig) -> KvParams | None:
    """What the decode rank of a pair must know of this rank: where Mooncake's workers register, and
    under which name they did; None if KV is not handed on in pairs.
    """
    transfer = config.kv_transfer_config
    if transfer is None or transfer.kv_connector != MOONCAKE:
        return None
    if not transfer.is_kv_producer:
        return {}
    address = f"http://{bracketed(vllm.envs.VLLM_HOST_IP)}:{vllm.envs.VLLM_MOONCAKE_BOOTSTRAP_PORT}"
    with urllib.request.urlopen(f"{address}/query", timeout=REGISTRY_S) as answer:
        [registered] = msgspec.json.decode(answer.read(), type=dict[str, _Registered]).values()
    return {"remote_engine_id": registered.engine_id, "remote_bootstrap_addr": address}


def _start_error(error: Exception, tail: StderrTail) -> EngineStartError:
    cause = tail.reason() or f"{one_line(str(error))} ({type(error).__name__})"
    return EngineStartError(cause, _cure(cause))


def _cure(cause: str) -> str:
    return next((cure for word, cure in _CURES if word in cause.lower()), _START_CURE)


def _served_name(name: str | list[str]) -> str:
    return name if isinstance(name, str) else name[0]


def one_line(text: str) -> str:
    """Without line breaks, and short enough for an error that people read."""
    line = " ".join(text.split())
    return line if len(line) <= 400 else line[:397] + "..."


def _end_children(end: Callable[[BaseProcess], None] = BaseProcess.terminate) -> None:
    """All children of this process are vLLM's; each ends its own children."""
    for child in multiprocessing.active_children():
        end(child)


async def _in_thread(work: Callable[[], Worked]) -> Worked:
    """The result of blocking work. If cancelled, the work goes on and its result is lost.

    Unlike asyncio.to_thread it holds up the end of the process by nothing.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Worked] = loop.create_future()

    def settle(result: Worked | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(cast("Worked", result))

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as caught:  # noqa: BLE001  # handed to the caller, whatever it is
            error = caught
        loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, daemon=True, name="vllm-blocking").start()
    return await done
