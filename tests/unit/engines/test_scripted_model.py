"""The scripted model follows tools, JSON and commands, from a prompt's ids alone."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.codec import (
    AnswerText,
    AssistantMessage,
    Begin,
    Conversation,
    Message,
    NamedTool,
    Piece,
    Prefix,
    Prompt,
    ReasoningText,
    Splitter,
    SystemMessage,
    Tokenizer,
    ToolCall,
    ToolCallArguments,
    ToolCallStart,
    ToolDefinition,
    ToolMessage,
    ToolMode,
    UserMessage,
    render,
    render_fim,
    tool_grammar,
)
from orchestrator.core import token_ids
from orchestrator.engines import Grammar, GrammarKind, Sampling, Submit
from orchestrator.engines.fake_script import within_budget
from orchestrator.engines.scripted_model import ScriptedModel
from orchestrator.spec.catalogue import SystemPrompt, TemplateKind


def tool(name: str, about: str, /, **properties: object) -> ToolDefinition:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return ToolDefinition(name, about, json.dumps(schema))


MAGIC = tool("magic_function", "Apply a magic function to an input.", input={"type": "integer"})
NO_ARGUMENTS = tool("magic_function_no_args", "Calculate a magic function.")
WEATHER = tool("get_weather", "Get the weather at a location.", location={"type": "string"})
GREETING = tool("greeting_generator", "Generate a greeting.", answer_style={"type": "string"})
ADDER = tool("my_adder_tool", "Sum two integers.", a={"type": "integer"}, b={"type": "integer"})
CUSTOMER = tool(
    "unicode_customer",
    "Tool for creating a customer with Unicode name.",
    customer_name={"type": "string"},
    description={"type": "string"},
)
TALKING = [kind for kind in TemplateKind if kind is not TemplateKind.R1_ZERO]


class World:
    """A model, and conversations with it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.model = ScriptedModel(tokenizer)

    def prompt(
        self,
        *messages: Message | str,
        tools: tuple[ToolDefinition, ...] = (),
        template: TemplateKind = TemplateKind.R1,
        system_prompt: SystemPrompt = SystemPrompt.FOLD,
        prefix: Prefix | None = None,
        suppress_thinking: bool = False,
    ) -> Prompt:
        spoken = tuple(UserMessage(m) if isinstance(m, str) else m for m in messages)
        conversation = Conversation(spoken, tools, prefix, suppress_thinking)
        return render(
            self.tokenizer,
            template,
            conversation,
            system_prompt=system_prompt,
            force_think=template is not TemplateKind.V3_0324,
        )

    def ids(self, prompt: Prompt, grammar: Grammar | None = None) -> tuple[int, ...]:
        """What the model writes, without the end of sentence."""
        *ids, end = self.model(Submit("r", prompt.ids, Sampling(99, grammar=grammar)))
        assert end == self.tokenizer.control.end_of_sentence
        return tuple(ids)

    def pieces(self, prompt: Prompt, grammar: Grammar | None = None) -> tuple[Piece, ...]:
        splitter = Splitter(self.tokenizer, begin=prompt.begin)
        return (*splitter.push(self.ids(prompt, grammar)), *splitter.end())

    def answer(self, prompt: Prompt, grammar: Grammar | None = None) -> str:
        pieces = self.pieces(prompt, grammar)
        return "".join(piece.text for piece in pieces if isinstance(piece, AnswerText))

    def thought(self, prompt: Prompt) -> str:
        return "".join(p.text for p in self.pieces(prompt) if isinstance(p, ReasoningText))

    def calls(self, prompt: Prompt, grammar: Grammar | None = None) -> list[tuple[str, object]]:
        texts: list[tuple[str, str]] = []
        for piece in self.pieces(prompt, grammar):
            match piece:
                case ToolCallStart(_, name):
                    texts.append((name, ""))
                case ToolCallArguments(_, text):
                    texts[-1] = (texts[-1][0], texts[-1][1] + text)
                case _:
                    pass
        return [(name, json.loads(text)) for name, text in texts]


@pytest.fixture(scope="module")
def world(tokenizer: Tokenizer) -> World:
    return World(tokenizer)


@pytest.mark.parametrize("template", TALKING)
def test_a_thought_comes_first_where_the_prompt_opens_one(
    world: World, template: TemplateKind
) -> None:
    prompt = world.prompt("Why is the sky blue?", template=template)
    thinks = prompt.begin is Begin.THOUGHT
    assert thinks is (template is not TemplateKind.V3_0324)
    assert ("好" in world.thought(prompt)) is thinks
    assert "Why is the sky blue?" in world.answer(prompt)
    closed = world.prompt("Why?", template=template, suppress_thinking=True)
    assert world.thought(closed) == ""
    assert "Why?" in world.answer(closed)


def test_a_model_that_opens_thoughts_itself_does(tokenizer: Tokenizer) -> None:
    world = World(tokenizer)
    world.model = ScriptedModel(tokenizer, opens_thoughts=True)
    prompt = world.prompt("Why?", template=TemplateKind.V3_0324)
    assert world.tokenizer.decode(world.ids(prompt)).startswith("<think>\n")


def test_r1_zero_writes_its_tags_as_text(world: World) -> None:
    prompt = world.prompt("SAY: yes", template=TemplateKind.R1_ZERO)
    ids = world.ids(prompt)
    assert world.tokenizer.decode(ids).endswith("</think> <answer> yes </answer>")
    assert max(ids) < 128000


@pytest.mark.parametrize("system_prompt", list(SystemPrompt))
@pytest.mark.parametrize("template", [t for t in TALKING if t is not TemplateKind.DISTILL])
@pytest.mark.parametrize("system", [True, False])
def test_a_tool_is_called_with_what_the_question_says(
    world: World, template: TemplateKind, system_prompt: SystemPrompt, system: bool
) -> None:
    before = (SystemMessage("You are kind."),) if system else ()

    def calls(question: str, *tools: ToolDefinition) -> list[tuple[str, object]]:
        prompt = world.prompt(
            *before, question, tools=tools, template=template, system_prompt=system_prompt
        )
        return world.calls(prompt)

    question = "What is the value of magic_function(3)? Use the tool."
    assert calls(question, WEATHER, MAGIC) == [("magic_function", {"input": 3})]
    question = "What is the value of magic_function_no_args()? Use the tool."
    assert calls(question, MAGIC, NO_ARGUMENTS) == [("magic_function_no_args", {})]
    question = "What is the weather in San Francisco, CA?"
    assert calls(question, MAGIC, WEATHER) == [("get_weather", {"location": "San Francisco, CA"})]
    question = "Using the tool, generate a Pirate greeting."
    assert calls(question, GREETING) == [("greeting_generator", {"answer_style": "Pirate"})]
    question = "What is the weather in London and in Paris?"
    assert calls(question, MAGIC, WEATHER) == [
        ("get_weather", {"location": "London"}),
        ("get_weather", {"location": "Paris"}),
    ]
    question = "Create a customer named '你好啊集团' (Hello Group) - a Chinese technology company"
    assert calls(question, CUSTOMER) == [
        ("unicode_customer", {"customer_name": "你好啊集团", "description": "Hello Group"})
    ]
    assert calls("Hello!", MAGIC, WEATHER) == []


@pytest.mark.parametrize("template", [t for t in TALKING if t is not TemplateKind.DISTILL])
def test_results_of_tools_are_repeated_and_the_next_question_calls_again(
    world: World, template: TemplateKind
) -> None:
    told = (
        UserMessage("What is 1 + 2"),
        AssistantMessage("", (ToolCall("my_adder_tool", '{"a": 1, "b": 2}'),)),
        ToolMessage('{"result": 3}'),
    )
    prompt = world.prompt(*told, tools=(ADDER,), template=template)
    assert world.calls(prompt) == []
    assert '{"result": 3}' in world.answer(prompt)
    again = world.prompt(
        *told, AssistantMessage("3"), "What is 3 + 4", tools=(ADDER,), template=template
    )
    assert world.calls(again) == [("my_adder_tool", {"a": 3, "b": 4})]


def test_a_structural_tag_makes_it_call_what_it_names(world: World) -> None:
    def grammar(choice: ToolMode | NamedTool) -> Grammar:
        text = tool_grammar(world.tokenizer, (MAGIC, WEATHER), choice)
        return Grammar(GrammarKind.STRUCTURAL_TAG, text)

    prompt = world.prompt("Hello!", tools=(MAGIC, WEATHER))
    assert world.calls(prompt, grammar(NamedTool("get_weather")))[0][0] == "get_weather"
    assert len(world.calls(prompt, grammar(ToolMode.REQUIRED))) == 1
    assert world.calls(prompt, grammar(ToolMode.AUTO)) == []
    both = world.prompt("What is the weather in Rome and in Oslo?", tools=(MAGIC, WEATHER))
    assert len(world.calls(both, grammar(ToolMode.REQUIRED))) == 2
    assert len(world.calls(both, grammar(NamedTool("get_weather")))) == 1


SCHEMA = {
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer", "minimum": 5},
                "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
            },
            "required": ["value", "next"],
        }
    },
    "type": "object",
    "properties": {
        "node": {"$ref": "#/$defs/Node"},
        "colour": {"enum": ["red", "green"]},
        "kind": {"const": "x"},
        "ratios": {"type": "array", "items": {"type": "number"}, "minItems": 2},
        "on": {"type": ["string", "null"], "format": "date"},
        "sure": {"type": "boolean"},
        "spare": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["node", "colour", "kind", "ratios", "on", "sure"],
}


def test_json_fits_its_schema_also_over_several_lines(world: World) -> None:
    grammar = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(SCHEMA))
    texts = [
        world.answer(world.prompt(question), grammar)
        for question in ("Something green with 7 and 8.5", "Something green with 7 and 8.25")
    ]
    assert ["\n" in text for text in texts].count(True) == 1
    for text in texts:
        answer = json.loads(text)
        assert set(answer) == set(SCHEMA["required"])
        assert answer["node"]["value"] == 7
        depth = 0
        while answer["node"] is not None:
            answer["node"], depth = answer["node"]["next"], depth + 1
        assert 1 < depth < 20
        assert (answer["colour"], answer["kind"], answer["sure"]) == ("green", "x", True)
        assert len(answer["ratios"]) == 2
        assert answer["on"] == "2025-01-20"


JOKE = {"setup", "punchline"}


@pytest.mark.parametrize(
    ("question", "keys"),
    [
        ("Tell me a joke about cats as JSON with 'setup' and 'punchline' keys.", JOKE),
        ("Tell me a joke about cats, json please.", JOKE),
        ('Parse it.\nEXAMPLE JSON OUTPUT:\n{\n "question": "?",\n "reply": "!"\n}', None),
        ("Any json.", {"answer"}),
    ],
)
def test_json_mode_has_the_keys_that_are_asked_for(
    world: World, question: str, keys: set[str] | None
) -> None:
    grammar = Grammar(GrammarKind.JSON_OBJECT)
    answer = json.loads(world.answer(world.prompt(question), grammar))
    assert set(answer) == (keys or {"question", "reply"})


def test_commands_are_obeyed(world: World) -> None:
    text = "  two\nlines, </think> and 你好"
    assert world.answer(world.prompt(f"SAY: {text}")) == text
    prompt = world.prompt("RAW: a</think>b<think>c")
    assert world.pieces(prompt) == (ReasoningText("a"), AnswerText("b<think>c"))
    prompt = world.prompt("THINK 50 LONG 70")
    ids = world.ids(prompt)
    assert ids.index(128799) == 50 + 1
    assert len(ids) == 50 + 3 + 70
    prompt = world.prompt("THINK 3 SAY: THINK 5")
    assert (world.thought(prompt), world.answer(prompt)) == (" step by step", "THINK 5")


def test_commands_for_the_traps(world: World) -> None:
    assert world.answer(world.prompt("EMPTY")) == ""
    assert world.thought(world.prompt("EMPTY")) != ""
    assert world.ids(world.prompt("EMPTY", template=TemplateKind.V3_0324)) == ()
    skipped = world.prompt("SKIP SAY: yes")
    assert world.pieces(skipped) == (AnswerText("yes"),)
    assert world.tokenizer.decode(world.ids(skipped)) == "\n</think>\n\nyes"
    rethought = world.prompt("RETHINK SAY: yes")
    assert world.ids(rethought)[0] == 128798
    assert world.answer(rethought) == "yes"
    inside = world.prompt("TOOL-IN-THINK What is the weather in Paris?", tools=(WEATHER,))
    assert 128799 not in world.ids(inside)
    assert world.calls(inside) == [("get_weather", {"location": "Paris"})]
    pieces = world.pieces(world.prompt("BAD-JSON", tools=(WEATHER,)))
    bad = "".join(piece.text for piece in pieces if isinstance(piece, ToolCallArguments))
    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(bad)


def test_a_middle_is_filled_in(world: World) -> None:
    prompt = render_fim(world.tokenizer, "def add(a, b):", "\n\nprint(add(1, 2))")
    assert world.tokenizer.decode(world.ids(prompt)) == "\n    return result\n"


PROMPTS: list[Callable[[World], Prompt]] = [
    lambda world: world.prompt("Why is the sky blue? 你好"),
    lambda world: world.prompt("Why?", suppress_thinking=True),
    lambda world: world.prompt("Why?", template=TemplateKind.V3_0324),
    lambda world: world.prompt("Why?", template=TemplateKind.R1_ZERO),
    lambda world: world.prompt("The weather in London and in Paris?", tools=(WEATHER,)),
    lambda world: world.prompt("SKIP"),
    lambda world: world.prompt("RETHINK"),
    lambda world: world.prompt("TOOL-IN-THINK", tools=(WEATHER,)),
    lambda world: world.prompt("THINK 12 LONG 40"),
    lambda world: world.prompt("RAW: a</think>b<｜tool▁calls▁begin｜>c"),
    lambda world: world.prompt("Go on", prefix=Prefix(None, "```python\n")),
    lambda world: world.prompt("Go on", prefix=Prefix("I was thinking", None)),
    lambda world: world.prompt("Go on", prefix=Prefix("I was thinking", "and I say")),
    lambda world: render_fim(world.tokenizer, "a", "b"),
]


@pytest.mark.parametrize("make", PROMPTS)
def test_a_request_that_moves_goes_on_where_it_was(
    world: World, make: Callable[[World], Prompt]
) -> None:
    prompt = make(world)
    ids = world.ids(prompt)
    for emitted in range(len(ids) + 1):
        resumed = Prompt(prompt.ids + token_ids(ids[:emitted]), prompt.begin)
        assert world.ids(resumed) == ids[emitted:]


@given(budget=st.integers(0, 40), emitted=st.integers(0, 60))
@settings(max_examples=60)
def test_a_thought_that_a_budget_has_cut_is_not_taken_up_again(
    tokenizer: Tokenizer, budget: int, emitted: int
) -> None:
    world = World(tokenizer)
    prompt = world.prompt("Why is the sky blue?")
    whole = within_budget(world.ids(prompt), tuple(prompt.ids), budget)
    thought = whole[: whole.index(128799)]
    assert len(thought) <= budget
    resumed = Prompt(prompt.ids + token_ids(whole[:emitted]), prompt.begin)
    assert within_budget(world.ids(resumed), tuple(resumed.ids), budget) == whole[emitted:]


def test_the_beginning_of_another_answer_is_kept(world: World) -> None:
    prompt = world.prompt("Go on", prefix=Prefix("I was thinking", "and I say"))
    assert world.thought(prompt) == ""
    assert world.answer(prompt).startswith("You said")


def test_a_long_prompt_takes_milliseconds_and_no_recursion(world: World) -> None:
    prompt = world.prompt("word " * 20_000 + "SAY: done")
    assert world.answer(prompt) == "done"
