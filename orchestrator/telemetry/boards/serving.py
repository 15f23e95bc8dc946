"""Where a request's time goes: phases, prefix hits, transfers, ranks."""

from orchestrator.telemetry.boards.panel import Board, Panel, Query, Shape, Show

_NO_REQUEST = "No request has been served in the last minutes."
_NO_PREFILL_POOL = (
    "The model has no prefill pool, or nobody's prompt was moved in the last minutes."
)
_NO_VLLM = "The engines are not vLLM."

SERVING = Board(
    "r1-serving",
    "R1 · Serving",
    "Where does a request's time go?",
    (
        Panel(
            "Phases, p50",
            (
                Query("r1:queue_p50:seconds", "queue {{class}}"),
                Query("r1:prefill_p50:seconds", "prefill {{class}}"),
                Query("r1:transfer_p50:seconds", "transfer {{class}}"),
            ),
            Show.SECONDS,
            "The parts of the time to the first token.",
            _NO_REQUEST,
        ),
        Panel(
            "Phases, p99",
            (
                Query("r1:queue_p99:seconds", "queue {{class}}"),
                Query("r1:prefill_p99:seconds", "prefill {{class}}"),
                Query("r1:transfer_p99:seconds", "transfer {{class}}"),
            ),
            Show.SECONDS,
            "The same of the slowest.",
            _NO_REQUEST,
        ),
        Panel(
            "The gateway's own part, p99",
            (
                Query(
                    "histogram_quantile(0.99, sum by (stage, le) "
                    "(rate(r1_gateway_stage_seconds_bucket[5m])))",
                    "{{stage}}",
                ),
            ),
            Show.SECONDS,
            "Before an engine has the request: reading and encoding the prompt, then limits, "
            "admission and routing.",
            _NO_REQUEST,
        ),
        Panel(
            "Tokens",
            (
                Query("sum by (part) (rate(r1_output_tokens_total[5m]))", "{{part}}"),
                Query("sum(rate(r1_prompt_tokens_total[5m]))", "prompt"),
            ),
            Show.PER_SECOND,
            "A second, counted when their request ends.",
            _NO_REQUEST,
        ),
        Panel(
            "Prefix hits",
            (Query("r1:prefix_hit:ratio", "{{model}} {{hit}}"),),
            Show.RATIO,
            "Share of the prompts' tokens, as routing predicted it and as engines counted it.",
            _NO_REQUEST,
        ),
        Panel(
            "How prompts are prefilled",
            (
                Query(
                    "sum by (path, reason) (rate(r1_prefill_paths_total[5m]))",
                    "{{path}}: {{reason}}",
                ),
            ),
            Show.PER_SECOND,
            "In place, or elsewhere and moved, and why.",
            _NO_REQUEST,
            stacked=True,
        ),
        Panel(
            "KV transfers",
            (Query("sum by (outcome) (rate(r1_transfers_total[5m]))", "{{outcome}}"),),
            Show.PER_SECOND,
            "`recomputed`: the decode rank computed what was to be moved.",
            _NO_PREFILL_POOL,
            stacked=True,
        ),
        Panel(
            "KV transfer, bytes",
            (Query("sum(rate(vllm:nixl_bytes_transferred_sum[5m]))", "NIXL"),),
            Show.BYTES_PER_SECOND,
            "As vLLM's connector counts them.",
            "No engine has moved KV with NIXL.",
        ),
        Panel(
            "Requests by rank",
            (Query("max by (role, rank) (r1_rank_requests)", "{{role}} {{rank}}"),),
            Show.NUMBER,
            "That run, as the rank last said.",
            "No gateway reaches a rank.",
        ),
        Panel(
            "KV in use by rank",
            (Query("r1:rank_kv:ratio", "{{role}} {{rank}}"),),
            Show.RATIO,
            "Share of the rank's blocks.",
            "No gateway reaches a rank.",
        ),
        Panel(
            "Preemptions and refusals of engines",
            (Query("sum by (process) (rate(vllm:num_preemptions_total[5m]))", "{{process}}"),),
            Show.PER_SECOND,
            "Requests that an engine threw out to compute them again.",
            _NO_VLLM,
        ),
        Panel(
            "Tokens of a step",
            (
                Query(
                    "sum by (process) (rate(vllm:iteration_tokens_total_sum[5m])) / "
                    "(sum by (process) (rate(vllm:iteration_tokens_total_count[5m])) > 0)",
                    "{{process}}",
                ),
            ),
            Show.NUMBER,
            "Mean, by engine: how full its batches are.",
            "The engines are not vLLM, or have made no step in the last minutes.",
        ),
        Panel(
            "Features that are on",
            (Query("min by (model, feature) (r1_feature_active)", "{{model}} {{feature}}"),),
            Show.NUMBER,
            "1: on. 0: asked for, and not on.",
            "None that can be off in silence is asked for, or none could be judged yet.",
            Shape.TABLE,
        ),
    ),
)
