"""An operator's own measurements, CSV or JSON lines, as rows of the figures' format.

One line is one measurement. `phase` says of what: `serve` (a load test of unified gangs at a fixed
concurrency), `decode` or `prefill` (one engine step, from an engine's log). Needed for all:
`hardware`, `engine` and sizes of the gang (`tp`, `dp`, `ep`, `pp`; 1 if left out). Then

    serve    concurrency, isl, osl, and what was measured of ttft_ms, tpot_ms, output_tok_s_gpu
    decode   batch_per_rank, context_tokens, step_ms
    prefill  tokens_per_rank, isl, step_ms

`precision` (fp8 if left out), `mtp_drafts`, `accept_len`, `redundant_experts` and, to serve,
`cached_share` (of the prompts) may stand too.
Sizes are per gang: divide the concurrency of several gangs.
"""

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

from orchestrator.core import SpecError

_FORMAT = "give CSV with a header or JSON lines, as `r1-serve fit --help` has it"


def own_rows(text: str, name: str) -> list[dict[str, Any]]:
    """Rows of section `measurements`, all marked `calibrate`; ids are `name` and the line."""
    out = []
    for number, line in _lines(text, name):
        given = {key: value for key, value in line.items() if value not in (None, "")}
        where = f"{name}:{number}"
        try:
            out.append({"id": where, "use": "calibrate", "source": name, **_row(given)})
        except KeyError as error:
            raise SpecError(f"{where}: no {error.args[0]!r}", _FORMAT) from error
        except (TypeError, ValueError) as error:
            raise SpecError(f"{where}: {error}", _FORMAT) from error
    if not out:
        raise SpecError(f"{name} has no measurement", _FORMAT)
    return out


def _lines(text: str, name: str) -> list[tuple[int, Mapping[str, Any]]]:
    if not text.lstrip().startswith("{"):
        rows = csv.DictReader(io.StringIO(text), skipinitialspace=True)
        return [(rows.line_num, row) for row in rows if None not in row]
    out: list[tuple[int, Mapping[str, Any]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise SpecError(f"{name}:{number}: not JSON: {error.msg}", _FORMAT) from error
        if not isinstance(row, dict):
            raise SpecError(f"{name}:{number}: not an object", _FORMAT)
        out.append((number, row))
    return out


def _row(given: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {axis: int(given.get(axis, 1)) for axis in ("tp", "pp", "dp", "ep")}
    gpus = sizes["tp"] * sizes["pp"] * sizes["dp"]
    flags: dict[str, Any] = {}
    if int(given.get("mtp_drafts", 0)):
        flags["mtp"] = f"{given['mtp_drafts']} drafts"
        if "accept_len" in given:
            flags["mtp"] += f", accept len {given['accept_len']}"
    phase = given["phase"]
    if phase == "serve":
        work = {key: float(given[key]) for key in ("concurrency", "isl", "osl")}
        work["cached_share"] = float(given.get("cached_share", 0.0))
        names = ("ttft_ms", "tpot_ms", "output_tok_s_gpu", "total_tok_s_gpu")
        metrics = {key: float(given[key]) for key in names if key in given}
    elif phase == "decode":
        # A step gives each sequence its accepted tokens.
        gained = float(given.get("accept_len", 1.0))
        work = {
            "isl": float(given["context_tokens"]),
            "batch_per_gpu": float(given["batch_per_rank"]),
        }
        metrics = {"tpot_ms": float(given["step_ms"]) / gained}
    elif phase == "prefill":
        tokens, step_s = float(given["tokens_per_rank"]), float(given["step_ms"]) / 1e3
        work = {"isl": float(given["isl"]), "tokens_per_gpu": tokens}
        metrics = {"input_tok_s_gpu": tokens * sizes["dp"] / step_s / gpus}
    else:
        raise ValueError(f"phase {phase!r} is none of serve, decode, prefill")
    return {
        "role": {"serve": "agg"}.get(phase, phase),
        "hardware": {"gpu": str(given["hardware"]), "gpus": gpus},
        "engine": str(given["engine"]),
        "precision": str(given.get("precision", "fp8")),
        "parallelism": {**sizes, "redundant_experts": int(given.get("redundant_experts", 0))},
        "workload": work,
        "metrics": metrics,
        "flags": flags,
    }
