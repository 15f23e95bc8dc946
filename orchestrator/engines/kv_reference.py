"""KV references: what vLLM is told of a transfer, and whether that can belong to a prompt."""

from orchestrator.core import KvParams, KvSource
from orchestrator.engines.engine import Submit

SAMPLED_TOKENS = 1  # a prefill rank may have computed the token that it drew
# With it vLLM says of a decode what its prefill rank had cached, instead of what it did not compute
# itself: `RequestState.from_new_request` in vLLM 0.32, v1/engine/output_processor.py.
_OF_THE_PREFILL = "remote_prefill_cached_tokens"


def reference_fault(params: KvParams, prompt_tokens: int, block_size: int) -> str | None:
    """Why the reference cannot be this prompt's, in one sentence, or None.

    vLLM 0.32 does not look: blocks for fewer tokens than the prompt has kill the decode engine, and
    another prompt's blocks give wrong tokens without an error.
    """
    held = params.get("remote_num_tokens")
    if not isinstance(held, int):
        return "the KV reference does not say how many tokens it holds"
    if not prompt_tokens <= held <= prompt_tokens + SAMPLED_TOKENS:
        return f"the KV reference holds {held} tokens, the prompt has {prompt_tokens}"
    groups = params.get("remote_block_ids")
    if not isinstance(groups, list) or not groups:
        return "the KV reference names no blocks"
    needed = -(-prompt_tokens // block_size)
    for group in groups:
        if not isinstance(group, list) or len(group) < needed:
            named = len(group) if isinstance(group, list) else 0
            return f"the KV reference names {named} blocks, the prompt needs {needed}"
    return None


def kv_fault(submit: Submit) -> str | None:
    """Why the submission's KV parameters and its source do not belong together, or None."""
    wanted = submit.kv_source is KvSource.TRANSFER
    if submit.kv_params is not None and not wanted:
        return "KV parameters belong to a transfer and only there"
    if submit.pair is not None and submit.kv_source is KvSource.LOCAL:
        return "a pair belongs to a transfer and only there"
    if wanted and submit.kv_params is None and submit.pair is None:
        return "a transfer needs KV parameters or a pair"
    return None


def kv_transfer_params(submit: Submit) -> dict[str, object]:
    """vLLM's `kv_transfer_params` of a submission that produces or takes KV; the caller's own.

    The count of cached tokens that comes back is that of the engine which is asked.
    """
    params: dict[str, object] = {}
    if submit.kv_params is not None:
        params |= submit.kv_params
        params.pop(_OF_THE_PREFILL, None)
    elif submit.kv_source is KvSource.PRODUCE:
        params |= {"do_remote_decode": True, "do_remote_prefill": False}
    else:
        params |= {"do_remote_decode": False, "do_remote_prefill": True}
    if submit.pair is not None:
        params |= {**submit.pair.peer, "transfer_id": submit.pair.transfer_id}
    return params
