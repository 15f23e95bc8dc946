"""Reads `published_figures.yaml`, and any file in its format.

A row that cannot be predicted becomes an `Unpredictable` with the reason; a row that breaks the
format raises `SpecError` with its id. What a row leaves out and we assume is in the case's `notes`.
"""

import yaml

from orchestrator.core import SpecError
from orchestrator.perf.bands import Mode
from orchestrator.perf.cases import (
    CHUNK_TOKENS,
    Case,
    NoPredictionError,
    Row,
    Side,
    Unpredictable,
    add_rate,
    extrapolated,
    gpu_of,
    number,
)
from orchestrator.perf.layout import EngineFamily, Layout
from orchestrator.perf.measurements import measurement
from orchestrator.perf.precision import Kv
from orchestrator.perf.row_words import balance_of, engine_of, precision_of
from orchestrator.spec import Fabric

_INFERENCEX = "ix-dump"  # the source of section `inferencex`
_RANDOM_LENGTHS = 0.9  # mean of U[0.8, 1.0], the lengths that InferenceX draws


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
    for section, read in (("measurements", measurement), ("inferencex", _inferencex)):
        rows = tree.get(section) or []
        if not isinstance(rows, list):
            raise SpecError(f"{section} is not a list of rows", _FORMAT)
        for index, row in enumerate(rows):
            if not isinstance(row, dict) or not isinstance(row.get("id"), str):
                raise SpecError(f"{section}[{index}] has no id", _FORMAT)
            try:
                out.append(read(row))
            except NoPredictionError as why:
                use = str(row.get("use") or row.get("split") or "context")
                out.append(Unpredictable(row["id"], use, str(why)))
            except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
                missing = isinstance(error, KeyError)
                what = f"no {error.args[0]!r}" if missing else str(error)
                raise SpecError(f"row {row['id']}: {what}", _FORMAT) from error
    return out


_FORMAT = "give a file in the format of orchestrator/perf/data/published_figures.yaml"


# --- InferenceX ----------------------------------------------------------------------------------


def _inferencex(row: Row) -> Case:
    gpu = gpu_of(str(row["hw"]))
    engine, why = engine_of(str(row["engine"]))
    # SGLang's recipes set an FP8 cache on Blackwell: benchmarks/dsr1_fp8_b200.sh of InferenceX.
    kv = Kv.FP8 if gpu.fp4_flops is not None and engine is EngineFamily.SGLANG else Kv.BF16
    precision, odd = precision_of(str(row["prec"]), engine, kv=kv)
    gpus = number(row, "gpus")
    disaggregated = row["mode"] == "disagg"
    prefill = None
    notes: tuple[str, ...] = ()
    if disaggregated:
        prefill, side = _tuple(row, "P"), _tuple(row, "D")
        found = prefill.gangs * prefill.layout.gpus + side.gangs * side.layout.gpus
        if found != gpus:
            raise NoPredictionError(f"P and D are {found:.0f} GPUs, the row says {gpus:.0f}")
    elif row["mode"] == "agg":
        side, notes = _aggregated(row, int(gpus))
    else:
        raise NoPredictionError(f"mode {row['mode']!r} is neither agg nor disagg")
    isl, osl = number(row, "isl") * _RANDOM_LENGTHS, number(row, "osl") * _RANDOM_LENGTHS
    concurrency = number(row, "conc")
    measured = {
        name: number(row, f"{name}_ms") / 1e3 for name in ("tpot", "ttft") if row.get(f"{name}_ms")
    }
    if len(measured) == 2:
        add_rate(measured, concurrency, osl)
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
        extrapolated=why or odd or extrapolated(gpu, isl + osl, side, prefill),
        random_lengths=True,
        source=_INFERENCEX,
        notes=notes,
        rival=rival,
    )


def _tuple(row: Row, key: str) -> Side:
    gangs, tp, dp, ep = (int(n) for n in row[key])
    return Side(Layout(tp=tp, dp=dp, ep=ep, chunk_tokens=CHUNK_TOKENS), gangs)


def _aggregated(row: Row, gpus: int) -> tuple[Side, tuple[str, ...]]:
    """`tp` of these rows is often no size at all, so it follows from the GPUs and `dp`."""
    dp, ep = int(row.get("dp") or 1), int(row.get("ep") or 1)
    if gpus % dp or (gpus % ep if ep > 1 else 0):
        raise NoPredictionError(f"{gpus} GPUs cannot be divided into dp {dp}, ep {ep}")
    tp = gpus // dp
    note = () if row.get("tp") in (None, tp) else (f"tp {row['tp']} read as {tp}",)
    return Side(Layout(tp=tp, dp=dp, ep=ep, chunk_tokens=CHUNK_TOKENS), 1.0), note
