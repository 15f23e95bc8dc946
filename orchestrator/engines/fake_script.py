"""What the fake engine is asked to do: its options, and what it recites for a prompt."""

import msgspec

VOCABULARY = 129280  # DeepSeek-V3 inference/configs/config_671B.json, vocab_size
END_OF_SENTENCE = 1  # this and the ids below: deepseek-ai/DeepSeek-R1 tokenizer.json
USER = 128803
ASSISTANT = 128804
THINK_START = 128798
THINK_END = 128799
_NEWLINE = 201
_PLAIN_IDS = range(3, 128000)  # the rest are special or unused
_ECHO_OF_NOTHING = (20,)


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
    max_running: int = 256
    max_waiting: int = 4096  # a submit above it ends FAILED

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
