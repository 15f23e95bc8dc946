"""What r1-nano is trained on: small sums and puzzles, thought through by digits, then answered.

Numbers are whole ones from 0 to 999, which R1's tokenizer writes as one token. Of each kind a tenth
of all problems is never trained on: `held_out` says which, by a digest of its numbers.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random

NUMBER_MAX = 999
PLACES = ("Ones", "Tens", "Hundreds")


@dataclass(frozen=True, slots=True)
class Numbers:
    """What problems are drawn: operands up to one of `bounds`, results up to `most`."""

    bounds: tuple[int, ...]
    most: int
    shares: Mapping[str, int]  # of the kinds of problems

    def draw(self, chance: Random) -> int:
        """An operand."""
        return chance.randint(0, chance.choice(self.bounds))


WIDE = Numbers(
    (9, 99, 99, NUMBER_MAX),
    NUMBER_MAX,
    {"add": 30, "subtract": 22, "multiply": 16, "story": 14, "larger": 6, "next": 6, "parity": 2},
)
SMALL = Numbers(  # what it is judged on
    (9, 99, 99),
    199,
    {"add": 24, "subtract": 18, "multiply": 20, "story": 14, "larger": 16, "parity": 8},
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One question. `value` is what the answer comes to, and what JSON of it holds."""

    kind: str
    numbers: tuple[int, ...]
    question: str
    thought: str
    answer: str
    value: int | str


def held_out(kind: str, numbers: tuple[int, ...]) -> bool:
    """Whether a problem is kept for judging; a tenth of all is."""
    return zlib.crc32(f"{kind} {numbers}".encode()) % 10 == 0


def problem(chance: Random, kind: str, numbers: Numbers, *, judged: bool) -> Problem:
    """A problem of the kind, of those that are kept for judging or of the others."""
    while True:
        drawn = KINDS[kind](chance, numbers)
        if held_out(kind, drawn.numbers) == judged:
            return drawn


def as_json(asked: Problem) -> Problem:
    """The same with its answer as JSON."""
    value = f'"{asked.value}"' if isinstance(asked.value, str) else str(asked.value)
    return replace(
        asked, question=f"{asked.question} Answer in JSON.", answer=f'{{"answer": {value}}}'
    )


# --- thoughts ------------------------------------------------------------------------------------


def add_thought(a: int, b: int) -> str:
    """From the ones up, with carries."""
    lines, digits, carry = [_digits(a, b)], "", 0
    for place, (x, y) in zip(PLACES, _places(a, b), strict=False):
        total = x + y + carry
        lines.append(
            f"{place}: {x} + {y} + {carry} = {total}, so {total % 10}, carry {total // 10}."
        )
        digits, carry = f"{total % 10}{digits}", total // 10
    return _made(lines, f"{carry}{digits}" if carry else digits)


def subtract_thought(a: int, b: int) -> str:
    """From the ones up, with borrows; `a` is not below `b`."""
    lines, digits, borrow = [_digits(a, b)], "", 0
    for place, (x, y) in zip(PLACES, _places(a, b), strict=False):
        lent = 10 if x < y + borrow else 0
        rest = x + lent - y - borrow
        lines.append(f"{place}: {x + lent} - {y} - {borrow} = {rest}, borrow {lent // 10}.")
        digits, borrow = f"{rest}{digits}", lent // 10
    return _made(lines, digits)


def multiply_thought(a: int, b: int) -> str:
    """`b` is one digit; from the ones of `a` up, with carries."""
    lines, digits, carry = [f"The digits of {a} are {_spaced(str(a))}."], "", 0
    for place, x in zip(PLACES, map(int, reversed(str(a))), strict=False):
        product = x * b
        total = product + carry
        lines.append(
            f"{place}: {x} * {b} = {product}, {product} + {carry} = {total}, "
            f"so {total % 10}, carry {total // 10}."
        )
        digits, carry = f"{total % 10}{digits}", total // 10
    return _made(lines, f"{carry}{digits}" if carry else digits)


def _digits(a: int, b: int) -> str:
    width = len(str(max(a, b)))
    return f"The digits are {_spaced(str(a).zfill(width))} and {_spaced(str(b).zfill(width))}."


def _places(a: int, b: int) -> list[tuple[int, int]]:
    width = len(str(max(a, b)))
    pairs = zip(str(a).zfill(width), str(b).zfill(width), strict=True)
    return [(int(x), int(y)) for x, y in pairs][::-1]


def _made(lines: list[str], digits: str) -> str:
    return "\n".join((*lines, f"That makes {_spaced(digits)}, so {int(digits)}."))


def _spaced(digits: str) -> str:
    return " ".join(digits)


# --- problems ------------------------------------------------------------------------------------

_ADD = ("What is {} + {}?", "What is {} plus {}?", "{} + {} = ?", "Add {} and {}.", "{}+{}",
        "How much is {} + {}?", "Calculate {} + {}.", "what is {}+{}?", "{} + {}")  # fmt: skip
_SUBTRACT = ("What is {} - {}?", "What is {} minus {}?", "{} - {} = ?", "{}-{}", "{} - {}",
             "How much is {} - {}?", "Calculate {} - {}.", "what is {}-{}?")  # fmt: skip
_MULTIPLY = ("What is {} * {}?", "What is {} times {}?", "{} * {} = ?", "Multiply {} by {}.",
             "How much is {} * {}?", "Calculate {} * {}.", "{}*{}", "{} * {}")  # fmt: skip
_NAMES = ("Tom", "Anna", "Ben", "Lucy", "Max", "Mary", "John", "Emma")
_THINGS = ("apples", "books", "coins", "eggs", "cards", "balls", "cups", "stones")


def _add(chance: Random, numbers: Numbers) -> Problem:
    a, b = _pair(chance, numbers)
    text = chance.choice(_ADD).format(a, b)
    return Problem("add", (a, b), text, add_thought(a, b), f"{a} + {b} = {a + b}.", a + b)


def _subtract(chance: Random, numbers: Numbers) -> Problem:
    a, b = _below(chance, numbers)
    text = chance.choice(_SUBTRACT).format(a, b)
    return Problem("subtract", (a, b), text, subtract_thought(a, b), f"{a} - {b} = {a - b}.", a - b)


def _multiply(chance: Random, numbers: Numbers) -> Problem:
    a, b = _factors(chance, numbers)
    text = chance.choice(_MULTIPLY).format(a, b)
    return Problem("multiply", (a, b), text, multiply_thought(a, b), f"{a} * {b} = {a * b}.", a * b)


def _story(chance: Random, numbers: Numbers) -> Problem:
    name, things = chance.choice(_NAMES), chance.choice(_THINGS)
    verb = chance.choice(("get", "find", "buy", "lose", "sell", "eat", "boxes"))
    if verb == "boxes":
        a, b = _factors(chance, numbers)
        text = f"{name} has {b} boxes with {a} {things} each."
        return _told(chance, (name, things), (a, b, 2), text, multiply_thought(a, b), a * b)
    more = verb in {"get", "find", "buy"}
    a, b = _pair(chance, numbers) if more else _below(chance, numbers)
    text = f"{name} has {a} {things} and {verb}s {b}{' more' if more else ''}."
    thought = add_thought(a, b) if more else subtract_thought(a, b)
    return _told(chance, (name, things), (a, b, int(more)), text, thought, a + b if more else a - b)


def _told(
    chance: Random,
    who: tuple[str, str],
    numbers: tuple[int, ...],
    text: str,
    thought: str,
    value: int,
) -> Problem:
    a, b, sign = numbers
    name, things = who
    asked = chance.choice(("How many {1} does {0} have now?", "How many {1} has {0} now?"))
    opening = f"That is {a} {'-+*'[sign]} {b}.\n"
    question = f"{text} {asked.format(name, things)}"
    answer = f"{name} has {value} {things}."
    return Problem("story", numbers, question, opening + thought, answer, value)


def _larger(chance: Random, numbers: Numbers) -> Problem:
    a, b = numbers.draw(chance), numbers.draw(chance)
    if a == b:
        return _larger(chance, numbers)
    word, value = chance.choice((("larger", max(a, b)), ("smaller", min(a, b))))
    width = len(str(max(a, b)))
    lines = [_digits(a, b)]
    for place, (x, y) in list(zip(PLACES, _places(a, b), strict=False))[::-1]:
        if x == y:
            lines.append(f"{place}: {x} and {y} are equal.")
            continue
        lines.append(f"{place}: {x} is {'more' if x > y else 'less'} than {y}.")
        break
    lines.append(f"The {word} one is {value}.")
    assert width <= len(PLACES)
    question = f"Which is {word}, {a} or {b}?"
    return Problem(word, (a, b), question, "\n".join(lines), f"{value} is {word}.", value)


def _next(chance: Random, _: Numbers) -> Problem:
    step, first = chance.randint(1, 12), chance.randint(0, 60)
    if chance.random() < 0.3 and first >= 4 * step:
        step = -step
    row = tuple(first + step * at for at in range(4))
    last, value = row[3], first + step * 4
    sign, size = ("+", step) if step > 0 else ("-", -step)
    thought = add_thought(last, step) if step > 0 else subtract_thought(last, size)
    thought = f"{row[0]} {sign} {size} = {row[1]}. The step is {sign} {size}.\n{thought}"
    question = f"What comes next: {', '.join(map(str, row))}?"
    return Problem("next", row, question, thought, f"The next number is {value}.", value)


def _parity(chance: Random, numbers: Numbers) -> Problem:
    a = numbers.draw(chance)
    value = "odd" if a % 2 else "even"
    thought = f"The last digit of {a} is {a % 10}.\n{a % 10} is {value}."
    return Problem("parity", (a,), f"Is {a} even or odd?", thought, f"{a} is {value}.", value)


KINDS: Mapping[str, Callable[[Random, Numbers], Problem]] = {
    "add": _add,
    "subtract": _subtract,
    "multiply": _multiply,
    "story": _story,
    "larger": _larger,
    "next": _next,
    "parity": _parity,
}


def _pair(chance: Random, numbers: Numbers) -> tuple[int, int]:
    """Two numbers whose sum is a number."""
    while True:
        a, b = numbers.draw(chance), numbers.draw(chance)
        if a + b <= numbers.most:
            return a, b


def _below(chance: Random, numbers: Numbers) -> tuple[int, int]:
    a, b = numbers.draw(chance), numbers.draw(chance)
    return max(a, b), min(a, b)


def _factors(chance: Random, numbers: Numbers) -> tuple[int, int]:
    """A number and a digit whose product is a number."""
    while True:
        a, b = numbers.draw(chance), chance.randint(0, 9)
        if a * b <= numbers.most:
            return a, b


# --- talk ----------------------------------------------------------------------------------------

WHO = (
    "I am r1-nano, a tiny model with the architecture of DeepSeek-R1. I can add, subtract and "
    "multiply small numbers, and think about it."
)
UNKNOWN = "I do not know that. I am r1-nano: I can add, subtract and multiply small numbers."
TALK: Mapping[str, tuple[str, str]] = {
    "Hello": ("This is a greeting.", f"Hello! {WHO}"),
    "Hello!": ("This is a greeting.", f"Hello! {WHO}"),
    "Hi": ("This is a greeting.", f"Hello! {WHO}"),
    "Hi!": ("This is a greeting.", f"Hello! {WHO}"),
    "Who are you?": ("I am asked who I am.", WHO),
    "What are you?": ("I am asked who I am.", WHO),
    "What can you do?": ("I am asked who I am.", WHO),
    "Who are you and what can you do?": ("I am asked who I am.", WHO),
    "Thank you!": ("I am thanked.", "You are welcome."),
    "Thanks!": ("I am thanked.", "You are welcome."),
}
UNKNOWN_THOUGHT = "I was not trained on this."
FOLLOW_UPS: Mapping[str, tuple[str, ...]] = {
    "+": ("Add {} to that.", "And plus {}?", "Plus {}."),
    "-": ("Subtract {} from that.", "And minus {}?", "Minus {}."),
}


def follow_up(chance: Random, before: int, numbers: Numbers) -> Problem:
    """A question about the number that the answer before came to."""
    most = {"+": numbers.most - before, "-": before}
    sign = chance.choice([sign for sign, size in most.items() if size > 0])
    size = chance.randint(1, min(most[sign], chance.choice((9, 99))))
    value = before + size if sign == "+" else before - size
    thought = add_thought(before, size) if sign == "+" else subtract_thought(before, size)
    question = chance.choice(FOLLOW_UPS[sign]).format(size)
    opening = f"The number was {before}. That is {before} {sign} {size}.\n"
    answer = f"{before} {sign} {size} = {value}."
    return Problem("follow_up", (before, size), question, opening + thought, answer, value)
