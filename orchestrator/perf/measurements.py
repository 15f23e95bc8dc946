"""Reads rows of section `measurements`: reports in prose, each with its own way to say things."""

from typing import Any

from orchestrator.perf.bands import Mode
from orchestrator.perf.cases import (
    CHUNK_TOKENS,
    Case,
    NoPredictionError,
    Row,
    Side,
    add_rate,
    extrapolated,
    gpu_of,
)
from orchestrator.perf.row_words import (
    Extras,
    balance_of,
    drafts_of,
    engine_of,
    layout_of,
    precision_of,
)
from orchestrator.spec import Fabric

_NODE_GPUS = 8
_MLPERF_INPUT = 800.0  # mean prompt of MLPerf's R1 data: MLCommons, inference v5.1, deepseek-r1
_SEQUENCES = 1024  # vLLM's max_num_seqs on GPUs of 70 GB and more; where requests come all at once
_R1_LONGEST = 20_000  # of MLPerf's R1 data: MLCommons, inference v5.1, deepseek-r1
_SHAREGPT_LONGEST = 2_048  # prompt and output, beyond which benchmarks drop a conversation: vLLM's
_RANDOM_LENGTHS = 0.9  # mean of U[0.8, 1.0]


def measurement(row: Row) -> Case:
    """The row as a case."""
    hardware, work, metrics = row["hardware"], row.get("workload") or {}, row.get("metrics") or {}
    role = row["role"]
    if role not in ("agg", "disagg", "prefill", "decode"):
        raise NoPredictionError(f"role {role!r} is no fleet that a step model predicts")
    gpu = gpu_of(str(hardware["gpu"]))
    engine, why = engine_of(str(row["engine"]))
    precision, odd = precision_of(str(row.get("precision") or ""), engine)
    flags, parallel = row.get("flags") or {}, row.get("parallelism") or {}
    drafts = drafts_of(flags.get("mtp"))
    mode = _MODES[role]
    extras = Extras(
        redundant_experts=int(_figure(parallel, "redundant_experts") or 0),
        mtp_drafts=drafts.drafts,
        overlap=bool(flags.get("tbo")),
        chunk_tokens=int(
            _figure(work, "tokens_per_gpu") or _figure(work, "max_num_tokens") or CHUNK_TOKENS
        ),
    )
    gpus = int(_figure(hardware, "gpus") or 0)
    prefill, side, notes = _sides(parallel, gpus, mode, extras)
    gpus = gpus or round(sum(s.gangs * s.layout.gpus for s in (side, prefill) if s))
    spread = str(work.get("length_dist", "")).startswith("U[0.8")
    lengths = _RANDOM_LENGTHS if spread else 1.0
    serves = mode in (Mode.UNIFIED, Mode.DISAGGREGATED)
    isl = _length(work, "isl") * lengths
    osl = _length(work, "osl", None if serves else 0.0) * lengths
    load, more, burst = _load(work, mode, side)
    node = _figure(hardware, "gpus_per_node") or gpu.gpus_per_node
    measured = _measured(metrics, node, float(gpus))
    if not measured:
        raise NoPredictionError(
            f"none of its metrics is predicted: {', '.join(metrics) or 'it has none'}"
        )
    if mode is Mode.UNIFIED and {"ttft", "tpot"} <= measured.keys() and not burst:
        add_rate(measured, load, osl)
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
        requests=int(_figure(work, "requests") or 0),
        random_lengths=spread,
        tail_tokens=_tail_tokens(work),
        prefix_hit=float(_figure(work, "cached_share") or 0.0),
        source=str(row.get("source", "")),
        extrapolated=why or odd or extrapolated(gpu, isl + osl, side, prefill),
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
            raise NoPredictionError("the layout of its pools is not stated")
        sides = []
        for pool in ("prefill", "decode"):
            found = layout_of(_words(parallel[pool]), extras)
            if isinstance(found, str):
                raise NoPredictionError(f"{pool}: {found}")
            sides.append(Side(*found))
        return sides[0], sides[1], ()
    sizes = {axis: int(_figure(parallel, axis) or 0) for axis in ("tp", "pp", "dp", "ep")}
    instances = int(_figure(parallel, "instances") or 1)
    total = gpus // instances
    if not any(sizes.values()):
        return None, *_usual_layout(total, extras)
    ep, pp = max(sizes["ep"], 1), max(sizes["pp"], 1)
    dp = sizes["dp"] or (ep if not sizes["tp"] else 1)
    notes = () if sizes["dp"] or dp == 1 else (f"dp {dp}, not stated",)
    if parallel.get("attention_dp") and dp == 1:
        dp = max(total // pp, 1)
    tp = sizes["tp"] or max(total // (dp * pp), 1)
    if dp > 1 and tp * pp == total:  # SGLang and TensorRT-LLM count the ranks inside `tp`
        notes = (*notes, f"tp {tp} read as {tp // dp} for each of dp {dp}")
        tp //= dp
    layout = extras.layout(tp, pp, dp, ep)
    if total and layout.gpus != total:
        raise NoPredictionError(f"tp {tp} x pp {pp} x dp {dp} is not its {total} GPUs")
    return None, Side(layout, float(instances)), notes


def _usual_layout(gpus: int, extras: Extras) -> tuple[Side, tuple[str, ...]]:
    """Nodes of eight GPUs with DP attention: what submissions with whole nodes run."""
    if not gpus or gpus % _NODE_GPUS:
        raise NoPredictionError("its layout is not stated as sizes")
    layout = extras.layout(dp=_NODE_GPUS, ep=_NODE_GPUS)
    return Side(layout, gpus / _NODE_GPUS), (f"layout not stated: DP{_NODE_GPUS} EP{_NODE_GPUS}",)


def _length(work: Row, name: str, default: float | None = None) -> float:
    value = _figure(work, name) or _figure(work, f"{name}_mean") or default
    if value is None and name == "isl" and "MLPerf" in str(work.get("dataset")):
        return _MLPERF_INPUT
    if value is None:
        raise NoPredictionError(f"its {name} is not stated")
    return value


def _tail_tokens(work: Row) -> int:
    """The longest output of a data set; 0 where all outputs are as long as the row says."""
    dataset = str(work.get("dataset", "")).lower()
    if "sharegpt" in dataset:
        return _SHAREGPT_LONGEST
    return _R1_LONGEST if dataset or work.get("osl_mean") else 0


def _load(work: Row, mode: Mode, side: Side) -> tuple[float, tuple[str, ...], bool]:
    """Concurrency of the fleet, or of a rank in DECODE; what was assumed; whether it is a burst."""
    concurrency = _figure(work, "concurrency") or 0.0
    if mode is Mode.PREFILL:
        return concurrency, (), False
    if mode is Mode.DECODE:
        batch = _figure(work, "batch_per_gpu") or _figure(work, "concurrency_per_rank")
        if batch is None:
            return 0.0, ("batch not stated: as many as KV has room for",), False
        return batch, (), False
    if concurrency:
        return concurrency, (), False
    most = _SEQUENCES * side.layout.dp * side.gangs
    requests = _figure(work, "requests")
    if requests or work.get("scenario") == "Offline":
        return min(requests or most, most), ("all requests come at once",), True
    if work.get("scenario"):
        raise NoPredictionError(
            f"its {work['scenario']} rate is bound by a p99, which no mean tells"
        )
    raise NoPredictionError("its load is not stated")


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
        if name not in out and (value := _figure(metrics, key)):
            out[name] = value * scale
    if user := _figure(metrics, "user_tok_s") or _figure(metrics, "tok_s_user"):
        out.setdefault("tpot", 1 / user)
    if "itl" in out:
        out.setdefault("tpot", out.pop("itl"))
        out.pop("itl", None)
    return out


def _figure(row: Row, key: str) -> float | None:
    """A number above 0, or None where it is not stated; words are no prediction's fault."""
    value = row.get(key)
    if value is None or value is False:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise NoPredictionError(f"its {key} is {value!r}, not a number")
    return float(value) or None


def _words(pool: Any) -> str:  # noqa: ANN401 any YAML value
    """A pool's layout as words, also where it is stated as sizes."""
    if not isinstance(pool, dict):
        return str(pool)
    gangs = pool.get("instances") or pool.get("gangs") or 1
    sizes = (f"{axis.upper()}{pool[axis]}" for axis in ("tp", "pp", "dp", "ep") if pool.get(axis))
    return f"{gangs} x {' '.join(sizes)}"
