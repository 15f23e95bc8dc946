"""What the fleet can take, and how near that is."""

from orchestrator.telemetry.boards.panel import Board, Panel, Query, Shape, Show

_NO_REQUEST = "No request has come in the last minutes."

CAPACITY = Board(
    "r1-capacity",
    "R1 · Capacity",
    "How much more can the fleet take?",
    (
        Panel(
            "Offered and served",
            (
                Query('sum(rate(r1_admission_total{decision=~"admit|shed"}[5m]))', "decided"),
                Query('sum(rate(r1_admission_total{decision="admit"}[5m]))', "admitted"),
                Query('sum(rate(r1_admission_total{decision="shed"}[5m]))', "refused"),
            ),
            Show.PER_SECOND,
            "Requests a second.",
            _NO_REQUEST,
        ),
        Panel(
            "Why requests were not admitted at once",
            (
                Query(
                    'sum by (reason) (rate(r1_admission_total{decision!="admit"}[5m]))',
                    "{{reason}}",
                ),
            ),
            Show.PER_SECOND,
            "",
            "All requests were admitted at once.",
            stacked=True,
        ),
        Panel(
            "Slots",
            (
                Query("sum by (model) (r1_request_slots)", "{{model}} there are"),
                Query("sum by (model) (r1_requests_in_flight)", "{{model}} held"),
                Query("sum by (model) (r1_requests_queued)", "{{model}} waiting"),
            ),
            Show.NUMBER,
            "Requests that may be admitted, that are, and that wait.",
            "No gateway gives metrics.",
        ),
        Panel(
            "Ranks that have a request",
            (Query("r1:pool_busy:ratio", "{{model}} {{role}}"),),
            Show.RATIO,
            "Share of the ranks' time, by pool.",
            "No gateway reaches a rank.",
        ),
        Panel(
            "Ranks",
            (
                Query("max by (model, role) (r1_ranks_open)", "{{model}} {{role}} open"),
                Query("max by (model, role) (r1_ranks_planned)", "{{model}} {{role}} planned"),
            ),
            Show.NUMBER,
            "That can be reached, and that the spec asks for.",
            "No gateway gives metrics.",
        ),
        Panel(
            "GPUs of pools",
            (Query("max by (model, role) (r1_pool_gpus)", "{{model}} {{role}}"),),
            Show.NUMBER,
            "Of the gangs that can be reached.",
            "No gateway gives metrics.",
            Shape.NOW,
        ),
        Panel(
            "Steps of a rank",
            (Query("r1:pool_steps:per_second", "{{model}} {{role}}"),),
            Show.PER_SECOND,
            "Mean of the pool: an engine that steps more slowly is fuller, or sick.",
            "No gateway reaches a rank.",
        ),
        Panel(
            "Most loaded rank, above the mean",
            (Query("r1:rank_skew:ratio", "{{model}} {{role}}"),),
            Show.RATIO,
            "",
            "Ranks have fewer than four requests on average.",
        ),
        Panel(
            "Limits of tenants that were met",
            (Query("sum by (limit) (rate(r1_tenant_limits_total[5m]))", "{{limit}}"),),
            Show.PER_SECOND,
            "",
            "No tenant has met a limit.",
            stacked=True,
        ),
        Panel(
            "Thinking budgets",
            (Query("sum by (reason) (rate(r1_thinking_budgets_total[5m]))", "{{reason}}"),),
            Show.PER_SECOND,
            "Requests whose thought has one, by whose it is.",
            "No request had one in the last minutes.",
            stacked=True,
        ),
        Panel(
            "Requests that lived through something",
            (
                Query("sum by (model) (rate(r1_requests_resumed_total[5m]))", "{{model}} resumed"),
                Query("sum by (reason) (rate(r1_requests_moved_total[5m]))", "moved: {{reason}}"),
                Query(
                    "sum by (model) (rate(r1_requests_quarantined_total[5m]))",
                    "{{model}} given up",
                ),
            ),
            Show.PER_SECOND,
            "Resumed on another rank, moved off one that drains, or given up since engines die of "
            "them.",
            "There was none since the gateways started.",
        ),
    ),
)
