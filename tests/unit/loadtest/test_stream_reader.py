"""The reader of streams, whatever the network does to their bytes."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.phase import Phase
from loadtest.stream import StreamReader, Usage
from orchestrator.codec import AnswerText, ReasoningText, ToolCallArguments, ToolCallStart
from orchestrator.gateway.wire import FinishReason, ReplyHead, ReplyShape, StreamReply
from orchestrator.gateway.wire import Usage as WireUsage

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"


class Heard:
    """Remembers the phases."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []

    def piece(self, phase: Phase, now: float) -> None:
        self.phases.append(phase)


def chunked(body: bytes, size: int = 10_000) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))


def reply(shape: ReplyShape | None = None, end: FinishReason = FinishReason.STOP) -> bytes:
    """A stream of our gateway: three thoughts, two pieces of answer, a call in two parts."""
    wire = StreamReply(ReplyHead("an-id", 1, "deepseek-reasoner", "fp"), shape or ReplyShape())
    pushed = [
        wire.push(()),
        wire.push([ReasoningText('"content":"not one"'), ReasoningText("b\n")]),
        wire.keep_alive,
        wire.push([ReasoningText("c")]),
        wire.push([AnswerText('a "reasoning_content":"x"'), AnswerText("é")]),
        wire.push([ToolCallStart(0, "look"), ToolCallArguments(0, '{"at": 1}')]),
        wire.end(end, WireUsage(100, 70, 9, 4)),
    ]
    return b"".join(pushed)


PHASES = [Phase.THINKING] * 3 + [Phase.ANSWER] * 4


def read(data: bytes, cuts: list[int], *, keep: bool = False) -> tuple[StreamReader, Heard]:
    heard = Heard()
    reader = StreamReader(heard, keep=keep)
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        if data[begin:end]:
            reader.feed(data[begin:end], 1.0)
    reader.closed(2.0)
    return reader, heard


def test_a_stream_of_ours_is_read_with_its_phases_and_its_usage() -> None:
    reader, heard = read(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(reply()), [])
    assert (reader.error, heard.phases, reader.reusable) == ("", PHASES, True)
    assert reader.usage == Usage(prompt=100, cached=64, thinking=4, answer=5)


@pytest.mark.parametrize("compact", [True, False])
def test_phases_are_those_that_decoding_finds(compact: bool) -> None:
    body = reply(ReplyShape(reasoning_alias=True))
    if not compact:  # as `json.dumps` writes
        lines = [
            b"data: " + json.dumps(json.loads(line[6:])).encode() if line[6:7] == b"{" else line
            for line in body.split(b"\n")
        ]
        body = b"\n".join(lines)
    data = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body)
    decoded, heard_decoded = read(data, [], keep=True)
    assert heard_decoded.phases == read(data, [])[1].phases == PHASES
    assert decoded.answer == 'a "reasoning_content":"x"é'
    assert [(call.name, call.arguments) for call in decoded.calls] == [("look", '{"at": 1}')]


BODIES = {
    "chunked": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(reply()),
    "small chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(reply(), 7),
    "counted": HEAD + b"Content-Length: %d\r\n\r\n" % len(reply()) + reply(),
    "until it closes": HEAD + b"Connection: close\r\n\r\n" + reply(),
    "gave up": HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + chunked(reply(end=FinishReason.INSUFFICIENT_SYSTEM_RESOURCE)),
    "windows": HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + chunked(reply().replace(b"\n", b"\r\n")),
    "error inside": HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + chunked(
        reply().partition(b"\n\n")[0]
        + b'\n\ndata: {"error":{"message":"no"}}\n\n'
        + b"data: [DONE]\n\n"
    ),
    "no json": HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + chunked(b"data: {oops}\n\n" + reply()),
    "refused": b"HTTP/1.1 429 Too Many\r\nContent-Length: 9\r\n\r\nslow down",
    "no chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "continued": b"HTTP/1.1 100 Continue\r\n\r\n"
    + HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + chunked(reply()),
    "html": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi",
    "cut": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(reply())[:1_500],
    "nothing": b"",
    "other protocol": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
}
ERRORS = {
    "gave up": "insufficient_system_resource",
    "error inside": "stream_error",
    "no json": "protocol",
    "refused": "http_429",
    "no chunk": "protocol",
    "html": "protocol",
    "cut": "cut",
    "nothing": "cut",
    "other protocol": "protocol",
}


@pytest.mark.parametrize("name", BODIES)
def test_each_way_to_fail_has_its_class(name: str) -> None:
    assert read(BODIES[name], [])[0].error == ERRORS.get(name, "")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(BODIES)), st.data())
def test_any_cut_of_the_bytes_gives_the_same_record(name: str, data: st.DataObject) -> None:
    body = BODIES[name]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=60)))
    whole, heard = read(body, [])
    cut, heard_cut = read(body, cuts)
    assert heard_cut.phases == heard.phases
    assert (cut.error, cut.usage, cut.reusable) == (whole.error, whole.usage, whole.reusable)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_no_bytes_break_the_reader(noise: bytes, in_body: bool) -> None:
    data = BODIES["chunked"][:400] + noise if in_body else noise
    assert read(data, [len(data) // 2])[0].done


def test_a_refusal_says_what_the_server_said() -> None:
    assert read(BODIES["refused"], [])[0].message == "slow down"
