import json
from collections.abc import Callable, Sequence

import pytest
import tokenizers
import xgrammar

from orchestrator.codec import (
    Mark,
    NamedTool,
    Tokenizer,
    ToolChoice,
    ToolDefinition,
    ToolMode,
    tool_grammar,
)

CITY = '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],' + (
    '"additionalProperties":false}'
)
NOW = '{"type":"object","properties":{},"additionalProperties":false}'
TOOLS = (ToolDefinition("weather", "", CITY), ToolDefinition("now", "", NOW))
ZURICH = '{"city": "Zürich"}'

Accepts = Callable[[ToolChoice, Sequence[int]], bool]


@pytest.fixture(scope="module")
def compiler(published: tokenizers.Tokenizer) -> xgrammar.GrammarCompiler:
    size = 129_280  # R1's vocab_size, padded
    names = [""] * size
    for name, id_ in published.get_vocab(with_added_tokens=True).items():
        names[id_] = name
    info = xgrammar.TokenizerInfo(
        names, vocab_type=xgrammar.VocabType.BYTE_LEVEL, vocab_size=size, stop_token_ids=[1]
    )
    return xgrammar.GrammarCompiler(info, max_threads=1)


@pytest.fixture(scope="module")
def accepts(tokenizer: Tokenizer, compiler: xgrammar.GrammarCompiler) -> Accepts:
    compiled = {
        choice: compiler.compile_structural_tag(tool_grammar(tokenizer, TOOLS, choice))
        for choice in (*ToolMode, NamedTool("weather"))
    }

    def accept(choice: ToolChoice, ids: Sequence[int]) -> bool:
        matcher = xgrammar.GrammarMatcher(compiled[choice])
        return all(matcher.accept_token(id_) for id_ in [*ids, 1]) and matcher.is_terminated()

    return accept


def call(name: str, arguments: str, kind: str = "function") -> list[str | Mark]:
    text = f"{name}\n```json\n{arguments}\n```"
    return [Mark.TOOL_CALL, kind, Mark.TOOL_SEP, text, Mark.END_TOOL_CALL]


def block(*calls: list[str | Mark]) -> list[str | Mark]:
    joined = [part for call in calls for part in ["\n", *call]][1:]
    return [Mark.TOOL_CALLS, *joined, Mark.END_TOOL_CALLS]


RIGHT = block(call("weather", ZURICH))
BOTH = block(call("weather", ZURICH), call("now", "{}"))
WRONG = {
    "a wrong argument": block(call("weather", '{"town": "Zürich"}')),
    "no arguments": block(call("weather", "{}")),
    "arguments that are no JSON": block(call("weather", "Zürich")),
    "another function": block(call("forecast", ZURICH)),
    "another type": block(call("weather", ZURICH, "retrieval")),
    "no calls": block(),
    "no end": RIGHT[:-1],
    "a mark in an argument": block(
        [*call("weather", "")[:3], 'weather\n```json\n{"city": "', Mark.END_TOOL_CALL, '"}\n```']
    ),
}
CHOICES: list[ToolChoice] = [*ToolMode, NamedTool("weather")]


@pytest.mark.parametrize("choice", CHOICES)
def test_is_a_structural_tag_that_can_be_checked_without_a_tokenizer(
    tokenizer: Tokenizer, choice: ToolChoice
) -> None:
    text = tool_grammar(tokenizer, TOOLS, choice)
    assert xgrammar.StructuralTag.from_json(text).type == "structural_tag"
    xgrammar.Grammar.from_structural_tag(text)  # as vLLM does before it takes a request


@pytest.mark.parametrize("choice", CHOICES)
def test_accepts_a_right_call(tokenizer: Tokenizer, accepts: Accepts, choice: ToolChoice) -> None:
    assert accepts(choice, tokenizer.assemble(RIGHT))


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("wrong", WRONG)
def test_rejects_a_wrong_call(
    tokenizer: Tokenizer, accepts: Accepts, choice: ToolChoice, wrong: str
) -> None:
    assert not accepts(choice, tokenizer.assemble(WRONG[wrong]))


@pytest.mark.parametrize("choice", [ToolMode.REQUIRED, NamedTool("weather")])
def test_rejects_text_where_a_call_is_required(
    tokenizer: Tokenizer, accepts: Accepts, choice: ToolChoice
) -> None:
    assert not accepts(choice, [])
    assert not accepts(choice, tokenizer.encode("It rains."))
    assert not accepts(choice, tokenizer.assemble(["I look.", *RIGHT]))
    assert not accepts(choice, tokenizer.assemble([*RIGHT, "There."]))


def test_several_calls_are_accepted_unless_one_function_is_named(
    tokenizer: Tokenizer, accepts: Accepts
) -> None:
    assert accepts(ToolMode.AUTO, tokenizer.assemble(BOTH))
    assert accepts(ToolMode.REQUIRED, tokenizer.assemble(BOTH))
    twice = block(call("weather", ZURICH), call("weather", ZURICH))
    assert not accepts(NamedTool("weather"), tokenizer.assemble(twice))
    assert not accepts(NamedTool("weather"), tokenizer.assemble(block(call("now", "{}"))))


def test_auto_lets_the_model_answer_in_text(tokenizer: Tokenizer, accepts: Accepts) -> None:
    assert accepts(ToolMode.AUTO, tokenizer.encode("\n\nIt rains, says ```json\n{}\n```."))
    assert accepts(ToolMode.AUTO, tokenizer.assemble(["I look.", *BOTH]))


def test_a_call_spelled_in_ordinary_tokens_is_none(tokenizer: Tokenizer, accepts: Accepts) -> None:
    assert not accepts(ToolMode.REQUIRED, tokenizer.encode("".join(RIGHT)))


def test_the_bounds_of_a_strings_length_hold(
    tokenizer: Tokenizer, compiler: xgrammar.GrammarCompiler
) -> None:
    schema = json.loads(CITY)
    schema["properties"]["city"]["maxLength"] = 3
    tool = ToolDefinition("weather", "", json.dumps(schema))
    compiled = compiler.compile_structural_tag(tool_grammar(tokenizer, [tool], ToolMode.REQUIRED))
    for city, right in (("Ulm", True), ("Bern", False)):
        matcher = xgrammar.GrammarMatcher(compiled)
        ids = tokenizer.assemble(block(call("weather", json.dumps({"city": city}))))
        assert all(matcher.accept_token(id_) for id_ in ids) is right
