"""Published measurements: rows of `published_figures.yaml` as cases that the model can predict.

A row that cannot be predicted becomes an `Unpredictable` with the reason; a row that breaks the
format raises `SpecError` with its id. What a row leaves out and we assume is in the case's `notes`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from orchestrator.core import SpecError
from orchestrator.perf.bands import LONG_CONTEXT_TOKENS, Mode
from orchestrator.perf.hardware import HARDWARE, Fabric, Gpu
from orchestrator.perf.layout import EngineFamily, Layout
from orchestrator.perf.precision import Kv, Precision
from orchestrator.perf.row_words import (
    Extras,
    balance_of,
    drafts_of,
    engine_of,
    layout_of,
    precision_of,
)

Row = Mapping[str, Any]  # one row as YAML has it; nothing of it goes past this file unread

_RANDOM_LENGTHS = 0.9  # mean of U[0.8, 1.0], the lengths that InferenceX draws
_CHUNK_TOKENS = 8192.0  # a rank's prefill chunk where a row says nothing: vLLM's and SGLang's usual
_NODE_GPUS = 8
_MLPERF_INPUT = 800.0  # mean prompt of MLPerf's R1 data: MLCommons, inference v5.1, deepseek-r1
_SEQUENCES = 1024  # vLLM's max_num_seqs on GPUs of 70 GB and more; where requests come all at once


@dataclass(frozen=True, slots=True)
class Side:
    """One pool of a measured fleet."""

    layout: Layout
    gangs: float


@dataclass(frozen=True, slots=True)
class Case:
    """One row, ready to be predicted; lengths in tokens, `measured` in the model's own units."""

    id: str
    use: str  # "calibrate", "validate" or "context"
    clean: bool
    mode: Mode
    gpu: Gpu
    engine: EngineFamily
    precision: Precision
    fabric: Fabric
    prefill: Side | None  # of a disaggregated fleet
    side: Side  # decode, or the only one
    input_tokens: float
    output_tokens: float
    concurrency: float  # of the fleet; of a rank in mode DECODE; 0 in mode PREFILL
    accept_tokens: float | None
    balance: float  # 0 perfectly balanced experts, 1 left to chance, else rebalanced by the engine
    measured: Mapping[str, float]
    max_throughput: bool = False  # requests all at once: an in-flight-batched maximum
    extrapolated: str = ""
    notes: tuple[str, ...] = ()
    rival: Mapping[str, float] = field(default_factory=dict)  # another planner's prediction


@dataclass(frozen=True, slots=True)
class Unpredictable:
    """A row that no prediction can be made for."""

    id: str
    use: str
    reason: str


def read_figures(text: str) -> list[Case | Unpredictable]:
    """All rows of both sections, in order."""
    try:
        tree = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise SpecError(f"not YAML{where}: {getattr(error, 'problem', error)}", _FORMAT) from error
    if not isinstance(tree, dict) or not ({"measurements", "inferencex"} & tree.keys()):
        raise SpecError("neither a `measurements` nor an `inferencex` section", _FORMAT)
    out: list[Case | Unpredictable] = []
    for section, read in (("measurements", _measurement), ("inferencex", _inferencex)):
        rows = tree.get(section) or []
        if not isinstance(rows, list):
            raise SpecError(f"{section} is not a list of rows", _FORMAT)
        for index, row in enumerate(rows):
            if not isinstance(row, dict) or not isinstance(row.get("id"), str):
                raise SpecError(f"{section}[{index}] has no id", _FORMAT)
            try:
                out.append(read(row))
            except _Unpredictable as why:
                use = str(row.get("use") or row.get("split") or "context")
                out.append(Unpredictable(row["id"], use, str(why)))
            except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
                missing = isinstance(error, KeyError)
                what = f"no {error.args[0]!r}" if missing else str(error)
                raise SpecError(f"row {row['id']}: {what}", _FORMAT) from error
    return out


_FORMAT = "give a file in the format of orchestrator/perf/data/published_figures.yaml"


class _Unpredictable(Exception):
    """The reason why a row has no prediction."""


# --- InferenceX ----------------------------------------------------------------------------------


def _inferencex(row: Row) -> Case:
    gpu = _gpu(str(row["hw"]))
    engine, why = engine_of(str(row["engine"]))
    # SGLang's recipes set an FP8 cache on Blackwell: benchmarks/dsr1_fp8_b200.sh of InferenceX.
    kv = Kv.FP8 if gpu.fp4_flops is not None and engine is EngineFamily.SGLANG else Kv.BF16
    precision, odd = precision_of(str(row["prec"]), engine, kv=kv)
    gpus = _number(row, "gpus")
    disaggregated = row["mode"] == "disagg"
    prefill = None
    notes: tuple[str, ...] = ()
    if disaggregated:
        prefill, side = _tuple(row, "P"), _tuple(row, "D")
        found = prefill.gangs * prefill.layout.gpus + side.gangs * side.layout.gpus
        if found != gpus:
            raise _Unpredictable(f"P and D are {found:.0f} GPUs, the row says {gpus:.0f}")
    elif row["mode"] == "agg":
        side, notes = _aggregated(row, int(gpus))
    else:
        raise _Unpredictable(f"mode {row['mode']!r} is neither agg nor disagg")
    isl, osl = _number(row, "isl") * _RANDOM_LENGTHS, _number(row, "osl") * _RANDOM_LENGTHS
    concurrency = _number(row, "conc")
    measured = {
        name: _number(row, f"{name}_ms") / 1e3 for name in ("tpot", "ttft") if row.get(f"{name}_ms")
    }
    if len(measured) == 2:
        _rate(measured, concurrency, osl)
    rival = {"tpot": row["aic_tpot_ms"] / 1e3} if row.get("aic_tpot_ms") else {}
    return Case(
        id=row["id"],
        use=str(row.get("split", "context")),
        clean=bool(row.get("clean", True)),
        mode=Mode.DISAGGREGATED if disaggregated else Mode.UNIFIED,
        gpu=gpu,
        engine=engine,
        precision=precision,
        fabric=Fabric.RDMA,
        prefill=prefill,
        side=side,
        input_tokens=isl,
        output_tokens=osl,
        concurrency=concurrency,
        accept_tokens=None,
        balance=balance_of({}, side.layout),
        measured=measured,
        extrapolated=why or odd or _extrapolated(gpu, isl + osl, side, prefill),
        notes=notes,
        rival=rival,
    )


def _tuple(row: Row, key: str) -> Side:
    gangs, tp, dp, ep = (int(n) for n in row[key])
    return Side(Layout(tp=tp, dp=dp, ep=ep, chunk_tokens=int(_CHUNK_TOKENS)), gangs)


def _aggregated(row: Row, gpus: int) -> tuple[Side, tuple[str, ...]]:
    """`tp` of these rows is often no size at all, so it follows from the GPUs and `dp`."""
    dp, ep = int(row.get("dp") or 1), int(row.get("ep") or 1)
    if gpus % dp or (gpus % ep if ep > 1 else 0):
        raise _Unpredictable(f"{gpus} GPUs cannot be divided into dp {dp}, ep {ep}")
    tp = gpus // dp
    note = () if row.get("tp") in (None, tp) else (f"tp {row['tp']} read as {tp}",)
    return Side(Layout(tp=tp, dp=dp, ep=ep, chunk_tokens=int(_CHUNK_TOKENS)), 1.0), note


def _rate(measured: dict[str, float], concurrency: float, output_tokens: float) -> None:
    """Little's law: the requests in the system over the time that each is there."""
    stay = measured["ttft"] + (output_tokens - 1) * measured["tpot"]
    measured["rate"] = concurrency / stay


# --- measurements --------------------------------------------------------------------------------


def _measurement(row: Row) -> Case:
    hardware, work, metrics = row["hardware"], row.get("workload") or {}, row.get("metrics") or {}
    role = row["role"]
    if role not in ("agg", "disagg", "prefill", "decode"):
        raise _Unpredictable(f"role {role!r} is no fleet that a step model predicts")
    gpu = _gpu(str(hardware["gpu"]))
    engine, why = engine_of(str(row["engine"]))
    precision, odd = precision_of(str(row.get("precision") or ""), engine)
    flags, parallel = row.get("flags") or {}, row.get("parallelism") or {}
    drafts = drafts_of(flags.get("mtp"))
    mode = _MODES[role]
    extras = Extras(
        redundant_experts=int(parallel.get("redundant_experts") or 0),
        mtp_drafts=drafts.drafts,
        overlap=bool(flags.get("tbo")),
        chunk_tokens=int(work.get("tokens_per_gpu") or work.get("max_num_tokens") or _CHUNK_TOKENS),
    )
    gpus = int(hardware.get("gpus") or 0)
    prefill, side, notes = _sides(parallel, gpus, mode, extras)
    gpus = gpus or round(sum(s.gangs * s.layout.gpus for s in (side, prefill) if s))
    lengths = 0.9 if str(work.get("length_dist", "")).startswith("U[0.8") else 1.0
    isl = _length(work, "isl") * lengths
    osl = (
        _length(work, "osl", None if mode in (Mode.UNIFIED, Mode.DISAGGREGATED) else 0.0) * lengths
    )
    load, more, burst = _load(work, mode, side, prefill)
    node = float(hardware.get("gpus_per_node") or gpu.gpus_per_node)
    measured = _measured(metrics, node, float(gpus))
    if not measured:
        raise _Unpredictable(
            f"none of its metrics is predicted: {', '.join(metrics) or 'it has none'}"
        )
    if mode is Mode.UNIFIED and {"ttft", "tpot"} <= measured.keys() and not burst:
        _rate(measured, load, osl)
    return Case(
        id=row["id"],
        use=str(row.get("use", "context")),
        clean=bool(row.get("clean", True)),
        mode=mode,
        gpu=gpu,
        engine=engine,
        precision=precision,
        fabric=Fabric.RDMA,
        prefill=prefill,
        side=side,
        input_tokens=isl,
        output_tokens=osl,
        concurrency=load,
        accept_tokens=drafts.accepted,
        balance=balance_of(flags, side.layout),
        measured=measured,
        max_throughput=burst,
        extrapolated=why or odd or _extrapolated(gpu, isl + osl, side, prefill),
        notes=(*notes, *more, *drafts.notes),
    )


_MODES = {
    "agg": Mode.UNIFIED,
    "disagg": Mode.DISAGGREGATED,
    "prefill": Mode.PREFILL,
    "decode": Mode.DECODE,
}


def _sides(
    parallel: Row, gpus: int, mode: Mode, extras: Extras
) -> tuple[Side | None, Side, tuple[str, ...]]:
    if mode is Mode.DISAGGREGATED:
        if not {"prefill", "decode"} <= parallel.keys():
            raise _Unpredictable("the layout of its pools is not stated")
        sides = []
        for pool in ("prefill", "decode"):
            found = layout_of(str(parallel[pool]), extras)
            if isinstance(found, str):
                raise _Unpredictable(f"{pool}: {found}")
            sides.append(Side(*found))
        return sides[0], sides[1], ()
    sizes = {axis: parallel.get(axis) for axis in ("tp", "pp", "dp", "ep")}
    if any(isinstance(n, (str, bool)) for n in sizes.values()):
        raise _Unpredictable("its layout is not stated as sizes")
    instances = int(parallel.get("instances") or 1)
    total = gpus // instances
    if not any(sizes.values()):
        return None, *_usual_layout(total, extras)
    ep, pp = int(sizes["ep"] or 1), int(sizes["pp"] or 1)
    dp = int(sizes["dp"] or (ep if ep > 1 and not sizes["tp"] else 1))
    notes = () if sizes["dp"] or dp == 1 else (f"dp {dp}, not stated",)
    if parallel.get("attention_dp") and dp == 1:
        dp = total // pp
    tp = int(sizes["tp"] or max(total // (dp * pp), 1))
    if dp > 1 and tp * pp == total:  # SGLang and TensorRT-LLM count the ranks inside `tp`
        notes = (*notes, f"tp {tp} read as {tp // dp} for each of dp {dp}")
        tp //= dp
    layout = extras.layout(tp, pp, dp, ep)
    if total and layout.gpus != total:
        raise _Unpredictable(f"tp {tp} x pp {pp} x dp {dp} is not its {total} GPUs")
    return None, Side(layout, float(instances)), notes


def _usual_layout(gpus: int, extras: Extras) -> tuple[Side, tuple[str, ...]]:
    """Nodes of eight GPUs with DP attention: what submissions with whole nodes run."""
    if not gpus or gpus % _NODE_GPUS:
        raise _Unpredictable("its layout is not stated as sizes")
    layout = extras.layout(dp=_NODE_GPUS, ep=_NODE_GPUS)
    return Side(layout, gpus / _NODE_GPUS), (f"layout not stated: DP{_NODE_GPUS} EP{_NODE_GPUS}",)


def _length(work: Row, name: str, default: float | None = None) -> float:
    value = work.get(name, work.get(f"{name}_mean", default))
    if value is None and name == "isl" and "MLPerf" in str(work.get("dataset")):
        return _MLPERF_INPUT
    if value is None:
        raise _Unpredictable(f"its {name} is not stated")
    return float(value)


def _load(
    work: Row, mode: Mode, side: Side, prefill: Side | None
) -> tuple[float, tuple[str, ...], bool]:
    """Concurrency of the fleet, or of a rank in DECODE; what was assumed; whether it is a burst."""
    if mode is Mode.PREFILL:
        return float(work.get("concurrency") or 0.0), (), False
    if mode is Mode.DECODE:
        batch = work.get("batch_per_gpu") or work.get("concurrency_per_rank")
        if batch is None:
            return 0.0, ("batch not stated: as many as KV has room for",), False
        return float(batch), (), False
    if work.get("concurrency"):
        return float(work["concurrency"]), (), False
    requests = work.get("requests")
    if not requests and work.get("scenario") == "Offline":
        requests = _SEQUENCES * side.layout.dp * side.gangs
    if requests:
        most = _SEQUENCES * side.layout.dp * side.gangs
        return min(float(requests), most), ("all requests come at once",), True
    if work.get("scenario"):
        raise _Unpredictable(f"its {work['scenario']} rate is bound by a p99, which no mean tells")
    raise _Unpredictable("its load is not stated")


def _measured(metrics: Row, node: float, gpus: float) -> dict[str, float]:
    """The metrics that are predicted; `node` are the GPUs of one."""
    out: dict[str, float] = {}
    for name, key, scale in (
        ("tpot", "tpot_ms", 1e-3),
        ("ttft", "ttft_ms", 1e-3),
        ("itl", "itl_ms", 1e-3),
        *((f"{kind}_tokens", f"{kind}_tok_s_gpu", 1.0) for kind in ("input", "output", "total")),
        *((f"{kind}_tokens", f"{kind}_tok_s_node", 1 / node) for kind in ("input", "output")),
        *((f"{kind}_tokens", f"{kind}_tok_s_total", 1 / gpus) for kind in ("output", "total")),
    ):
        if metrics.get(key) and name not in out:
            out[name] = float(metrics[key]) * scale
    user = metrics.get("user_tok_s") or metrics.get("tok_s_user")
    if user:
        out.setdefault("tpot", 1 / float(user))
    if "itl" in out:
        out.setdefault("tpot", out.pop("itl"))
        out.pop("itl", None)
    return out


# --- both ----------------------------------------------------------------------------------------


def _gpu(name: str) -> Gpu:
    for known in sorted(HARDWARE, key=len, reverse=True):
        if name.upper().split("-")[0].strip() == known.upper():
            return HARDWARE[known]
    raise _Unpredictable(f"unknown GPU {name!r}; known are {', '.join(HARDWARE)}")


def _number(row: Row, key: str) -> float:
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise ValueError(f"{key} is {value!r}, not a number")
    return float(value)


def _extrapolated(gpu: Gpu, context: float, side: Side, prefill: Side | None) -> str:
    if gpu.never_fitted:
        return f"{gpu.name} was never fitted"
    if context > LONG_CONTEXT_TOKENS:
        return f"context over {LONG_CONTEXT_TOKENS:,} tokens"
    for each in (side, prefill):
        if each and each.layout.pp > 1:
            return "pipeline stages"
    return ""


def cases_of(rows: Sequence[Case | Unpredictable]) -> Iterator[Case]:
    """The rows that can be predicted."""
    return (row for row in rows if isinstance(row, Case))
