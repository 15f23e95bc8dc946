"""Sizes of the models: known counts, exactly."""

import pytest

from orchestrator.perf import ARCHITECTURES, Kv, Weight, expert_slots
from orchestrator.perf.facts import facts
from orchestrator.spec.catalogue import CATALOGUE

R1 = ARCHITECTURES["DeepSeek-R1"]


def test_the_catalogue_has_the_models_that_the_spec_knows() -> None:
    assert set(ARCHITECTURES) == set(CATALOGUE)
    assert all(name == each.name for name, each in ARCHITECTURES.items())


def test_r1_has_its_published_number_of_parameters() -> None:
    assert R1.main_params == 671_026_419_200
    assert R1.mtp_params == pytest.approx(11.61e9, rel=1e-3)
    assert R1.active_params(with_embedding=True) == pytest.approx(37.55e9, rel=1e-3)
    assert R1.active_params(with_embedding=False) == pytest.approx(36.62e9, rel=1e-3)


def test_r1s_checkpoint_has_its_published_size() -> None:
    assert R1.checkpoint_bytes(Weight.FP8) == pytest.approx(688.57e9, rel=1e-5)
    assert 390e9 < R1.checkpoint_bytes(Weight.NVFP4) < 425e9


def test_a_token_of_r1_leaves_70_272_bytes_of_kv() -> None:
    assert R1.kv_bytes_per_token(Kv.BF16) == 70_272
    assert R1.kv_bytes_per_token(Kv.FP8) == 35_136


def test_flops_of_a_token_grow_with_what_it_attends_to() -> None:
    assert R1.prefill_flops_per_token(2048) == pytest.approx(81.6e9, rel=1e-3)
    assert R1.decode_flops_per_token(4096) == pytest.approx(142.8e9, rel=1e-3)


@pytest.mark.parametrize(
    ("base", "params", "kv_bytes"),
    [
        ("Qwen-1.5B", 1.777e9, 28_672),
        ("Qwen-7B", 7.616e9, 57_344),
        ("Llama-8B", 8.030e9, 131_072),
        ("Qwen-14B", 14.77e9, 196_608),
        ("Qwen-32B", 32.76e9, 262_144),
        ("Llama-70B", 70.55e9, 327_680),
    ],
)
def test_distilled_models_have_their_published_sizes(
    base: str, params: float, kv_bytes: int
) -> None:
    model = ARCHITECTURES[f"DeepSeek-R1-Distill-{base}"]
    assert model.main_params == pytest.approx(params, rel=1e-3)
    assert model.kv_bytes_per_token(Kv.BF16) == kv_bytes
    assert model.mtp_params == 0


def test_deepseeks_own_deployment_has_nine_and_two_expert_slots() -> None:
    assert expert_slots(256, 32, ep=32) == 9
    assert expert_slots(256, 32, ep=144) == 2


def test_every_known_fact_agrees() -> None:
    assert [fact for fact in facts() if not fact.agrees] == []
    assert len(facts()) >= 10
