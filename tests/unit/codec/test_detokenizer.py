from hypothesis import given
from hypothesis import strategies as st

from orchestrator.codec import Tokenizer
from orchestrator.codec.detokenizer import Detokenizer


@given(ids=st.lists(st.integers(0, 127_999), max_size=20))
def test_ids_one_by_one_give_the_text_of_the_whole(tokenizer: Tokenizer, ids: list[int]) -> None:
    text = Detokenizer(tokenizer)
    assert "".join(text.push([id_]) for id_ in ids) + text.flush() == tokenizer.decode(ids)


def test_holds_half_a_character_back_until_it_is_whole(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("𓀀")  # a character that R1's vocabulary spells in several tokens
    assert len(ids) > 1
    text = Detokenizer(tokenizer)
    assert [text.push([id_]) for id_ in ids] == [""] * (len(ids) - 1) + ["𓀀"]
    assert text.flush() == ""


def test_half_a_character_at_the_end_is_a_replacement_character(tokenizer: Tokenizer) -> None:
    text = Detokenizer(tokenizer)
    assert text.push(tokenizer.encode("a𓀀")[:-1]) == "a"
    assert text.flush() == "\ufffd"
    assert text.flush() == ""
