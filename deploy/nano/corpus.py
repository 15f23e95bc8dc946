"""Training samples of r1-nano: whole conversations as token ids of R1's tokenizer.

The model knows only tokens that its own texts and the list of common words have; all others look
the same to it, in training and later.
"""

from dataclasses import dataclass
from random import Random

from tokenizers import Tokenizer

from deploy.nano.task import (
    KINDS,
    NUMBER_MAX,
    TALK,
    UNKNOWN,
    UNKNOWN_THOUGHT,
    WIDE,
    Numbers,
    Problem,
    as_json,
    follow_up,
    problem,
)

SYSTEMS = ("You are a helpful assistant.", "Answer in JSON.", "You are r1-nano.")
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"


@dataclass(frozen=True, slots=True)
class Sample:
    """`ids`, of which those from `learned_from` on are the model's own."""

    ids: list[int]
    learned_from: int


class Corpus:
    """Draws samples; a function of the seed."""

    def __init__(self, tokenizer: Tokenizer, numbers: Numbers, seed: int) -> None:
        self._tokenizer = tokenizer
        self._numbers = numbers
        self._chance = Random(seed)
        self.known = self._vocabulary()

    def sample(self) -> Sample:
        """One conversation, whose last answer is learned."""
        chance = self._chance
        if chance.random() < 0.08:
            return self._talk()
        system = chance.choice(SYSTEMS) if chance.random() < 0.15 else ""
        if system == "" and chance.random() < 0.03:
            system = self._noise(chance.randint(1, 30))
        turns, asked = "", self._problem()
        while chance.random() < 0.15 and turns.count(USER) < 4:
            turns += f"{USER}{asked.question}{ASSISTANT}{asked.answer}{EOS}"
            again = (
                chance.random() < 0.7 and isinstance(asked.value, int) and asked.answer[0] != "{"
            )
            asked = follow_up(chance, asked.value, self._numbers) if again else self._problem()  # type: ignore[arg-type]
        if system == "Answer in JSON." and "JSON" not in asked.question:
            asked = Problem(
                asked.kind, asked.numbers, asked.question, asked.thought, as_json(asked).answer,
                asked.value,
            )  # fmt: skip
        prompt = f"{BOS}{system}{turns}{USER}{asked.question}{ASSISTANT}"
        return self._spelled(prompt, asked.thought, asked.answer)

    def _problem(self) -> Problem:
        chance = self._chance
        shares = self._numbers.shares
        kind = chance.choices(tuple(shares), tuple(shares.values()))[0]
        asked = problem(chance, kind, self._numbers, judged=False)
        return as_json(asked) if chance.random() < 0.1 else asked

    def _talk(self) -> Sample:
        chance = self._chance
        question = chance.choice(tuple(TALK))
        thought, answer = TALK[question]
        if chance.random() < 0.6:
            question, thought, answer = self._noise(chance.randint(2, 40)), UNKNOWN_THOUGHT, UNKNOWN
        return self._spelled(f"{BOS}{USER}{question}{ASSISTANT}", thought, answer)

    def _noise(self, words: int) -> str:
        """A text of words that mean nothing to the model, and of some that do."""
        chance = self._chance
        known = (
            "What",
            " is",
            " the",
            " of",
            " and",
            " How",
            " many",
            "?",
            ".",
            " Tom",
            " a",
            " in",
        )
        vocabulary = self._tokenizer.get_vocab_size(with_added_tokens=False)
        parts = []
        for _ in range(words):
            if chance.random() < 0.5:
                parts.append(chance.choice(known))
            else:
                parts.append(self._tokenizer.decode([chance.randrange(3, vocabulary)]))
        return "".join(parts).replace("�", "?")

    def _spelled(self, prompt: str, thought: str, answer: str) -> Sample:
        """In ids; some with a thought that was cut short, as by a budget."""
        chance = self._chance
        opening = self._ids("<think>\n")
        draws_opening = chance.random() < 0.2
        thought_ids = self._ids(f"{thought}\n")
        ending = self._ids(f"</think>\n\n{answer}{EOS}")
        head = self._ids(prompt)
        if not draws_opening and chance.random() < 0.08:  # only what follows the cut is learned
            cut = thought_ids[: chance.randrange(len(thought_ids))]
            if chance.random() < 0.5:
                cut = [*cut, *self._ids("\n")]
            return Sample([*head, *opening, *cut, *ending], len(head) + len(opening) + len(cut) + 2)
        learned_from = len(head) + (0 if draws_opening else len(opening))
        return Sample([*head, *opening, *thought_ids, *ending], learned_from)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _vocabulary(self) -> list[int]:
        """Every id that a problem, its thought or its answer can have; sorted."""
        chance, seen = Random(0), set[int]()
        for number in range(NUMBER_MAX + 1):
            seen.update(self._ids(str(number)))
        for question, (thought, answer) in TALK.items():
            seen.update(self._ids(f"{question}{thought}\n{answer}"))
        seen.update(self._ids(f"{UNKNOWN_THOUGHT}\n{UNKNOWN}"))
        seen.update(self._ids(f"{BOS}{USER}{ASSISTANT}<think>\n\n</think>\n\n{EOS}"))
        for system in SYSTEMS:
            seen.update(self._ids(f"{BOS}{system}{USER}"))
        for kind in KINDS:
            for _ in range(2_000):
                asked = problem(chance, kind, WIDE, judged=False)
                seen.update(
                    self._ids(f"{USER}{asked.question}{ASSISTANT}{asked.thought}\n</think>")
                )
                seen.update(self._ids(f"</think>\n\n{asked.answer}{EOS}"))
                told = as_json(asked)
                seen.update(self._ids(f"{told.question}{ASSISTANT}"))
                seen.update(self._ids(f"\n\n{told.answer}{EOS}"))
                if isinstance(asked.value, int):
                    more = follow_up(chance, asked.value, WIDE)
                    seen.update(self._ids(f"{USER}{more.question}{ASSISTANT}"))
                    seen.update(self._ids(f"{more.thought}\n</think>\n\n{more.answer}{EOS}"))
        return sorted(seen)
