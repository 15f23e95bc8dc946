"""Requests in vLLM's terms, and its logprobs in ours. Importing this module imports vLLM."""

import json

from vllm import SamplingParams
from vllm.logprobs import FlatLogprobs
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.structured_output.backend_xgrammar import has_xgrammar_unsupported_json_features

from orchestrator.core import KvSource, TokenIds, TokenLogprob
from orchestrator.engines.engine import GrammarKind, Submit
from orchestrator.engines.kv_reference import kv_transfer_params
from orchestrator.engines.structural_tag import structural_tag


def sampling_params(submit: Submit) -> SamplingParams:
    """vLLM's parameters: ids only, one update per step, and no end but those we name."""
    sampling = submit.sampling
    max_tokens = sampling.max_tokens
    extra: dict[str, object] | None = None
    if submit.kv_source is not KvSource.LOCAL:
        extra = {"kv_transfer_params": kv_transfer_params(submit)}  # vLLM writes into it
    if submit.kv_source is KvSource.PRODUCE:
        max_tokens = 1
    constraint = None
    if sampling.grammar is not None:
        constraint = StructuredOutputsParams(structural_tag=structural_tag(sampling.grammar))
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        seed=sampling.seed,
        logprobs=sampling.logprobs,
        flat_logprobs=True,
        structured_outputs=constraint,
        thinking_token_budget=sampling.thinking_budget,
        stop_token_ids=list(sampling.stop_token_ids),
        ignore_eos=True,  # R1's is among the stop tokens unless the caller wants none
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        extra_args=extra,
    )


def token_logprobs(
    flat: FlatLogprobs | None, tokens: int, alternatives: int | None
) -> list[TokenLogprob]:
    """Those of an update's first `tokens` ids.

    Of each vLLM has the one drawn first, then the best, in which that one usually occurs again; but
    not where it has joined the updates of several steps for a slow reader.
    """
    if flat is None or alternatives is None:
        return []
    logprobs: list[TokenLogprob] = []
    spans = zip(flat.start_indices[:tokens], flat.end_indices[:tokens], strict=True)
    for span in spans:
        known = dict(zip(flat.token_ids[slice(*span)], flat.logprobs[slice(*span)], strict=True))
        best = sorted(known.items(), key=lambda found: -found[1])
        logprobs.append(TokenLogprob(flat.logprobs[span[0]], tuple(best[:alternatives])))
    return logprobs


def grammar_fault(submit: Submit, able: bool) -> str | None:
    """Why the engine cannot constrain the output as asked, in one sentence, or None."""
    sampling = submit.sampling
    if sampling.grammar is None and sampling.thinking_budget is None:
        return None
    if not able:
        return "grammars and thinking budgets need the tokenizer, which this engine runs without"
    if sampling.grammar is not None and sampling.grammar.kind is GrammarKind.JSON_SCHEMA:
        return _schema_fault(sampling.grammar.text)
    return None


def _schema_fault(text: str) -> str | None:
    """vLLM checks what it gets as a schema, and not what stands inside a structural tag."""
    try:
        schema = json.loads(text)
    except ValueError as error:
        return f"the schema is not JSON: {error}"
    if not isinstance(schema, dict):
        return "the schema is not an object"
    if has_xgrammar_unsupported_json_features(schema):
        return "the schema uses what grammars cannot enforce, such as multipleOf or uniqueItems"
    return None


def prompt_fault(prompt_ids: TokenIds, vocabulary: int) -> str | None:
    """What no model of that vocabulary can read in the prompt, in one sentence, or None.

    vLLM looks only if it has a tokenizer; without, an id beyond the embedding kills the core.
    """
    if not prompt_ids:
        return "the prompt is empty"
    if max(prompt_ids) >= vocabulary:
        return f"the prompt has ids that are not in 0..{vocabulary - 1}"
    return None
