"""A plan as one JSON tree; units are in the names."""

from orchestrator.cli.plan_report import Report, band_source, band_text, money, tokens_per_s
from orchestrator.perf import Band, Extrapolated
from orchestrator.placement import Crew, Forecast, batch_limit, grouped

Tree = dict[str, object]


def tree(report: Report) -> Tree:
    """Everything that the report has."""
    plan = report.plan
    return {
        "command": report.command,
        "asked": asked_tree(report),
        "plan": {
            **_forecast(report, plan.chosen),
            "bands": {
                "ttft": _band(plan.bands.ttft),
                "itl": _band(plan.bands.itl),
                "rate": _band(plan.bands.rate),
            },
            "gangs": [
                {
                    "role": plan.chosen.fleet.crews[gang.pool].shape.role,
                    "replica": gang.replica,
                    "nodes": list(gang.nodes),
                    "gpus_per_node": gang.gpus,
                }
                for gang in plan.gangs
            ],
            "bytes_per_gpu": [
                {"role": crew.shape.role, "capacity": plan.asked.gpu.memory_bytes, **parts}
                for crew, parts in zip(plan.chosen.fleet.crews, plan.ledgers, strict=True)
            ],
        },
        "reasons": list(report.reasons),
        "what_ifs": [
            {
                "change": other.change,
                "requests_per_s_most": None if other.forecast is None else other.forecast.rate_most,
            }
            for other in report.what_ifs
        ],
        "runners_up": [_forecast(report, forecast) for forecast in plan.runners_up],
        "refused_by_reason": {
            reason.value: {"count": count, "example": example.violation.why}
            for reason, count, example in grouped(report.refused)
        },
        "refused": [
            {
                "role": refusal.shape.role,
                "layout": refusal.shape.name,
                "reason": refusal.violation.reason,
                "why": refusal.violation.why,
            }
            for refusal in report.refused
        ]
        if report.explained
        else None,
        "notes": list(report.notes),
    }


def asked_tree(report: Report) -> Tree:
    """What was asked for."""
    asked = report.plan.asked
    workload, arrivals = asked.workload, asked.workload.arrivals
    return {
        "model": asked.model.name,
        "weights": asked.weights,
        "gpus": asked.gpus,
        "gpu": asked.gpu.name,
        "nodes": len(asked.nodes),
        "fabric": asked.fabric,
        "workload": {
            "name": workload.name,
            "source": workload.source,
            "input_tokens_mean": workload.input_tokens.mean,
            "output_tokens_mean": workload.output_tokens.mean,
            "prefix_hit": workload.prefix_hit,
            "requests_per_s": None if arrivals is None else arrivals.requests_per_s,
            "requests_per_s_peak": None if arrivals is None else arrivals.peak_requests_per_s,
        },
        "slo": {"ttft_s": asked.slo.ttft_s, "itl_s": asked.slo.itl_s},
        "objective": asked.objective,
        "context_tokens": asked.context_tokens,
        "usd_per_gpu_hour": asked.gpu_price_per_hour,
        "allowed": sorted(asked.allowed),
    }


def predicted_tree(report: Report, forecast: Forecast) -> Tree:
    """What is predicted of a fleet."""
    dollars = money(report.plan, forecast)
    return {
        "requests_per_s": forecast.rate,
        "requests_per_s_most": forecast.rate_most,
        "ttft_s": forecast.ttft_s,
        "itl_s": forecast.itl_s,
        "tokens_per_s": tokens_per_s(report.plan, forecast),
        "decode_batch": forecast.decode_batch,
        "prefill_load": forecast.prefill_load,
        "usd_per_million_tokens": None if dollars is None else dollars[0],
        "usd_per_million_output_tokens": None if dollars is None else dollars[1],
        "usd_per_day": None if dollars is None else dollars[2],
    }


def _forecast(report: Report, forecast: Forecast) -> Tree:
    return {
        "fleet": forecast.fleet.name,
        "gpus": forecast.fleet.gpus,
        "crews": [_crew(report, crew, forecast) for crew in forecast.fleet.crews],
        "predicted": predicted_tree(report, forecast),
    }


def _crew(report: Report, crew: Crew, forecast: Forecast) -> Tree:
    layout = crew.shape.layout
    return {
        "role": crew.shape.role,
        "gangs": crew.gangs,
        "nodes": crew.shape.nodes,
        "tensor_parallel": layout.tp,
        "pipeline_parallel": layout.pp,
        "data_parallel": layout.dp,
        "expert_parallel": layout.ep,
        "redundant_experts": layout.redundant_experts,
        "mtp_drafts": layout.mtp_drafts,
        "kv": crew.shape.kv,
        "chunk_tokens": layout.chunk_tokens,
        "sequences_per_rank_max": batch_limit(report.plan.asked, crew, forecast),
    }


def _band(band: Band | Extrapolated) -> Tree:
    return {
        "p90": band.p90 if isinstance(band, Band) else None,
        "said": band_text(band),
        "source": band_source(band),
    }
