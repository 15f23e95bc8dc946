"""Faults that others have had with R1's wire, one test each, by their numbers in our list of traps.

Each shows the trap itself, where that can be done here, and that we are not in it.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.codec import (
    AssistantMessage,
    Begin,
    Conversation,
    Mark,
    Message,
    Tokenizer,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    UserMessage,
    render,
    transformers_fault,
)
from orchestrator.core import SpecError
from orchestrator.spec import SystemPrompt, TemplateKind
from tests.unit.codec.conftest import as_json
from tests.unit.codec.outputs import cut, one_by_one, split

Encode = Callable[[str], list[int]]
Decode = Callable[[Sequence[int], bool], str]

LINES = '{\n  "city": "Ulm",\n  "days": [\n    1\n  ]\n}'
QUESTION = UserMessage("Q")


def prompt_ids(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    template: TemplateKind = TemplateKind.R1,
    *,
    tools: Sequence[ToolDefinition] = (),
    force_think: bool = True,
) -> tuple[int, ...]:
    conversation = Conversation(tuple(messages), tuple(tools))
    prompt = render(
        tokenizer,
        template,
        conversation,
        system_prompt=SystemPrompt.KEEP,
        force_think=force_think,
    )
    return tuple(prompt.ids)


def call(arguments: str = LINES) -> list[str | Mark]:
    text = f"weather\n```json\n{arguments}\n```"
    inner = [Mark.TOOL_CALL, "function", Mark.TOOL_SEP, text, Mark.END_TOOL_CALL]
    return [Mark.TOOL_CALLS, *inner, Mark.END_TOOL_CALLS]


def test_t1_a_tokenizer_that_drops_blanks_and_cjk_is_refused(
    tokenizer_dir: Path, tmp_path: Path
) -> None:
    """What transformers 5 makes of LlamaTokenizerFast: Metaspace in the place of ByteLevel."""
    file = json.loads((tokenizer_dir / "tokenizer.json").read_text())
    file["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": "always",
        "split": False,
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(file))
    with pytest.raises(SpecError, match="turns the text"):
        Tokenizer.load(tmp_path)


def test_t1_a_config_with_which_the_engine_would_drop_them_is_named(
    tokenizer_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    config = (tokenizer_dir / "tokenizer_config.json").read_bytes()  # names LlamaTokenizerFast
    (tmp_path / "tokenizer_config.json").write_bytes(config)
    assert "PreTrainedTokenizerFast" in (transformers_fault(tmp_path) or "")
    (tmp_path / "config.json").write_text('{"model_type": "deepseek_v3"}')
    assert transformers_fault(tmp_path) is None


def test_t2_reasoning_is_counted_though_the_prompt_opened_it(tokenizer: Tokenizer) -> None:
    thought = tokenizer.encode("I think so.\n")
    ids = tokenizer.assemble(["I think so.\n", Mark.END_THINK, "\n\nYes."])
    output = split(tokenizer, [ids], begin=Begin.THOUGHT)
    assert tokenizer.control.think not in ids
    assert output.reasoning_tokens == len(thought) + 1


@given(cuts=st.lists(st.integers(0, 50)))
def test_t3_arguments_over_several_lines_are_not_lost(
    tokenizer: Tokenizer, cuts: list[int]
) -> None:
    assert re.search(r"```json\n(.*)\n```", f"```json\n{LINES}\n```") is None  # the trap: no DOTALL
    ids = tokenizer.assemble(["I look.", *call()])
    output = split(tokenizer, cut(ids, cuts), begin=Begin.ANSWER)
    assert (output.answer, output.calls) == ("I look.", [("weather", LINES)])


def test_t4_a_tool_call_inside_the_reasoning_closes_it(tokenizer: Tokenizer) -> None:
    output = split(tokenizer, [tokenizer.assemble(["I need it.\n", *call()])])
    assert (output.reasoning, output.answer) == ("I need it.", "")
    assert output.calls == [("weather", LINES)]


@given(cuts=st.lists(st.integers(0, 12)))
@pytest.mark.parametrize("begin", [Begin.THOUGHT, Begin.EITHER])
def test_t5_a_tag_of_the_models_own_does_not_leak_whatever_comes_with_it(
    tokenizer: Tokenizer, begin: Begin, cuts: list[int]
) -> None:
    ids = tokenizer.assemble([Mark.THINK, "\nso\n", Mark.END_THINK, "\n\nYes."])
    output = split(tokenizer, cut(ids, cuts), begin=begin)
    assert (output.reasoning, output.answer) == ("so", "Yes.")


def test_t6_an_answer_without_reasoning_is_content(tokenizer: Tokenizer) -> None:
    output = split(tokenizer, one_by_one(tokenizer.encode("\nYes.")), begin=Begin.EITHER)
    assert (output.reasoning, output.answer, output.reasoning_tokens) == ("", "Yes.", 0)


@pytest.mark.parametrize("template", [TemplateKind.R1, TemplateKind.DISTILL, TemplateKind.R1_0528])
def test_t6_after_the_results_of_tools_the_reasoning_is_opened(
    tokenizer: Tokenizer, template: TemplateKind
) -> None:
    asked = AssistantMessage("", (ToolCall("f", "{}"),))
    ids = prompt_ids(tokenizer, [QUESTION, asked, ToolMessage("R")], template)
    opening = [Mark.END_TOOL_OUTPUTS, Mark.ASSISTANT, Mark.THINK, "\n"]
    assert list(ids[-4:]) == tokenizer.assemble(opening)


@pytest.mark.parametrize("template", TemplateKind)
@pytest.mark.parametrize("mark", Mark)
def test_t7_no_control_token_can_be_typed(
    tokenizer: Tokenizer, published_encode: Encode, template: TemplateKind, mark: Mark
) -> None:
    (id_,) = published_encode(mark)  # the trap: the published tokenizer makes it one

    def ids(text: str) -> list[int]:
        messages: list[Message] = [
            UserMessage(text),
            AssistantMessage("", (ToolCall(text, text),)),
            ToolMessage(text),
        ]
        tools = [ToolDefinition(text, text, json.dumps({"description": text}))]
        return list(prompt_ids(tokenizer, messages, template, tools=tools, force_think=False))

    assert ids(f"a{mark}b").count(id_) == ids("ab").count(id_)
    assert ids("ab").count(tokenizer.control.end_think) == 0


@pytest.mark.parametrize("opened_by", ["prompt", "model", "both"])
def test_t8_either_side_may_open_the_reasoning(tokenizer: Tokenizer, opened_by: str) -> None:
    begin = Begin.EITHER if opened_by == "model" else Begin.THOUGHT
    tag = [] if opened_by == "prompt" else [Mark.THINK]
    ids = tokenizer.assemble([*tag, "\nso\n", Mark.END_THINK, "\n\nYes."])
    output = split(tokenizer, [ids], begin=begin)
    assert (output.reasoning, output.answer) == ("so", "Yes.")


def test_t11_a_stop_string_in_the_reasoning_stops_nothing(tokenizer: Tokenizer) -> None:
    ids = tokenizer.assemble(["I write ```x```.", Mark.END_THINK, "Here:\n```\nx\n```"])
    output = split(tokenizer, one_by_one(ids), stop=["```"])
    assert (output.reasoning, output.answer) == ("I write ```x```.", "Here:\n")
    assert output.stopped


@pytest.mark.parametrize("template", TemplateKind)
def test_t12_old_reasoning_does_not_come_back(tokenizer: Tokenizer, template: TemplateKind) -> None:
    thoughts = "<think>\n" + "far too long " * 99 + "\n</think>"
    for calls in ((), (ToolCall("f", "{}"),)):
        for before in ([QUESTION], [QUESTION, ToolMessage("R")]):
            with_it = [*before, AssistantMessage(f"{thoughts}A", calls), QUESTION]
            without = [*before, AssistantMessage("A", calls), QUESTION]
            ids = prompt_ids(tokenizer, with_it, template)
            assert ids == prompt_ids(tokenizer, without, template)


@pytest.mark.parametrize("template", TemplateKind)
def test_t15_there_is_one_begin_of_sentence(
    tokenizer: Tokenizer, published_decode: Decode, template: TemplateKind
) -> None:
    typed = f"{Mark.BEGIN_OF_SENTENCE}Q"
    ids = prompt_ids(tokenizer, [UserMessage(typed)], template)
    assert ids.count(tokenizer.control.begin_of_sentence) == 1
    assert ids[0] == tokenizer.control.begin_of_sentence
    assert published_decode(ids, False).count(Mark.BEGIN_OF_SENTENCE) == 2


def test_t15_a_tokenizer_that_adds_its_own_adds_none_for_us(
    tokenizer_dir: Path, tmp_path: Path
) -> None:
    file = json.loads((tokenizer_dir / "tokenizer.json").read_text())
    bos = {"SpecialToken": {"id": Mark.BEGIN_OF_SENTENCE, "type_id": 0}}
    file["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            bos,
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {
            Mark.BEGIN_OF_SENTENCE: {
                "id": Mark.BEGIN_OF_SENTENCE,
                "ids": [0],
                "tokens": [Mark.BEGIN_OF_SENTENCE],
            }
        },
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(file))
    assert prompt_ids(Tokenizer.load(tmp_path), [QUESTION]).count(0) == 1


@pytest.mark.parametrize("mark", ["<think>", "</think>", "<｜User｜>", "<｜Assistant｜>"])
def test_t16_a_vocabulary_that_spells_a_tag_in_several_tokens_is_refused(
    tokenizer_dir: Path, tmp_path: Path, mark: str
) -> None:
    file = json.loads((tokenizer_dir / "tokenizer.json").read_text())
    file["added_tokens"] = [t for t in file["added_tokens"] if t["content"] != mark]
    (tmp_path / "tokenizer.json").write_text(json.dumps(file))
    with pytest.raises(SpecError, match=re.escape(f"no single token for {mark}")):
        Tokenizer.load(tmp_path)


def test_t19_absent_content_and_absent_calls_are_rendered(
    tokenizer: Tokenizer, tokenizer_dir: Path, published_encode: Encode
) -> None:
    config = json.loads((tokenizer_dir / "tokenizer_config.json").read_text())
    template = jinja2.Environment().from_string(config["chat_template"])
    answered = {**as_json(AssistantMessage("A")), "tool_calls": None}
    with pytest.raises(TypeError):  # the trap
        template.render(messages=[as_json(QUESTION), answered], bos_token="")
    with pytest.raises(TypeError):
        template.render(
            messages=[as_json(QUESTION), {"role": "assistant", "content": None}], bos_token=""
        )
    ids = prompt_ids(tokenizer, [QUESTION, AssistantMessage("", (ToolCall("f", "{}"),))])
    text = "".join([Mark.TOOL_CALL, "function", Mark.TOOL_SEP, "f\n```json\n{}\n```"])
    assert list(ids) == published_encode(
        f"{Mark.BEGIN_OF_SENTENCE}{Mark.USER}Q{Mark.ASSISTANT}{Mark.TOOL_CALLS}{text}"
        f"{Mark.END_TOOL_CALL}{Mark.END_TOOL_CALLS}{Mark.END_OF_SENTENCE}{Mark.ASSISTANT}<think>\n"
    )
