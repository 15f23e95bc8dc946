"""What is between the GPUs, and what breaks there."""

from orchestrator.telemetry.boards.panel import Board, Panel, Query, Shape, Show

_NO_GPU = "No GPU of any host can be read."

FABRIC = Board(
    "r1-fabric",
    "R1 · Fabric",
    "Links between GPUs and hosts, and what goes wrong on them.",
    (
        Panel(
            "NVLink, sent",
            (Query("r1:gpu_nvlink_sent:bytes_per_second", "{{node}}/{{gpu}} {{source}}"),),
            Show.BYTES_PER_SECOND,
            "Over all links of a GPU.",
            "No GPU that says it can be read: NVML tells it from Hopper on.",
        ),
        Panel(
            "NVLink, received",
            (Query("r1:gpu_nvlink_received:bytes_per_second", "{{node}}/{{gpu}} {{source}}"),),
            Show.BYTES_PER_SECOND,
            "Over all links of a GPU.",
            "No GPU that says it can be read: NVML tells it from Hopper on.",
        ),
        Panel(
            "PCIe",
            (
                Query(
                    "sum by (node, direction) (r1_gpu_pcie_bytes_per_second)",
                    "{{node}} {{direction}}",
                ),
            ),
            Show.BYTES_PER_SECOND,
            "Of all GPUs of a host.",
            _NO_GPU,
        ),
        Panel(
            "PCIe packets sent again",
            (Query("increase(r1:gpu_pcie_replays:total[1h])", "{{node}}/{{gpu}}"),),
            Show.NUMBER,
            "In an hour. A link that replays much is loose or dirty.",
            _NO_GPU,
        ),
        Panel(
            "XID errors",
            (Query("r1:gpu_xid:per_10m > 0", "{{node}}/{{gpu}}"),),
            Show.NUMBER,
            "In ten minutes.",
            "There was none, or no GPU can be read.",
            Shape.TABLE,
        ),
        Panel(
            "Memory errors",
            (
                Query(
                    "sum by (node, gpu, kind) (increase(r1_gpu_ecc_errors_total[1d])) > 0",
                    "{{node}}/{{gpu}} {{kind}}",
                ),
            ),
            Show.NUMBER,
            "In a day.",
            "There was none, or no GPU can be read.",
            Shape.TABLE,
        ),
        Panel(
            "KV transfer, p50 and p99",
            (
                Query("r1:transfer_p50:seconds", "{{model}} {{class}} p50"),
                Query("r1:transfer_p99:seconds", "{{model}} {{class}} p99"),
            ),
            Show.SECONDS,
            "The prefill's end to the decode's first token.",
            "The model has no prefill pool, or nobody's prompt was moved in the last minutes.",
        ),
        Panel(
            "Decodes that wait for KV",
            (
                Query("sum by (model) (r1_transfers_open)", "{{model}} waiting"),
                Query("max by (model) (r1_transfer_oldest_seconds)", "{{model}} oldest, s"),
            ),
            Show.NUMBER,
            "How many, and for how long the oldest has.",
            "No gateway gives metrics.",
        ),
        Panel(
            "Network of Ray's nodes",
            (
                Query("sum by (ip) (ray_node_network_send_speed)", "{{ip}} sent"),
                Query("sum by (ip) (ray_node_network_receive_speed)", "{{ip}} received"),
            ),
            Show.BYTES_PER_SECOND,
            "Of the host's interfaces; RDMA goes past them.",
            "Ray's metrics are not scraped.",
        ),
        Panel(
            "Batches of KV events",
            (Query("sum by (outcome) (r1_kv_event_batches)", "{{outcome}}"),),
            Show.NUMBER,
            "Since the ranks that are listed began.",
            "No engine publishes KV events.",
        ),
    ),
)
