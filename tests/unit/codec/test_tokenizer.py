import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.codec import Mark, Tokenizer
from orchestrator.core import SpecError

# Text in which control tokens are likely, whole and in part.
hostile_text = st.lists(
    st.one_of(
        st.sampled_from([*Mark, "<｜place▁holder▁no▁7｜>", "<|EOT|>"]),
        st.sampled_from(["<", "｜", "▁", "</", "think", ">", "\n", " "]),
        st.text(max_size=6),
    ),
    max_size=12,
).map("".join)

# Hypothesis draws strings that it finds in our source, and the names of control tokens are there.
plain_text = st.text(max_size=60).filter(lambda text: not re.search(r"<[|｜]|think>", text))


def changed(tokenizer_dir: Path, tmp_path: Path, **parts: object) -> Path:
    """A copy of R1's tokenizer.json with `parts` of it replaced."""
    file = json.loads((tokenizer_dir / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(file | parts))
    return tmp_path


def test_control_tokens_have_the_ids_of_r1(tokenizer: Tokenizer) -> None:
    control = tokenizer.control
    assert (control.begin_of_sentence, control.end_of_sentence) == (0, 1)
    assert (control.think, control.end_think) == (128798, 128799)
    assert (control.user, control.assistant) == (128803, 128804)
    assert (control.fim_hole, control.fim_begin, control.fim_end) == (128800, 128801, 128802)
    assert (control.tool_calls, control.end_tool_output) == (128806, 128813)
    assert tokenizer.encode("\n") == [201]
    assert tokenizer.has_tools
    assert tokenizer.has_fim


def test_a_vocabulary_without_tools_and_fim_is_served_without(distill_tokenizer: Tokenizer) -> None:
    assert not distill_tokenizer.has_tools
    assert not distill_tokenizer.has_fim
    assert distill_tokenizer.control.tool_calls is None
    assert distill_tokenizer.control.end_think == 128799


def test_a_mark_that_the_vocabulary_lacks_is_text(distill_tokenizer: Tokenizer) -> None:
    ids = distill_tokenizer.assemble(["a", Mark.TOOL_SEP, "b", Mark.THINK])
    assert ids == [*distill_tokenizer.encode(f"a{Mark.TOOL_SEP}b"), 128798]


@given(parts=st.lists(st.sampled_from(Mark) | st.text(max_size=5), max_size=8))
def test_assembles_marks_and_text_as_the_published_tokenizer_does_their_join(
    tokenizer: Tokenizer,
    published_encode: Callable[[str], list[int]],
    parts: list[str | Mark],
) -> None:
    spelled = any("<" in part or "｜" in part for part in parts if not isinstance(part, Mark))
    ids = tokenizer.assemble(parts)
    assert ids == published_encode("".join(parts)) or spelled


@given(text=hostile_text)
def test_no_text_becomes_a_control_token(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert all(3 <= id_ < 128_000 for id_ in ids)  # the others are control tokens
    assert tokenizer.decode(ids) == text


@given(text=plain_text)
def test_text_without_control_tokens_is_encoded_as_published(
    tokenizer: Tokenizer, published_encode: Callable[[str], list[int]], text: str
) -> None:
    assert tokenizer.encode(text) == published_encode(text)


@given(ids=st.lists(st.integers(0, 128_814) | st.integers(128_780, 129_279), max_size=30))
def test_any_ids_are_decoded_as_published(
    tokenizer: Tokenizer, published_decode: Callable[[list[int], bool], str], ids: list[int]
) -> None:
    assert tokenizer.decode(ids) == published_decode(ids, True)


def test_ids_of_a_padded_embedding_have_no_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([*tokenizer.encode("a"), 129_279, *tokenizer.encode("b")]) == "ab"


def test_refuses_a_directory_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read") as error:
        Tokenizer.load(tmp_path)
    assert error.value.cure


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"added_tokens": [], "model": {}}', "\xff"])
def test_refuses_a_file_that_is_no_tokenizer(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text, encoding="latin-1")
    with pytest.raises(SpecError, match="not a tokenizer"):
        Tokenizer.load(tmp_path)


def test_refuses_a_tokenizer_whose_end_of_reasoning_is_not_one_token(
    tokenizer_dir: Path, tmp_path: Path
) -> None:
    tokens = json.loads((tokenizer_dir / "tokenizer.json").read_text())["added_tokens"]
    kept = [token for token in tokens if token["content"] != "</think>"]
    with pytest.raises(SpecError, match="no single token for </think>"):
        Tokenizer.load(changed(tokenizer_dir, tmp_path, added_tokens=kept))


def test_refuses_a_tokenizer_that_loses_spaces_and_cjk(tokenizer_dir: Path, tmp_path: Path) -> None:
    metaspace = {
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": "always",
        "split": False,
    }
    with pytest.raises(SpecError, match="turns the text"):
        Tokenizer.load(changed(tokenizer_dir, tmp_path, pre_tokenizer=metaspace))
