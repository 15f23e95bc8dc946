"""Two pools whose KV would differ are found before their weights load."""

import pytest

from orchestrator.engines.pairing import pairing_fault

MTP = ("--speculative-config", '{"method": "mtp", "num_speculative_tokens": 1}')


@pytest.mark.parametrize(
    ("prefill", "decode"),
    [
        ((), ()),
        (("--max-num-seqs", "8"), ("--max-num-seqs", "64", "--enable-dbo")),
        (("--kv-cache-dtype", "fp8"), ("--kv_cache_dtype=fp8",)),
        (MTP, ("--speculative-config", '{"num_speculative_tokens":1,"method":"mtp"}')),
    ],
)
def test_settings_that_the_kv_does_not_depend_on_may_differ(
    prefill: tuple[str, ...], decode: tuple[str, ...]
) -> None:
    assert pairing_fault(prefill, decode) is None


@pytest.mark.parametrize(
    ("prefill", "decode", "said"),
    [
        (("--kv-cache-dtype", "fp8"), (), "--kv-cache-dtype says fp8 to prefill and nothing"),
        (MTP, (), "--speculative-config"),
        ((), ("--attention-backend", "FLASHMLA"), "nothing to prefill and FLASHMLA to decode"),
    ],
)
def test_others_are_named(prefill: tuple[str, ...], decode: tuple[str, ...], said: str) -> None:
    fault = pairing_fault(prefill, decode)
    assert fault is not None
    assert said in fault
