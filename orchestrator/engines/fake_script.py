"""What the fake engine is asked to do: its options, and what it recites for a prompt."""

from collections.abc import Sequence

import msgspec

from orchestrator.core import TokenLogprob
from orchestrator.engines.engine import GrammarKind, Sampling
from orchestrator.fleet.doctor import SilentFault

VOCABULARY = 129280  # DeepSeek-V3 inference/configs/config_671B.json, vocab_size
END_OF_SENTENCE = 1  # this and the ids below: deepseek-ai/DeepSeek-R1 tokenizer.json
USER = 128803
ASSISTANT = 128804
THINK_START = 128798
THINK_END = 128799
_NEWLINE = 201
_PLAIN_IDS = range(3, 128000)  # the rest are special or unused
_ECHO_OF_NOTHING = (20,)
_JSON_TYPES = {"object", "array", "string", "number", "integer", "boolean", "null"}


class FakeScript(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ids to recite whatever the prompt: the thought and the end-of-thought mark, if there is a
    thought, then the answer.
    """

    thought_ids: tuple[int, ...] = ()
    answer_ids: tuple[int, ...] = ()


class FakeEngineSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fake engine's options; `--fake-options` is their JSON.

    Without a `script` it repeats the user's last words up to the lengths given, as a thought too if
    the prompt opens one. A prompt that ends in tokens of an answer is continued from there.
    """

    model: str = "deepseek-r1-fake"
    script: FakeScript | None = None
    thought_tokens: int = 16
    answer_tokens: int = 32

    max_model_len: int = 163840  # DeepSeek-R1 config.json, max_position_embeddings
    block_size: int = 64
    kv_blocks: int = 8192
    prefix_blocks: int = 0  # of earlier prompts remembered for prefix hits
    max_running: int = 256
    max_waiting: int = 4096  # a submit above it ends FAILED

    kv_events: bool = False  # publishes what it remembers of prompts
    draft_tokens: int = 0  # that MTP proposes at each step; most are taken
    all2all: str = ""  # how experts would exchange tokens
    link_bytes_per_s: float | None = None  # what a collective would have been measured at

    start_s: float = 0.0
    step_s: float = 0.02
    prefill_s_per_token: float = 0.00002  # added to the step that admits the prompt
    kv_hold_s: float = 60.0  # how long produced KV waits to be pulled
    kv_pull_s: float = 2.0  # how long a pull waits for the rank that holds the KV
    kv_host: str = "127.0.0.1"  # where this engine's KV can be pulled

    seed: int = 0
    refuse_start: str = ""  # the cause with which the start fails
    die_after_tokens: int | None = None  # all requests together
    hang_after_tokens: int | None = None  # no more steps, and says nothing
    fail_requests: float = 0.0  # fraction that ends FAILED within the first tokens
    ignores_budgets: bool = False  # thoughts go on beyond their budgets
    faults: tuple[SilentFault, ...] = ()  # that nobody is told of
    grammar: bool = True  # takes grammars and thinking budgets; otherwise refuses them

    def __post_init__(self) -> None:
        if min(self.max_model_len, self.block_size, self.kv_blocks, self.max_running) < 1:
            raise ValueError("max_model_len, block_size, kv_blocks and max_running must be >= 1")
        if min(self.start_s, self.step_s, self.prefill_s_per_token, self.kv_pull_s) < 0:
            raise ValueError("durations must be >= 0")
        if not 0 <= self.fail_requests <= 1:
            raise ValueError("fail_requests must be in [0, 1]")


def recital(spec: FakeEngineSpec, prompt_ids: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """The ids that are drawn in turn, round and round, and the index of the first one.

    The cycle ends in the end of sentence. Depends on nothing but `spec` and the ids, and goes on
    where the prompt's own answer stops, so that a request can be moved to another engine.
    """
    asked, answered = _split(prompt_ids)
    if spec.script is not None:
        thought, answer = spec.script.thought_ids, spec.script.answer_ids
    else:
        words = _last_words(asked)
        thinks = THINK_START in asked[-2:]
        thought = _repeat(words, spec.thought_tokens) if thinks else ()
        answer = _repeat(words, spec.answer_tokens)
    mark = (THINK_END,) if thought else ()
    cycle = (*thought, *mark, *answer, END_OF_SENTENCE)
    return cycle, answered % len(cycle)


def within_budget(
    script: Sequence[int], prompt_ids: tuple[int, ...], budget: int | None
) -> tuple[int, ...]:
    """The script with its thought ended by the end-of-thought mark once the budget is used up.

    As in vLLM, the ids behind the begin-of-thought mark of the prompt count too, and a thought that
    neither the prompt nor the script opens has no budget.
    """
    ids = tuple(script)
    if budget is None:
        return ids
    opened = _last(prompt_ids, THINK_START)
    if opened > _last(prompt_ids, THINK_END):
        begins, left = 0, max(0, budget - (len(prompt_ids) - 1 - opened))
    elif THINK_START in ids:
        begins, left = ids.index(THINK_START) + 1, budget
    else:
        return ids
    ends = ids.index(THINK_END, begins) if THINK_END in ids[begins:] else len(ids) - 1
    if ends - begins <= left:
        return ids
    answer = ids[ends + 1 :] or (END_OF_SENTENCE,)
    return (*ids[: begins + left], THINK_END, *answer)


def grammar_fault(sampling: Sampling, *, able: bool) -> str | None:
    """Why the output cannot be constrained as asked, in one sentence, or None. Looks at the
    outermost part of a grammar only.
    """
    grammar = sampling.grammar
    if not able and (grammar is not None or sampling.thinking_budget is not None):
        return "this engine takes no grammars and no thinking budgets"
    if grammar is None or grammar.kind is GrammarKind.JSON_OBJECT:
        return None
    try:
        parsed = msgspec.json.decode(grammar.text, type=dict[str, object])
    except msgspec.MsgspecError as error:
        return f"the grammar is no JSON object: {error}"
    if grammar.kind is GrammarKind.JSON_SCHEMA:
        kinds = parsed.get("type", "object")
        if not set(kinds if isinstance(kinds, list) else [kinds]) <= _JSON_TYPES:
            return f"the grammar has the unknown type {kinds!r}"
    return None


def fake_logprob(id_: int, alternatives: int) -> TokenLogprob:
    """The same for every token: it was the best, and each further alternative one nat worse."""
    others = (other for other in _PLAIN_IDS if other != id_)
    ids = (id_, *(next(others) for _ in range(alternatives - 1)))[:alternatives]
    return TokenLogprob(-0.25, tuple((other, -0.25 - rank) for rank, other in enumerate(ids)))


def _last(ids: tuple[int, ...], id_: int) -> int:
    """The index of the last `id_`, or -1."""
    return len(ids) - 1 - ids[::-1].index(id_) if id_ in ids else -1


def _split(prompt_ids: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """The prompt up to where the last answer begins, and how many ids of the answer follow."""
    if ASSISTANT not in prompt_ids:
        return prompt_ids, 0
    at = len(prompt_ids) - prompt_ids[::-1].index(ASSISTANT)
    for opening in (THINK_START, _NEWLINE):  # the chat template writes them
        if prompt_ids[at : at + 1] == (opening,):
            at += 1
    return prompt_ids[:at], len(prompt_ids) - at


def _last_words(asked: tuple[int, ...]) -> tuple[int, ...]:
    at = len(asked) - asked[::-1].index(USER) if USER in asked else 0
    # Without the mark of a user the end of the prompt is what matters; its length is bounded.
    words = tuple(i for i in asked[max(at, len(asked) - 4096) :] if i in _PLAIN_IDS)
    # the newline is the template's, after the mark of a thought
    return words[:-1] if THINK_START in asked[-2:-1] and len(words) > 1 else words


def _repeat(words: tuple[int, ...], tokens: int) -> tuple[int, ...]:
    words = words or _ECHO_OF_NOTHING
    return (words * (tokens // len(words) + 1))[:tokens]
