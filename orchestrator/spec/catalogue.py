"""The models that r1-serve speaks for: what clients call them, how they are prompted and sampled.

Facts about a model stand here and nowhere else; what an operator may change stands in the spec.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class TemplateKind(StrEnum):
    """Which text a conversation becomes; `codec` renders each."""

    R1 = "r1"  # DeepSeek-R1, template of 2025-02
    R1_0528 = "r1-0528"
    R1_ZERO = "r1-zero"  # a plain text with tags, as R1-Zero was trained
    DISTILL = "distill"
    V3_0324 = "v3-0324"  # no reasoning


class SystemPrompt(StrEnum):
    """Where the text of system messages goes."""

    FOLD = "fold"  # before the first user message, in its turn
    KEEP = "keep"  # where the template has it


class SamplingPolicy(StrEnum):
    """Whose temperature and top_p are used."""

    FIXED = "fixed"  # the model's own: the official reasoner accepts a client's without effect
    CLIENT = "client"  # the client's, by default 1
    MAPPED = "mapped"  # the client's temperature t as 0.3 t up to 1, and t - 0.7 above


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """One model as a client meets it.

    `context_tokens` is for prompt and output together. `aliases` are public names that lead here
    unless a deployed model with a later `released` has them too.
    """

    name: str  # the checkpoint's own name
    released: str  # ISO date; the latest deployed one answers to a shared alias
    aliases: tuple[str, ...]
    template: TemplateKind
    licence: str
    context_tokens: int
    max_tokens_default: int
    max_tokens_max: int
    system_prompt: SystemPrompt
    sampling: SamplingPolicy
    temperature: float
    top_p: float
    force_think: bool  # the prompt opens the reasoning itself

    @property
    def thinks(self) -> bool:
        """Whether it reasons before it answers."""
        return self.template is not TemplateKind.V3_0324


_REASONER = "deepseek-reasoner"
_CHAT = "deepseek-chat"


def _r1(
    name: str,
    released: str,
    *,
    template: TemplateKind,
    licence: str = "MIT",
    aliases: tuple[str, ...] = (),
    system_prompt: SystemPrompt = SystemPrompt.FOLD,
    force_think: bool = True,
) -> ModelProfile:
    # Temperature, top_p: the Usage Recommendations of https://github.com/deepseek-ai/DeepSeek-R1.
    # Tokens: https://api-docs.deepseek.com/quick_start/pricing, as of R1-0528.
    return ModelProfile(
        name=name,
        released=released,
        aliases=aliases,
        template=template,
        licence=licence,
        context_tokens=131_072,
        max_tokens_default=32_768,
        max_tokens_max=65_536,
        system_prompt=system_prompt,
        sampling=SamplingPolicy.FIXED,
        temperature=0.6,
        top_p=0.95,
        force_think=force_think,
    )


def _v3(name: str, released: str, licence: str, sampling: SamplingPolicy) -> ModelProfile:
    # Tokens: https://api-docs.deepseek.com/quick_start/pricing, `deepseek-chat`.
    return ModelProfile(
        name=name,
        released=released,
        aliases=(_CHAT,),
        template=TemplateKind.V3_0324,
        licence=licence,
        context_tokens=131_072,
        max_tokens_default=4_096,
        max_tokens_max=8_192,
        system_prompt=SystemPrompt.KEEP,
        sampling=sampling,
        temperature=1.0,
        top_p=1.0,
        force_think=False,
    )


def _distill(base: str, licence: str) -> ModelProfile:
    name = f"DeepSeek-R1-Distill-{base}"
    return _r1(name, "2025-01-20", template=TemplateKind.DISTILL, licence=licence)


_QWEN = "MIT, derived from Qwen2.5 (Apache-2.0)"

CATALOGUE: Mapping[str, ModelProfile] = {
    profile.name: profile
    for profile in (
        _r1(
            "DeepSeek-R1-0528",
            "2025-05-28",
            template=TemplateKind.R1_0528,
            aliases=(_REASONER,),
            system_prompt=SystemPrompt.KEEP,  # its model card: "System prompt is supported now"
            force_think=False,  # the same: not required
        ),
        _r1("DeepSeek-R1", "2025-01-20", template=TemplateKind.R1, aliases=(_REASONER,)),
        _r1("DeepSeek-R1-Zero", "2025-01-20", template=TemplateKind.R1_ZERO),
        # The temperature's mapping: model card of DeepSeek-V3-0324, "Temperature".
        _v3("DeepSeek-V3-0324", "2025-03-24", "MIT", SamplingPolicy.MAPPED),
        _v3("DeepSeek-V3", "2024-12-26", "DeepSeek Model License", SamplingPolicy.CLIENT),
        _distill("Qwen-1.5B", _QWEN),
        _distill("Qwen-7B", _QWEN),
        _distill("Qwen-14B", _QWEN),
        _distill("Qwen-32B", _QWEN),
        _distill("Llama-8B", "MIT, derived from Llama 3.1 (Llama 3.1 Community License)"),
        _distill("Llama-70B", "MIT, derived from Llama 3.3 (Llama 3.3 Community License)"),
    )
}
