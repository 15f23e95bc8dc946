"""Which model a public name leads to."""

from orchestrator.core import Role
from orchestrator.spec import CATALOGUE, ModelSpec, PoolSpec, SamplingPolicy, public_names

UNIFIED = (PoolSpec(Role.UNIFIED),)


def model(name: str, *aliases: str) -> ModelSpec:
    return ModelSpec("x", UNIFIED, name, aliases or None)


def test_the_reasoner_is_the_newest_r1_that_is_deployed() -> None:
    old, new = model("DeepSeek-R1"), model("DeepSeek-R1-0528")
    assert public_names((old,))["deepseek-reasoner"] == old
    for models in ((old, new), (new, old)):
        names = public_names(models)
        assert names["deepseek-reasoner"] == new
        assert names["DeepSeek-R1"] == names["deepseek-ai/DeepSeek-R1"] == old
        assert next(iter(names)) == "deepseek-reasoner"


def test_an_alias_of_the_spec_goes_before_the_catalogues_and_replaces_them() -> None:
    small = model("DeepSeek-R1-Distill-Qwen-7B", "deepseek-reasoner", "our-model")
    large = model("DeepSeek-R1-0528")
    names = public_names((large, small))
    assert names["deepseek-reasoner"] == names["our-model"] == small
    assert names["DeepSeek-R1-0528"] == large
    assert "deepseek-reasoner" not in public_names((model("DeepSeek-R1", "mine"),))
    assert "deepseek-chat" not in names


def test_the_catalogue_holds_the_family_with_its_policies() -> None:
    distills = [name for name in CATALOGUE if "Distill" in name]
    assert len(distills) == 6
    assert {"DeepSeek-R1", "DeepSeek-R1-Zero", "DeepSeek-R1-0528", "DeepSeek-V3"} < set(CATALOGUE)
    for name, profile in CATALOGUE.items():
        assert profile.licence
        assert profile.max_tokens_default <= profile.max_tokens_max <= profile.context_tokens
        if profile.thinks:
            drawn = (profile.sampling, profile.temperature, profile.top_p)
            assert drawn == (SamplingPolicy.FIXED, 0.6, 0.95), name
