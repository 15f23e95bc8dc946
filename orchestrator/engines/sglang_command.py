"""From one gang to the command lines of SGLang's servers, one a node; pure.

r1-serve does not start these. An operator does, and `r1-serve gateway` serves through their HTTP,
with token ids in and out: SGLang loads no tokenizer and splits no reasoning.
"""

from dataclasses import dataclass

from orchestrator.core import LayoutError, Role
from orchestrator.spec import GangSpec, PoolSpec

_MODES = {Role.PREFILL: "prefill", Role.DECODE: "decode"}


@dataclass(frozen=True, slots=True)
class SglangPorts:
    """TCP ports that are free on each node of the gang."""

    http: int = 30_000  # of the server, on every node; requests go to the first
    rendezvous: int = 5_000  # on the first node
    bootstrap: int = 8_998  # where prefill and decode servers meet, on the first prefill node


def sglang_commands(
    model_path: str,
    served_model_name: str,
    max_model_len: int,
    pool: PoolSpec,
    hosts: tuple[str, ...],
    ports: SglangPorts | None = None,
) -> tuple[tuple[str, ...], ...]:
    """One command for each host, in their order; raises LayoutError if the sizes do not fit.

    SGLang counts as tensor parallel all GPUs of a stage, and attention's data-parallel ranks divide
    them; one server routes among those.
    """
    gang, ports = pool.gang, ports or SglangPorts()
    assert len(hosts) == gang.nodes
    _check(gang)
    stage = gang.tensor_parallel * gang.data_parallel
    flags = [
        *("--model-path", model_path),
        *("--served-model-name", served_model_name),
        *("--context-length", str(max_model_len)),
        "--skip-tokenizer-init",
        *("--tp-size", str(stage)),
        *("--pp-size", str(gang.pipeline_parallel)),
    ]
    if gang.data_parallel > 1:
        flags += ["--enable-dp-attention", "--dp-size", str(gang.data_parallel)]
    if gang.expert_parallel:
        flags += ["--ep-size", str(stage)]
    if pool.role in _MODES:
        flags += [
            *("--disaggregation-mode", _MODES[pool.role]),
            *("--disaggregation-transfer-backend", "nixl"),
            *("--disaggregation-bootstrap-port", str(ports.bootstrap)),
        ]
    if gang.nodes > 1:
        flags += [
            *("--dist-init-addr", f"{hosts[0]}:{ports.rendezvous}"),
            *("--nnodes", str(gang.nodes)),
        ]
    return tuple(
        (
            *("python", "-m", "sglang.launch_server"),
            *("--host", host, "--port", str(ports.http)),
            *flags,
            *(("--node-rank", str(rank)) if gang.nodes > 1 else ()),
            "--enable-metrics",
            *pool.args,
        )
        for rank, host in enumerate(hosts)
    )


def _check(gang: GangSpec) -> None:
    gpus = gang.gpus
    if gpus % gang.nodes:
        raise LayoutError(
            f"{gpus} GPUs do not divide over {gang.nodes} nodes",
            "make the product of the parallel sizes a multiple of the nodes",
        )
