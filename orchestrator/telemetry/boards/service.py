"""Whether users are served, and what that costs."""

from orchestrator.telemetry.boards.panel import Board, Panel, Query, Shape, Show

_NO_REQUEST = "No request has ended in the last minutes."
_NO_SLO = "The spec has no SLO: give `models.scaling` a `ttft_s` and a `tpot_s`."
_NO_PRICE = "The spec does not say what a GPU costs: `telemetry.gpu_hour_price`."

SERVICE = Board(
    "r1-service",
    "R1 · Service level and cost",
    "Are users served, and what does a million tokens cost?",
    (
        Panel(
            "SLO kept, last hour",
            (Query("1 - r1:slo_missed_1h:ratio", "{{model}} {{class}}"),),
            Show.RATIO,
            "Share of the requests that kept TTFT and TPOT, of those that were not the client's "
            "own fault.",
            _NO_SLO,
            Shape.NOW,
        ),
        Panel(
            "Error budget, times as fast as it may go",
            (
                Query("r1:slo_burn_1h:budgets", "{{model}} {{class}}, 1 h"),
                Query("r1:slo_burn_6h:budgets", "{{model}} {{class}}, 6 h"),
            ),
            Show.NUMBER,
            "Above 1 the month's budget will not last; 14.4 pages.",
            _NO_SLO,
        ),
        Panel(
            "Requests that ended",
            (Query("sum by (outcome) (rate(r1_requests_total[5m]))", "{{outcome}}"),),
            Show.PER_SECOND,
            "By how they ended.",
            _NO_REQUEST,
            stacked=True,
        ),
        Panel(
            "Time to first token",
            (
                Query("r1:ttft_p50:seconds", "{{model}} {{class}} p50"),
                Query("r1:ttft_p99:seconds", "{{model}} {{class}} p99"),
            ),
            Show.SECONDS,
            "From the request's arrival at the gateway to its first token.",
            _NO_REQUEST,
        ),
        Panel(
            "Time to first token of the answer",
            (
                Query("r1:first_answer_p50:seconds", "{{model}} {{class}} p50"),
                Query("r1:first_answer_p99:seconds", "{{model}} {{class}} p99"),
            ),
            Show.SECONDS,
            "Behind the thought: when a reader of answers sees the first word.",
            "No request that thinks has come to its answer in the last minutes.",
        ),
        Panel(
            "Gap between tokens",
            (
                Query("r1:itl_p50:seconds", "{{model}} {{class}} p50"),
                Query("r1:itl_p99:seconds", "{{model}} {{class}} p99"),
            ),
            Show.SECONDS,
            "ITL as clients see it, of one stream in eight.",
            "None of the streams that are measured, one in eight, has sent tokens lately.",
        ),
        Panel(
            "Cost of a million tokens",
            (Query("r1:cost_per_million:money", "{{model}} {{class}} {{part}}"),),
            Show.MONEY,
            "What the ranks' busy time costs, shared out by work; idle time is not in it.",
            _NO_PRICE,
        ),
        Panel(
            "Cost an hour",
            (Query("r1:cost:per_hour", "{{model}} {{class}} {{part}}"),),
            Show.MONEY,
            "By what tokens are paid as, and what is idle. Together: the GPUs' hours times their "
            "price.",
            _NO_PRICE,
            stacked=True,
        ),
        Panel(
            "Charged an hour",
            (
                Query(
                    "sum by (model, class) (rate(r1_revenue_total[5m])) * 3600",
                    "{{model}} {{class}}",
                ),
            ),
            Show.MONEY,
            "What tenants pay at the model's prices, to put beside the cost.",
            "The model has no `prices`, or nobody has used it in the last minutes.",
        ),
        Panel(
            "Answers that are not what they should be",
            (
                Query("sum by (model) (increase(r1_empty_answers_total[1h]))", "{{model}} empty"),
                Query("sum by (model) (increase(r1_invalid_json_total[1h]))", "{{model}} no JSON"),
                Query(
                    "sum by (model) (increase(r1_thoughts_closed_total[1h]))",
                    "{{model}} thoughts closed",
                ),
            ),
            Show.NUMBER,
            "In the last hour.",
            "There was none since the gateways started.",
        ),
    ),
)
