"""Whether a KV reference can belong to a prompt, before an engine acts on it."""

from orchestrator.core import KvParams

SAMPLED_TOKENS = 1  # a prefill rank may have computed the token that it drew


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
