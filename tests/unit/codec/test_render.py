import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.codec import (
    AssistantMessage,
    Begin,
    Conversation,
    Mark,
    Message,
    Prefix,
    Prompt,
    SystemMessage,
    Tokenizer,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    UserMessage,
    render_fim,
)
from orchestrator.codec.tool_definitions import tool_definitions
from orchestrator.core import token_ids
from orchestrator.spec import SystemPrompt, TemplateKind
from tests.unit.codec.prompts import (
    A1,
    BOS,
    CALLED,
    DISTILL,
    EOS,
    FIRST,
    MARKED,
    Q1,
    Q2,
    R1,
    R1_0528,
    R1_OUT,
    R1_ZERO,
    THINK,
    V3,
    A,
    Decode,
    Encode,
    S,
    T,
    U,
    calls,
    hostile,
    prompt_of,
    results,
)

WEATHER = ToolDefinition("weather", "The weather.", '{"type": "object", "properties": {}}')


def any_messages(text: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[Message, ...]]:
    message = st.one_of(
        st.builds(SystemMessage, text),
        st.builds(UserMessage, text),
        st.builds(AssistantMessage, text),
        st.builds(ToolMessage, text),
        calls(text),
    )
    return st.lists(message, max_size=6).map(tuple)


@st.composite
def conversations(draw: st.DrawFn, text: st.SearchStrategy[str]) -> Conversation:
    definition = st.builds(ToolDefinition, text, text, text.map(json.dumps))
    prefixes = st.builds(Prefix, st.none() | text, text) | st.builds(Prefix, text, st.none())
    return Conversation(
        draw(any_messages(text)),
        tuple(draw(st.lists(definition, max_size=2))),
        draw(st.none() | prefixes),
        draw(st.booleans()),
    )


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([Q1], f"{U}Q1"),
        ([S, Q1], f"{U}S\n\nQ1"),
        ([SystemMessage(""), Q1], f"{U}Q1"),
        ([S], f"{U}S"),
        ([S, A1], f"{U}S{A}\n\nA1{EOS}"),
        ([Q1, A1, S, Q2], f"{U}S\n\nQ1{A}\n\nA1{EOS}{U}Q2"),
        ([S, T, Q1, Q2], f"{U}S\n\nT\n\nQ1{U}Q2"),
    ],
)
def test_a_folded_system_prompt_stands_in_the_first_turn(
    tokenizer: Tokenizer, published_encode: Encode, messages: list[Message], text: str
) -> None:
    prompt = prompt_of(tokenizer, R1, messages, SystemPrompt.FOLD)
    assert list(prompt.ids) == published_encode(f"{BOS}{text}{A}{THINK}")


@pytest.mark.parametrize("template", MARKED)
def test_tools_are_defined_after_the_system_prompt(
    tokenizer: Tokenizer, published_encode: Encode, template: TemplateKind
) -> None:
    tools = (WEATHER, ToolDefinition("now", "", "{}"))
    definitions = "".join(tool_definitions(tools))
    kept = prompt_of(tokenizer, template, Conversation((S, Q1), tools))
    opening = THINK if template in (R1, DISTILL) else ""
    assert list(kept.ids) == published_encode(f"{BOS}S\n\n{definitions}{U}Q1{A}{opening}")
    folded = prompt_of(tokenizer, template, Conversation((Q1,), tools), SystemPrompt.FOLD)
    assert list(folded.ids) == published_encode(f"{BOS}{U}{definitions}\n\nQ1{A}{opening}")


def test_a_definition_shows_the_form_of_a_call_and_each_function_as_json() -> None:
    text = "".join(tool_definitions((WEATHER, ToolDefinition("é", "", '{"b":1,"a":"ü"}'))))
    assert f"{Mark.TOOL_CALLS}{Mark.TOOL_CALL}function{Mark.TOOL_SEP}FUNCTION_NAME\n```json" in text
    blocks = text.partition("## Functions\n")[2].split("```json\n")[1:]
    first, second = (json.loads(block.partition("\n```")[0]) for block in blocks)
    assert first["function"]["description"] == "The weather."
    assert second == {
        "type": "function",
        "function": {"name": "é", "parameters": {"b": 1, "a": "ü"}},
    }
    assert '{"b": 1, "a": "ü"}' in text  # neither escaped nor sorted


OPENED = f"{BOS}{U}Q1{A}"
PREFIXES = [
    (Prefix("I was", None), f"{THINK}I was", Begin.THOUGHT_ON),
    (Prefix("", None), THINK, Begin.THOUGHT),
    (Prefix("so", "It is"), f"{THINK}so\n</think>\n\nIt is", Begin.ANSWER_ON),
    (Prefix(None, "It is"), f"{THINK}\n</think>\n\nIt is", Begin.ANSWER_ON),
    (Prefix("so", ""), f"{THINK}so\n</think>\n\n", Begin.ANSWER),
]


@pytest.mark.parametrize("template", [R1, DISTILL, R1_0528])
@pytest.mark.parametrize("force_think", [True, False])
@pytest.mark.parametrize(("prefix", "text", "begin"), PREFIXES)
def test_a_prefix_is_gone_on_with(
    tokenizer: Tokenizer,
    published_encode: Encode,
    template: TemplateKind,
    force_think: bool,
    prefix: Prefix,
    text: str,
    begin: Begin,
) -> None:
    conversation = Conversation((Q1,), prefix=prefix)
    prompt = prompt_of(tokenizer, template, conversation, force_think=force_think)
    assert prompt == Prompt(token_ids(published_encode(OPENED + text)), begin)


@pytest.mark.parametrize(
    ("prefix", "text", "begin"),
    [
        (Prefix("so", "It is"), "It is", Begin.ANSWER_ON),
        (Prefix(None, ""), "", Begin.ANSWER),
        (Prefix("so", None), "", Begin.ANSWER),
    ],
)
def test_v3_goes_on_with_the_content_of_a_prefix(
    tokenizer: Tokenizer, published_encode: Encode, prefix: Prefix, text: str, begin: Begin
) -> None:
    prompt = prompt_of(tokenizer, V3, Conversation((Q1,), prefix=prefix))
    assert prompt == Prompt(token_ids(published_encode(OPENED + text)), begin)


@pytest.mark.parametrize("template", [R1, DISTILL, R1_0528])
def test_suppressed_thinking_is_opened_and_closed(
    tokenizer: Tokenizer, published_encode: Encode, template: TemplateKind
) -> None:
    prompt = prompt_of(tokenizer, template, Conversation((Q1,), suppress_thinking=True))
    text = f"{OPENED}<think>\n\n</think>\n\n"
    assert prompt == Prompt(token_ids(published_encode(text)), Begin.ANSWER)


@pytest.mark.parametrize("template", [R1, DISTILL, R1_0528])
def test_reasoning_that_is_not_forced_may_be_opened_by_the_model(
    tokenizer: Tokenizer, published_encode: Encode, template: TemplateKind
) -> None:
    free = prompt_of(tokenizer, template, [Q1], force_think=False)
    assert free == Prompt(token_ids(published_encode(OPENED)), Begin.EITHER)
    forced = prompt_of(tokenizer, template, [Q1], force_think=True)
    assert forced == Prompt(token_ids(published_encode(OPENED + THINK)), Begin.THOUGHT)
    assert prompt_of(tokenizer, V3, [Q1], force_think=True).begin is Begin.ANSWER


ZERO_TAIL = "<answer> answer here </answer>."


@pytest.mark.parametrize(
    ("conversation", "text", "begin"),
    [
        (Conversation((Q1,)), " User: Q1. Assistant: <think>", Begin.THOUGHT),
        (
            Conversation((Q1, A1, Q2)),
            " User: Q1. Assistant: <answer> \n\nA1 </answer>\nUser: Q2. Assistant: <think>",
            Begin.THOUGHT,
        ),
        (
            Conversation((Q1, CALLED, R1_OUT)),
            " User: Q1. Assistant: <answer> "
            f"{FIRST.removesuffix(EOS)} </answer>\nTool: R1 Assistant: <think>",
            Begin.THOUGHT,
        ),
        (
            Conversation((Q1,), suppress_thinking=True),
            " User: Q1. Assistant: <think> </think> <answer>",
            Begin.ANSWER,
        ),
        (
            Conversation((Q1,), prefix=Prefix("so", None)),
            " User: Q1. Assistant: <think> so",
            Begin.THOUGHT_ON,
        ),
        (
            Conversation((Q1,), prefix=Prefix("so", "It")),
            " User: Q1. Assistant: <think> so </think> <answer> It",
            Begin.ANSWER_ON,
        ),
        (Conversation((S, Q1)), "\n\nS\n\nUser: Q1. Assistant: <think>", Begin.THOUGHT),
    ],
)
def test_r1_zero_is_prompted_in_plain_text(
    tokenizer: Tokenizer, conversation: Conversation, text: str, begin: Begin
) -> None:
    prompt = prompt_of(tokenizer, R1_ZERO, conversation)
    shown = tokenizer.decode(prompt.ids)
    assert shown.startswith("A conversation between User and Assistant. The user asks a question")
    assert shown.partition(ZERO_TAIL)[2] == text
    assert list(prompt.ids) == [0, *tokenizer.encode(shown)]
    assert prompt.begin is begin


def test_r1_zero_folds_the_system_prompt_and_may_open_the_reasoning_itself(
    tokenizer: Tokenizer,
) -> None:
    prompt = prompt_of(tokenizer, R1_ZERO, [S, Q1], SystemPrompt.FOLD, force_think=False)
    shown = tokenizer.decode(prompt.ids).partition(ZERO_TAIL)[2]
    assert (shown, prompt.begin) == (" User: S\n\nQ1. Assistant:", Begin.EITHER)


@given(conversation=conversations(hostile), fold=st.sampled_from(SystemPrompt), force=st.booleans())
@pytest.mark.parametrize("template", TemplateKind)
def test_only_templates_put_control_tokens_into_a_prompt(
    tokenizer: Tokenizer,
    template: TemplateKind,
    conversation: Conversation,
    fold: SystemPrompt,
    force: bool,
) -> None:
    hostile_prompt = prompt_of(tokenizer, template, conversation, fold, force_think=force)
    harmless = prompt_of(tokenizer, template, disarmed(conversation), fold, force_think=force)
    marks = [id_ for id_ in hostile_prompt.ids if id_ < 3 or id_ >= 128_000]
    assert marks == [id_ for id_ in harmless.ids if id_ < 3 or id_ >= 128_000]
    assert marks.count(0) == 1
    assert marks[0] == 0
    assert hostile_prompt.begin is harmless.begin


def disarmed(conversation: Conversation) -> Conversation:
    """The same with every text replaced by one letter, or by nothing if it was empty."""

    def x(text: str) -> str:
        return "x" if text else ""

    def message(m: Message) -> Message:
        match m:
            case AssistantMessage(content, calls):
                return AssistantMessage(x(content), tuple(ToolCall("x", "x") for _ in calls))
            case SystemMessage(content):
                return SystemMessage(x(content))
            case UserMessage(content):
                return UserMessage(x(content))
            case ToolMessage(content):
                return ToolMessage(x(content))

    prefix = conversation.prefix
    return Conversation(
        tuple(map(message, conversation.messages)),
        tuple(ToolDefinition("x", x(t.description), '"x"') for t in conversation.tools),
        prefix
        and Prefix(
            prefix.reasoning and x(prefix.reasoning),
            prefix.content and x(prefix.content),
        ),
        conversation.suppress_thinking,
    )


@given(prompt=hostile, suffix=hostile)
def test_fim_has_its_three_marks_whatever_is_typed(
    tokenizer: Tokenizer, published_decode: Decode, prompt: str, suffix: str
) -> None:
    rendered = render_fim(tokenizer, prompt, suffix)
    text = published_decode(rendered.ids, False)
    assert text == f"{BOS}<｜fim▁begin｜>{prompt}<｜fim▁hole｜>{suffix}<｜fim▁end｜>"
    assert [id_ for id_ in rendered.ids if id_ < 3 or id_ >= 128_000] == [0, 128801, 128800, 128802]
    assert rendered.begin is Begin.ANSWER_ON


def test_a_distill_without_tool_tokens_reads_their_names_as_text(
    distill_tokenizer: Tokenizer,
) -> None:
    messages: list[Message] = [Q1, CALLED, R1_OUT]
    prompt = prompt_of(distill_tokenizer, DISTILL, messages)
    text = FIRST.removesuffix(EOS)
    ids = distill_tokenizer.assemble(
        [BOS, U, "Q1", A, text, EOS, results("", "R1"), A, Mark.THINK, "\n"]
    )
    assert list(prompt.ids) == ids
