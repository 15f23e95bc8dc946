"""Named workloads: data with its source. Their lengths are those of one public record each."""

from collections.abc import Mapping

from orchestrator.workload.workload import Lengths, Workload, constant

# DeepSeek, open-infra-index, day 6, of 24 hours in February 2025: 608e9 input tokens, 342e9 of them
# cached, 168e9 output tokens; 4,989 tokens of KV on average per output token. With the ratio of
# input to output and (input + output / 2) = 4,989 the lengths of an average request follow.
DAY6_INPUT_TOKENS = 608e9
DAY6_CACHED_TOKENS = 342e9
DAY6_OUTPUT_TOKENS = 168e9
_DAY6_CONTEXT_TOKENS = 4_989
_DAY6_RATIO = DAY6_INPUT_TOKENS / DAY6_OUTPUT_TOKENS
_DAY6_OUTPUT = _DAY6_CONTEXT_TOKENS / (_DAY6_RATIO + 0.5)

PROFILES: Mapping[str, Workload] = {
    workload.name: workload
    for workload in (
        constant(
            "chat",
            "DeepSeek's own chat and API traffic, open-infra-index day 6; averages only",
            input_tokens=_DAY6_RATIO * _DAY6_OUTPUT,
            output_tokens=_DAY6_OUTPUT,
            prefix_hit=DAY6_CACHED_TOKENS / DAY6_INPUT_TOKENS,
        ),
        # Both as `read_servegen` and `read_trace` summarise the files named.
        Workload(
            "reasoning",
            "alibaba/ServeGen, data/reason/deepseek-r1, a day; it records no prefixes",
            Lengths(1_268, 208, 2_092, 23_423, 57_284),
            Lengths(1_527, 792, 3_432, 12_607, 32_768),
            3_443,
            0.0,
        ),
        Workload(
            "agent",
            "kvcache-ai/Mooncake, synthetic_trace.jsonl; prefix hit of an endless cache",
            Lengths(15_325, 11_587, 38_615, 66_458, 191_378),
            Lengths(149, 69, 389, 769, 893),
            7_292,
            0.651,
        ),
        constant(
            "batch",
            "the 8k/1k case of InferenceX: long prompts, short answers, nothing repeats",
            input_tokens=8_192,
            output_tokens=1_024,
        ),
    )
}
