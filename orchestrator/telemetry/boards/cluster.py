"""Ray and Kubernetes: whether what we stand on is well."""

from orchestrator.telemetry.boards.panel import Board, Panel, Query, Shape, Show

_NO_RAY = "Ray's metrics are not scraped."
_NO_KUBERNETES = (
    "There is no kube-state-metrics: this fleet is not on Kubernetes, or nobody reads it."
)

CLUSTER = Board(
    "r1-cluster",
    "R1 · Ray and Kubernetes",
    "Is what we stand on well?",
    (
        Panel(
            "Processes of ours that give metrics",
            (Query("max by (process) (r1_target_up)", "{{process}}"),),
            Show.NUMBER,
            "1: it does. 0: it hangs or has ended.",
            "No telemetry process runs.",
            Shape.TABLE,
        ),
        Panel(
            "Actors",
            (Query("sum by (State) (ray_actors)", "{{State}}"),),
            Show.NUMBER,
            "Of Ray, by state.",
            _NO_RAY,
            stacked=True,
        ),
        Panel(
            "Placement groups",
            (Query("sum by (State) (ray_placement_groups)", "{{State}}"),),
            Show.NUMBER,
            "A gang has one. PENDING: it waits for nodes.",
            "No gang has ever been placed, or Ray's metrics are not scraped.",
            stacked=True,
        ),
        Panel(
            "Replicas that serve",
            (
                Query(
                    "sum by (deployment) (ray_serve_deployment_replica_healthy)", "{{deployment}}"
                ),
            ),
            Show.NUMBER,
            "Of Serve's deployments: gateways, and gangs.",
            _NO_RAY,
        ),
        Panel(
            "Scaling: wanted and needed",
            (
                Query(
                    "max by (model, role) (ray_r1_scaling_target_gangs)",
                    "{{model}} {{role}} wanted",
                ),
                Query(
                    "max by (model, role) (ray_r1_scaling_needed_gangs)",
                    "{{model}} {{role}} needed",
                ),
            ),
            Show.NUMBER,
            "Gangs.",
            "No model is scaled: `models.scaling`.",
        ),
        Panel(
            "Scaling: reasons",
            (
                Query(
                    "sum by (role, reason) (rate(ray_r1_scaling_decisions_total[5m]))",
                    "{{role}} {{reason}}",
                ),
            ),
            Show.PER_SECOND,
            "Decisions a second.",
            "No model is scaled: `models.scaling`.",
            stacked=True,
        ),
        Panel(
            "CPU of nodes",
            (Query("ray_node_cpu_utilization", "{{ip}} {{IsHeadNode}}"),),
            Show.PERCENT,
            "Of all cores.",
            _NO_RAY,
        ),
        Panel(
            "Memory of nodes",
            (Query("ray_node_mem_used", "{{ip}}"),),
            Show.BYTES,
            "In use.",
            _NO_RAY,
        ),
        Panel(
            "Pods that are not ready",
            (Query('sum by (pod) (kube_pod_status_ready{condition="false"}) > 0', "{{pod}}"),),
            Show.NUMBER,
            "Of the namespaces that kube-state-metrics sees.",
            _NO_KUBERNETES,
            Shape.TABLE,
        ),
        Panel(
            "Restarts of containers",
            (
                Query(
                    "sum by (pod) (increase(kube_pod_container_status_restarts_total[1h])) > 0",
                    "{{pod}}",
                ),
            ),
            Show.NUMBER,
            "In an hour.",
            _NO_KUBERNETES,
            Shape.TABLE,
        ),
        Panel(
            "Certificates, until they expire",
            (Query("min by (certificate) (r1_certificate_expiry_seconds)", "{{certificate}}"),),
            Show.SECONDS,
            "",
            "The spec names none: `telemetry.certificates`.",
            Shape.TABLE,
        ),
        Panel(
            "Oldest file of API keys",
            (Query("max(r1_key_oldest_seconds)", "age"),),
            Show.SECONDS,
            "",
            "The API is open: there are no keys.",
            Shape.NOW,
        ),
    ),
)
