"""The sizes of R1's family, and what follows from them: parameters, bytes and FLOPs by component.

Counts are of whole models unless a name says otherwise. FLOPs count a multiply and an add as two.
Layer sizes are those of each model's config.json on huggingface.co/deepseek-ai.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.perf.precision import KV_BYTES, WEIGHT_BYTES, Kv, Weight

GROUPS_CHOSEN = 4  # of a router's groups of experts, for each token: config.json, topk_group


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """MLA: one latent KV head that all query heads share; tensor parallelism copies it."""

    heads: int
    q_rank: int
    kv_rank: int
    nope: int  # width of a head's part without position
    rope: int  # width of the position part, one for all heads in the cache
    value: int

    def replicated(self, hidden: int) -> int:
        """Parameters of a layer that every TP rank holds whole: the down-projections."""
        return hidden * (self.q_rank + self.kv_rank + self.rope)

    def divided(self, hidden: int) -> int:
        """Parameters of a layer that TP divides: up-projections and output."""
        query = self.q_rank * self.heads * (self.nope + self.rope)
        keys = self.kv_rank * self.heads * (self.nope + self.value)
        return query + keys + self.heads * self.value * hidden

    def norms(self) -> int:
        """Parameters of a layer's norms inside attention."""
        return self.q_rank + self.kv_rank

    @property
    def head_values(self) -> int:
        """Numbers of one token's queries, keys, values and outputs in a layer."""
        return 2 * self.heads * (self.nope + self.rope + self.value)

    @property
    def kv_values(self) -> int:
        """Numbers that one token leaves in a layer's cache."""
        return self.kv_rank + self.rope

    @property
    def kv_shards(self) -> int:
        """Into how many TP ranks the cache can be divided: one head is copied, never divided."""
        return 1

    @property
    def decode_flops(self) -> int:
        """Of one token for each token of context, in one layer: absorbed, on the latent."""
        return 2 * self.heads * (2 * self.kv_rank + self.rope)

    @property
    def prefill_flops(self) -> int:
        """Of one token for each token before it, in one layer: on full heads."""
        return 2 * self.heads * (self.nope + self.rope + self.value)


@dataclass(frozen=True, slots=True)
class GroupedAttention:
    """GQA: `kv_heads` that groups of query heads share; tensor parallelism divides them."""

    heads: int
    kv_heads: int
    width: int
    bias: bool  # on q, k and v

    def replicated(self, hidden: int) -> int:
        """Nothing of `hidden` x anything: TP divides all projections."""
        return 0 * hidden

    def divided(self, hidden: int) -> int:
        """Parameters of a layer that TP divides."""
        out = (self.heads + 2 * self.kv_heads) * self.width
        return (hidden + self.bias) * out + self.heads * self.width * hidden

    def norms(self) -> int:
        """No norms inside attention."""
        return 0

    @property
    def head_values(self) -> int:
        """Numbers of one token's queries, keys, values and outputs in a layer."""
        return 2 * (self.heads + self.kv_heads) * self.width

    @property
    def kv_values(self) -> int:
        """Numbers that one token leaves in a layer's cache: keys and values."""
        return 2 * self.kv_heads * self.width

    @property
    def kv_shards(self) -> int:
        """Into how many TP ranks the cache can be divided."""
        return self.kv_heads

    @property
    def decode_flops(self) -> int:
        """Of one token for each token of context, in one layer."""
        return 2 * self.heads * 2 * self.width

    @property
    def prefill_flops(self) -> int:
        """Of one token for each token before it, in one layer."""
        return self.decode_flops


Attention = LatentAttention | GroupedAttention


@dataclass(frozen=True, slots=True)
class Experts:
    """The routed and shared experts of a MoE layer; routing picks `chosen` in `GROUPS_CHOSEN`."""

    routed: int
    shared: int
    chosen: int
    groups: int
    width: int

    def expert(self, hidden: int) -> int:
        """Parameters of one expert."""
        return 3 * hidden * self.width

    def router(self, hidden: int) -> int:
        """Parameters of a layer's router, with its bias."""
        return self.routed * (hidden + 1)


@dataclass(frozen=True, slots=True)
class Architecture:
    """One model."""

    name: str
    layers: int
    hidden: int
    dense_layers: int  # with a plain feed-forward: the first ones
    dense_width: int
    attention: Attention
    experts: Experts | None  # None: dense throughout
    vocabulary: int
    tied: bool  # the head is the embedding
    mtp_layers: int
    context_tokens: int  # of the checkpoint's config

    @property
    def moe_layers(self) -> int:
        """Layers with experts."""
        return self.layers - self.dense_layers

    @property
    def attention_params(self) -> int:
        """Attention of one layer, without norms."""
        return self.attention.replicated(self.hidden) + self.attention.divided(self.hidden)

    @property
    def dense_params(self) -> int:
        """The plain feed-forward of one dense layer."""
        return 3 * self.hidden * self.dense_width

    @property
    def expert_params(self) -> int:
        """One routed or shared expert; 0 in a dense model."""
        return self.experts.expert(self.hidden) if self.experts else 0

    @property
    def embedding_params(self) -> int:
        """The input embedding; the head is as large."""
        return self.vocabulary * self.hidden

    def layer_rest_params(self) -> int:
        """Norms of one layer."""
        return 2 * self.hidden + self.attention.norms()

    def components(self) -> Mapping[str, int]:
        """Parameters of the main model by component; the MTP layer is apart."""
        experts = self.experts
        moe = self.moe_layers
        return {
            "embedding": self.embedding_params,
            "head": 0 if self.tied else self.embedding_params,
            "attention": self.layers * self.attention_params,
            "dense": self.dense_layers * self.dense_params,
            "routed_experts": moe * experts.routed * self.expert_params if experts else 0,
            "shared_experts": moe * experts.shared * self.expert_params if experts else 0,
            "router": moe * experts.router(self.hidden) if experts else 0,
            "norms": self.layers * self.layer_rest_params() + self.hidden,
        }

    @property
    def main_params(self) -> int:
        """Of the main model, without the MTP layer."""
        return sum(self.components().values())

    @property
    def mtp_params(self) -> int:
        """Of the MTP layers, without the embedding and head that the checkpoint repeats."""
        if not self.mtp_layers:
            return 0
        return self.mtp_layers * sum(self._mtp_components().values())

    def _mtp_components(self) -> Mapping[str, int]:
        assert self.experts is not None
        return {
            "projection": 2 * self.hidden * self.hidden,  # of the embedding beside the hidden state
            "attention": self.attention_params,
            "experts": (self.experts.routed + self.experts.shared) * self.expert_params,
            "router": self.experts.router(self.hidden),
            "norms": self.layer_rest_params() + 3 * self.hidden,
        }

    def active_params(self, *, with_embedding: bool) -> int:
        """Parameters that one token uses; the embedding is looked up, the rest multiplied."""
        parts = dict(self.components())
        if self.experts:
            share = self.experts.chosen / self.experts.routed
            parts["routed_experts"] = round(parts["routed_experts"] * share)
        if not with_embedding and not self.tied:
            del parts["embedding"]
        return sum(parts.values())

    def checkpoint_bytes(self, weight: Weight) -> float:
        """Of the files, with the MTP layer and what it repeats.

        In FP8 the matrices of attention, feed-forwards and experts are quantised; in NVFP4 only the
        experts', and attention stays BF16; embedding, head, routers and norms are BF16 in each.
        """
        dense = Weight.BF16 if weight is Weight.NVFP4 else weight
        wide = WEIGHT_BYTES[Weight.BF16]
        by_part = {
            "attention": WEIGHT_BYTES[dense],
            "dense": WEIGHT_BYTES[weight],
            "routed_experts": WEIGHT_BYTES[weight],
            "shared_experts": WEIGHT_BYTES[weight],
            "experts": WEIGHT_BYTES[weight],
        }
        main = sum(n * by_part.get(part, wide) for part, n in self.components().items())
        if not self.mtp_layers:
            return main
        mtp = sum(n * by_part.get(part, wide) for part, n in self._mtp_components().items())
        return main + self.mtp_layers * (mtp + 2 * self.embedding_params * wide)

    def kv_bytes_per_token(self, kv: Kv) -> float:
        """Of one token's cache in all layers of the main model."""
        return self.layers * self.attention.kv_values * KV_BYTES[kv]

    def prefill_flops_per_token(self, context_mean: float) -> float:
        """Of one prompt token that sees `context_mean` tokens before it, without the head."""
        linear = 2 * (self.active_params(with_embedding=False) - self.embedding_params)
        return linear + self.layers * self.attention.prefill_flops * context_mean

    def decode_flops_per_token(self, context: float) -> float:
        """Of one output token after `context` tokens, with the head."""
        linear = 2 * self.active_params(with_embedding=False)
        return linear + self.layers * self.attention.decode_flops * context


def _r1(name: str) -> Architecture:
    return Architecture(  # config.json of deepseek-ai/DeepSeek-R1; the family shares it
        name=name,
        layers=61,
        hidden=7168,
        dense_layers=3,
        dense_width=18_432,
        attention=LatentAttention(
            heads=128, q_rank=1536, kv_rank=512, nope=128, rope=64, value=128
        ),
        experts=Experts(routed=256, shared=1, chosen=8, groups=8, width=2048),
        vocabulary=129_280,
        tied=False,
        mtp_layers=1,
        context_tokens=163_840,
    )


def _distill(
    base: str, layers: int, hidden: int, heads: tuple[int, int], width: int, vocabulary: int
) -> Architecture:
    # config.json of each; heads are of queries and of keys and values, all 128 wide.
    qwen = base.startswith("Qwen")
    return Architecture(
        name=f"DeepSeek-R1-Distill-{base}",
        layers=layers,
        hidden=hidden,
        dense_layers=layers,
        dense_width=width,
        attention=GroupedAttention(heads[0], heads[1], width=128, bias=qwen),
        experts=None,
        vocabulary=vocabulary,
        tied=False,  # tie_word_embeddings is false in all six releases
        mtp_layers=0,
        context_tokens=131_072,
    )


ARCHITECTURES: Mapping[str, Architecture] = {
    each.name: each
    for each in (
        _r1("DeepSeek-R1-0528"),
        _r1("DeepSeek-R1"),
        _r1("DeepSeek-R1-Zero"),
        _r1("DeepSeek-V3-0324"),
        _r1("DeepSeek-V3"),
        _distill("Qwen-1.5B", 28, 1536, (12, 2), 8960, 151_936),
        _distill("Qwen-7B", 28, 3584, (28, 4), 18_944, 152_064),
        _distill("Qwen-14B", 48, 5120, (40, 8), 13_824, 152_064),
        _distill("Qwen-32B", 64, 5120, (40, 8), 27_648, 152_064),
        _distill("Llama-8B", 32, 4096, (32, 8), 14_336, 128_256),
        _distill("Llama-70B", 80, 8192, (64, 8), 28_672, 128_256),
    )
}
