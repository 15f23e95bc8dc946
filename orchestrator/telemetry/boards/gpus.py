"""Which GPUs work, and which are wasted."""

from orchestrator.telemetry.boards.panel import Board, Panel, Query, Shape, Show

_NO_GPU = (
    "No GPU of any host can be read: there is none, or nobody may. It is not known what they do."
)
_NO_KIND = "The spec does not name the GPU: `telemetry.gpu`."

GPUS = Board(
    "r1-gpus",
    "R1 · GPU efficiency",
    "Which GPUs work, and which are wasted? Where the source is `recorded`, a recording is played, "
    "and the numbers are of no GPU of this fleet.",
    (
        Panel(
            "Who reads the GPUs",
            (Query("max by (node, source) (r1_gpu_telemetry)", "{{node}}: {{source}}"),),
            Show.NUMBER,
            "`none`: not available. `recorded`: a recording, of no GPU here.",
            "No telemetry process runs, or dcgm-exporter is read instead.",
            Shape.TABLE,
        ),
        Panel(
            "SMs at work",
            (Query("r1:gpu_sm_active:ratio", "{{node}}/{{gpu}} {{source}}"),),
            Show.RATIO,
            "Share of time and SMs with a warp on them.",
            _NO_GPU,
        ),
        Panel(
            "Tensor cores at work",
            (Query("r1:gpu_tensor_active:ratio", "{{node}}/{{gpu}} {{source}}"),),
            Show.RATIO,
            "Prefill lives here.",
            _NO_GPU,
        ),
        Panel(
            "Memory at work",
            (Query("r1:gpu_dram_active:ratio", "{{node}}/{{gpu}} {{source}}"),),
            Show.RATIO,
            "Share of the memory's bandwidth. Decode lives here.",
            _NO_GPU,
        ),
        Panel(
            "Looks busy and is not",
            (
                Query(
                    "r1:gpu_any_kernel:ratio - r1:gpu_sm_active:ratio",
                    "{{node}}/{{gpu}} {{source}}",
                ),
            ),
            Show.RATIO,
            "What nvidia-smi calls utilisation, less the SMs that work. A hang is near 1.",
            _NO_GPU,
        ),
        Panel(
            "Arithmetic used, of what there is",
            (Query("r1:pool_flops_used:ratio", "{{model}} {{role}}"),),
            Show.RATIO,
            "MFU: tokens times the model's arithmetic for one, over the GPUs' dense FLOPs.",
            _NO_KIND,
        ),
        Panel(
            "Weights read, of the memory's bandwidth",
            (Query("r1:pool_weights_read:ratio", "{{model}} {{role}}"),),
            Show.RATIO,
            "Steps times the weights of one step, if every expert is hit: at most what perf/ "
            "allows.",
            _NO_KIND,
        ),
        Panel(
            "A step, measured and predicted",
            (
                Query("r1:pool_step:seconds", "{{model}} {{role}} measured"),
                Query(
                    "max by (model, role) (r1_pool_step_predicted_seconds)",
                    "{{model}} {{role}} predicted",
                ),
            ),
            Show.SECONDS,
            "Measured: busy time over steps. Predicted: by the plan's `costs`, where the spec has "
            "them, with its error band; context left out.",
            "No rank has made a step in the last minutes.",
        ),
        Panel(
            "Skew between the GPUs of a gang",
            (Query("r1:gang_sm_skew:ratio", "{{gang}}"),),
            Show.RATIO,
            "Between the busiest and the idlest, of the busiest.",
            "No GPU of a gang can be read.",
        ),
        Panel(
            "Power",
            (Query("r1:gpu_power:watts", "{{node}}/{{gpu}} {{source}}"),),
            Show.WATTS,
            "Drawn.",
            _NO_GPU,
        ),
        Panel(
            "Tokens for a joule",
            (Query("r1:tokens_per_joule:ratio", "all"),),
            Show.NUMBER,
            "Output tokens over the power of all GPUs that are read.",
            "No GPU of this fleet can be read: a recording's power made none of its tokens.",
        ),
        Panel(
            "Clock of the SMs",
            (Query("r1:gpu_sm_clock:hertz", "{{node}}/{{gpu}} {{source}}"),),
            Show.HERTZ,
            "",
            _NO_GPU,
        ),
        Panel(
            "Temperature",
            (Query("r1:gpu_temperature:celsius", "{{node}}/{{gpu}} {{source}}"),),
            Show.CELSIUS,
            "",
            _NO_GPU,
        ),
        Panel(
            "Memory in use",
            (Query("r1:gpu_memory_used:bytes", "{{node}}/{{gpu}} {{source}}"),),
            Show.BYTES,
            "",
            _NO_GPU,
        ),
        Panel(
            "Slowed down",
            (
                Query(
                    "max by (node, gpu, reason) (r1_gpu_clock_limited) > 0",
                    "{{node}}/{{gpu}} {{reason}}",
                ),
            ),
            Show.NUMBER,
            "GPUs whose clocks are held down, and by what.",
            "No GPU is slowed down, or none can be read.",
            Shape.TABLE,
        ),
    ),
)
