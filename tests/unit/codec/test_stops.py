import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.codec.stops import StopMatcher

letters = st.text("ab\n", max_size=30)
stops = st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3)


def cut(text: str, stops: list[str]) -> tuple[str, bool]:
    """What the contract says, one character at a time."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


@given(chunks=st.lists(letters, max_size=8), stops=stops)
def test_cuts_before_the_first_stop_string_however_the_text_is_chunked(
    chunks: list[str], stops: list[str]
) -> None:
    matcher = StopMatcher(stops)
    text = "".join(matcher.push(chunk) for chunk in chunks) + matcher.flush()
    assert (text, matcher.matched) == cut("".join(chunks), stops)


@given(chunks=st.lists(letters, max_size=8), stops=stops)
def test_holds_no_more_than_the_beginning_of_a_stop_string(
    chunks: list[str], stops: list[str]
) -> None:
    matcher = StopMatcher(stops)
    sent, seen = "", ""
    for chunk in chunks:
        sent += matcher.push(chunk)
        seen += chunk
        held = seen[len(sent) :]
        if not matcher.matched and held:
            assert any(stop.startswith(held) and stop != held for stop in stops)


@pytest.mark.parametrize(
    ("stops", "text"), [(["END"], "a "), (["ND", "END"], "a "), (["E"], "a "), (["a END b"], "")]
)
def test_of_stop_strings_that_end_together_the_longest_is_cut(stops: list[str], text: str) -> None:
    assert StopMatcher(stops).push("a END b") == text
