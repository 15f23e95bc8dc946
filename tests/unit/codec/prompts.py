"""What tests of prompts share: the marks by short names, messages, and a way to render them."""

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from orchestrator.codec import (
    AssistantMessage,
    Conversation,
    Mark,
    Message,
    Prompt,
    SystemMessage,
    Tokenizer,
    ToolCall,
    ToolMessage,
    UserMessage,
    render,
)
from orchestrator.spec import SystemPrompt, TemplateKind

Encode = Callable[[str], list[int]]
Decode = Callable[[Sequence[int], bool], str]

R1, R1_0528, R1_ZERO, DISTILL, V3 = (
    TemplateKind.R1,
    TemplateKind.R1_0528,
    TemplateKind.R1_ZERO,
    TemplateKind.DISTILL,
    TemplateKind.V3_0324,
)
MARKED = (R1, DISTILL, R1_0528, V3)
BOS, EOS, U, A = Mark.BEGIN_OF_SENTENCE, Mark.END_OF_SENTENCE, Mark.USER, Mark.ASSISTANT
THINK = f"{Mark.THINK}\n"
OUT, END_OUT = Mark.TOOL_OUTPUT, Mark.END_TOOL_OUTPUT

# Hypothesis draws strings that it finds in our source, and the names of control tokens are there.
plain = st.text(max_size=12).filter(lambda text: not set("<｜>") & set(text))
hostile = st.lists(st.sampled_from([*Mark, "<answer>"]) | plain, max_size=4).map("".join)


def calls(text: st.SearchStrategy[str]) -> st.SearchStrategy[Message]:
    some = st.lists(st.builds(ToolCall, text, text), min_size=1, max_size=2).map(tuple)
    return st.builds(AssistantMessage, text, some)


def spoken(text: st.SearchStrategy[str]) -> st.SearchStrategy[list[Message]]:
    return st.lists(
        st.one_of(
            st.builds(SystemMessage, text),
            st.builds(UserMessage, text),
            st.builds(AssistantMessage, text),
        ),
        max_size=5,
    )


def prompt_of(
    tokenizer: Tokenizer,
    template: TemplateKind,
    conversation: Conversation | Sequence[Message],
    system_prompt: SystemPrompt = SystemPrompt.KEEP,
    *,
    force_think: bool | None = None,
) -> Prompt:
    if not isinstance(conversation, Conversation):
        conversation = Conversation(tuple(conversation))
    if force_think is None:
        force_think = template in (R1, DISTILL, R1_ZERO)
    return render(
        tokenizer, template, conversation, system_prompt=system_prompt, force_think=force_think
    )


def call(name: str, arguments: str) -> str:
    return (
        f"{Mark.TOOL_CALL}function{Mark.TOOL_SEP}{name}\n```json\n{arguments}\n```"
        f"{Mark.END_TOOL_CALL}"
    )


def called(text: str, *calls: str) -> str:
    joined = "\n".join(calls)
    return f"{text}{Mark.TOOL_CALLS}{joined}{Mark.END_TOOL_CALLS}{EOS}"


def results(between: str, *texts: str) -> str:
    blocks = between.join(f"{OUT}{text}{END_OUT}" for text in texts)
    return f"{Mark.TOOL_OUTPUTS}{blocks}{Mark.END_TOOL_OUTPUTS}"


Q1, Q2, A1 = UserMessage("Q1"), UserMessage("Q2"), AssistantMessage("\n\nA1")
S, T = SystemMessage("S"), SystemMessage("T")
CALLED = AssistantMessage("", (ToolCall("f", "{}"), ToolCall("g", '{"a": 1}')))
SAID = AssistantMessage("<think>\nso\n</think>\n\nI look.", (ToolCall("f", "{}"),))
R1_OUT, R2_OUT = ToolMessage("R1"), ToolMessage("R2")
FIRST = called("", call("f", "{}"), call("g", '{"a": 1}'))
SECOND = called("\n\nI look.", call("f", "{}"))
