"""Bodies that no honest client sends: each gets an answer, and the gateway serves on.

An answer is a completion or a refusal in the official shape; what is not, is a fault of the
gateway: a 5xx, a connection cut without an answer, silence.
"""

import gzip
import json
import socket
import time
from collections.abc import Iterator
from itertools import repeat
from urllib.parse import urlsplit

import httpx
import pytest

PATH = "/chat/completions"
TURN = '{"role":"user","content":"SAY: hi, json"}'
HEAD = f'"model":"deepseek-reasoner","messages":[{TURN}]'
ASKED = f"{{{HEAD}}}"
BODY_BYTES_MAX = 8 << 20
OBJECT, ARRAY = ('{"a":', "}"), ("[", "]")
SCHEMA = (
    '{"type":"object","properties":{"a":',
    '},"required":["a"],"additionalProperties":false}',
)


@pytest.fixture
def http(server: str) -> Iterator[httpx.Client]:
    """A client; after what it has sent, an honest request must be answered."""
    with httpx.Client(base_url=server, timeout=30) as client:
        yield client
    answer = httpx.post(f"{server}{PATH}", content=ASKED, timeout=30)
    assert answer.json()["choices"][0]["message"]["content"] == "hi, json"


def judged(answer: httpx.Response) -> int:
    """The status of an answer that is as it must be."""
    status, where = answer.status_code, answer.text[:500]
    assert status == 200 or 400 <= status < 500, where
    body = answer.json()
    if status == 200:
        assert body["choices"][0]["finish_reason"] in {"stop", "length", "tool_calls"}, where
        return status
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert answer.headers["content-type"] == "application/json"
    assert (body["error"]["param"], body["error"]["code"]) == (None, "invalid_request_error")
    assert body["error"]["message"]
    assert "Traceback" not in where
    return status


def post(http: httpx.Client, body: str | bytes, path: str = PATH, **headers: str) -> int:
    """The status of the answer to `body`; underscores in header names are hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return judged(http.post(path, content=body, headers=named))


def also(fields: str) -> str:
    """The honest request with more fields."""
    return f"{{{HEAD},{fields}}}"


def nested(form: tuple[str, str], depth: int, core: str = "1") -> str:
    return form[0] * depth + core + form[1] * depth


@pytest.mark.parametrize(
    "body",
    [
        b"\xff",
        b"\x80" * 100,
        ASKED.encode("utf-16"),
        ASKED.replace("hi", "h\u00ef").encode("latin-1"),
        ASKED.encode() + b"\xc3",
        f'{{{HEAD},"unknown":"\u00ef"}}'.encode("latin-1"),
        f'{{{HEAD},"\u00ef":1}}'.encode("latin-1"),
        f'{{{HEAD},"tools":[{{"\u00ef":1}}]}}'.encode("latin-1"),
        ASKED.replace("hi", "\udcff").encode("utf-8", "surrogatepass"),
        b"\xef\xbb\xbf" + ASKED.encode(),  # a byte order mark
        b"",
        b" \n",
        b"\x00",
        b"null",
        b'"text"',
        b"1e999",
        b"[" * 3,
        b"model=deepseek-reasoner&messages=hi",
        gzip.compress(ASKED.encode(), mtime=0),
    ],
)
def test_what_is_no_json_object_in_utf_8_is_refused(http: httpx.Client, body: bytes) -> None:
    assert post(http, body) in {400, 422}
    assert post(http, body, "/beta/completions") in {400, 422}
    assert post(http, body, content_encoding="gzip") in {400, 422}


def test_a_body_cut_off_at_any_byte_is_refused(http: httpx.Client) -> None:
    body = f'{{{HEAD},"stop":["\u00e9"],"seed":-1.5e3,"stream":false}}'.encode()
    for end in range(len(body)):
        assert post(http, body[:end]) in {400, 422}, body[:end]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "x"])
def test_the_content_type_does_not_matter(http: httpx.Client, content_type: str) -> None:
    assert post(http, ASKED, content_type=content_type) == 200
    assert post(http, "x=1", content_type=content_type) == 400


PLACES = {
    "unknown": (PATH, f'{{{HEAD},"x":%s}}', OBJECT),
    "array": (PATH, f'{{{HEAD},"x":%s}}', ARRAY),
    "metadata": (PATH, f'{{{HEAD},"metadata":%s}}', OBJECT),
    "messages": (PATH, '{"model":"deepseek-reasoner","messages":%s}', ARRAY),
    "message": (
        PATH,
        '{"model":"deepseek-reasoner","messages":[{"role":"user","content":"SAY: x","y":%s}]}',
        OBJECT,
    ),
    "content": (
        PATH,
        '{"model":"deepseek-reasoner","messages":[{"role":"user","content":%s}]}',
        ARRAY,
    ),
    "parameters": (
        PATH,
        f'{{{HEAD},"tools":[{{"type":"function","function":{{"name":"f","parameters":%s}}}}]}}',
        SCHEMA,
    ),
    "named": (
        PATH,
        f'{{{HEAD},"tool_choice":{{"type":"function","function":{{"name":"g"}}}},"tools":['
        '{"type":"function","function":{"name":"g"}},'
        '{"type":"function","function":{"name":"f","parameters":%s}}]}',
        SCHEMA,
    ),
    "strict": (
        f"/beta{PATH}",
        f'{{{HEAD},"tools":[{{"type":"function","function":{{"name":"f","strict":true,'
        '"parameters":%s}}]}',
        SCHEMA,
    ),
    "choice": (PATH, f'{{{HEAD},"tool_choice":%s}}', OBJECT),
    "schema": (
        PATH,
        f'{{{HEAD},"response_format":{{"type":"json_schema","json_schema":{{"schema":%s}}}}}}',
        OBJECT,
    ),
    "arguments": (
        PATH,
        '{"model":"deepseek-reasoner","messages":[{"role":"user","content":"q"},'
        '{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":%s}}]},'
        f"{TURN}]}}",
        OBJECT,
    ),
    "completion": (
        "/beta/completions",
        '{"model":"deepseek-chat","prompt":"SAY: x","y":%s}',
        OBJECT,
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_body_nested_ever_deeper_is_answered_and_from_some_depth_on_refused(
    http: httpx.Client, place: str
) -> None:
    """The stack bounds the decoder, and what follows it must not need more than it did."""
    path, body, form = PLACES[place]
    depths = (20, 65, 150, 300, 450, 480, 495, *range(900, 1000, 9), 1_000, 10_000, 100_000)
    seen = [post(http, body % nested(form, depth), path) for depth in depths]
    assert seen[-3:] == [400, 400, 400], seen


def test_an_answer_nested_too_deep_to_be_read_again_is_sent_all_the_same(
    http: httpx.Client,
) -> None:
    question = f"json RAW: </think>{nested(ARRAY, 1_500, '')}"
    for stream in (False, True):
        request = {
            "model": "deepseek-reasoner",
            "messages": [{"role": "user", "content": question}],
            "response_format": {"type": "json_object"},
            "stream": stream,
        }
        answer = http.post(PATH, json=request)
        assert answer.status_code == 200
        assert '"finish_reason":"stop"' in answer.text
    metrics = http.get("/metrics").text
    assert 'r1_invalid_json_total{model="DeepSeek-R1-0528"}' in metrics


ROOM_BYTES = BODY_BYTES_MAX - 200
TOOL = '{"type":"function","function":{"name":"f"}}'
TEXT = '"x"'


def filled(unit: str) -> str:
    """As many units as there is room for."""
    return ",".join(repeat(unit, ROOM_BYTES // (len(unit) + 1)))


def turns(text: str) -> str:
    return f'{{"model":"deepseek-reasoner","messages":[{text}]}}'


@pytest.mark.parametrize(
    "body",
    [
        turns(filled(TURN)),
        turns(filled("{}")),
        ASKED.replace("hi", "long " * (ROOM_BYTES // 5)),
        ASKED.replace("hi", "a" * ROOM_BYTES),
        also(f'"x":[{filled("1")}]'),
        also(f'"stop":[{filled(TEXT)}]'),
        also(f'"tools":[{filled(TOOL)}]'),
    ],
    ids=["messages", "empty", "words", "letters", "unknown", "stop", "tools"],
)
def test_as_much_as_the_limit_allows_is_read(http: httpx.Client, body: str) -> None:
    assert len(body) <= BODY_BYTES_MAX
    status = post(http, body)
    assert status == (200 if '"x":[' in body else 422 if "{},{}" in body else 400)


@pytest.mark.parametrize("size", [BODY_BYTES_MAX + 1, 10_000_000, 80 << 20])
def test_what_is_larger_than_the_limit_is_refused_even_while_it_is_sent(
    http: httpx.Client, size: int
) -> None:
    refused = http.post(PATH, content=bytes(size))
    assert judged(refused) == 400
    assert refused.json()["error"]["message"].endswith(f"larger than {BODY_BYTES_MAX} bytes")
    chunks = (bytes(1 << 16) for _ in range(-(-size // (1 << 16))))
    assert judged(http.post(PATH, content=chunks)) == 400
    assert judged(http.post("/nowhere", content=bytes(size))) == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (f'{{"model":"gpt",{HEAD}}}', 200),  # of two equal keys the last one counts
        (also('"model":"gpt"'), 400),
        (also('"temperature":NaN'), 400),
        (also('"temperature":-Infinity'), 400),
        (also('"x":NaN'), 400),
        (also('"temperature":1e999'), 422),
        (also('"temperature":1e-999'), 200),
        (also('"x":1e999'), 200),
        (also(f'"max_tokens":{"9" * 5_000}'), 422),
        (also('"max_tokens":18446744073709551616'), 400),
        (also('"max_tokens":9223372036854775808'), 400),
        (also('"max_tokens":1e3'), 422),
        (also('"max_tokens":-0'), 400),
        (also('"seed":-9223372036854775808'), 400),
        (also('"seed":-9223372036854775807'), 200),
        (also('"n":true'), 422),
        (also(f'"x":{"1" * 100_000}'), 200),
        (ASKED.replace("hi", r"\ud800"), 400),
        (ASKED.replace("hi", r"\udc00\ud800"), 400),
        (ASKED.replace("hi", r"\ud83d\ude00"), 200),
        (also('"stop":"\\ud800"'), 400),
        (ASKED.replace("hi", r"a\u0000b"), 200),
        (ASKED.replace("hi", "a\0b"), 400),
        (ASKED.replace("hi", "\x7f\u2028\ufffe\U0010ffff"), 200),
        (also('"user_id":"a\\u0000"'), 400),
        (also('"stop":"\\u0000"'), 200),
        (ASKED.replace("deepseek-reasoner", r"deepseek-reasoner\u0000"), 400),
        (ASKED.replace("deepseek-reasoner", "x" * 1_000_000), 400),
        (ASKED + ASKED, 400),
        (ASKED + "\n\n", 200),
        ("/**/" + ASKED, 400),
        (also(f'"{"k" * 1_000_000}":1'), 200),
        (also(",".join(f'"k{n}":{n}' for n in range(50_000))), 200),
    ],
)
def test_odd_keys_numbers_and_characters(http: httpx.Client, body: str, status: int) -> None:
    assert post(http, body) == status
    assert post(http, body, f"/beta{PATH}") == status


SCHEMAS: dict[str, object] = {
    "recursive": {"$ref": "#"},
    "loop": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "mutual": {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/b"}},
        "required": ["a"],
        "$defs": {"b": {"$ref": "#/$defs/c"}, "c": {"$ref": "#/$defs/b"}},
    },
    "dangling": {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}},
    "remote": {"$ref": "http://127.0.0.1:1/schema.json"},
    "enum": {"type": "object", "properties": {"a": {"enum": [str(n) for n in range(20_000)]}}},
    "no enum": {"type": "object", "properties": {"a": {"enum": []}}},
    "regex": {"type": "object", "properties": {"a": {"type": "string", "pattern": "(["}}},
    "slow regex": {"type": "object", "properties": {"a": {"type": "string", "pattern": "(a+)+$"}}},
    "type": {"type": 3},
    "types": {"type": ["object", "nonsense"]},
    "properties": {"type": "object", "properties": []},
    "property": {"type": "object", "properties": {"a": 7}},
    "required": {"type": "object", "required": "a"},
    "items": {"type": "array", "items": [[]]},
    "impossible": {"type": "integer", "minimum": 2, "maximum": 1},
    "long": {"type": "object", "properties": {"a": {"type": "string", "minLength": 10**12}}},
    "many": {"type": "array", "minItems": 10**12, "items": {"type": "integer"}},
    "wide": {"type": "object", "properties": {f"p{n}": {"type": "null"} for n in range(5_000)}},
    "marks": {"type": "object", "properties": {"</think><｜tool▁calls▁end｜>": {"type": "null"}}},
    "surrogate": {"type": "object", "title": "\ud800"},
    "empty": {},
}


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("use", ["auto", "required", "strict", "format"])
def test_a_hostile_schema_is_answered(http: httpx.Client, name: str, use: str) -> None:
    schema = SCHEMAS[name]
    request: dict[str, object] = {
        "model": "deepseek-reasoner",
        "messages": [{"role": "user", "content": "LONG 3"}],
        "max_tokens": 200,
    }
    if use == "format":
        request["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
    else:
        function = {"name": "f", "parameters": schema, "strict": use == "strict"}
        request["tools"] = [{"type": "function", "function": function}]
        request["tool_choice"] = "required" if use == "required" else "auto"
    status = post(http, json.dumps(request), f"/beta{PATH}")
    assert status == 400 if name == "surrogate" else status in {200, 400, 422}


def raw(server: str, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """All that the server answers to exactly these bytes, sent with pauses between them."""
    at = urlsplit(server)
    with socket.create_connection((at.hostname, at.port), timeout=20) as sock:
        for part in parts:
            sock.sendall(part)
            time.sleep(pause_s)
        received = []
        while part := sock.recv(65_536):
            received.append(part)
        return b"".join(received)


def head(*lines: str) -> bytes:
    first = (f"POST {PATH} HTTP/1.1", "Host: x", "Connection: close", *lines)
    return "\r\n".join((*first, "", "")).encode()


LENGTH = f"Content-Length: {len(ASKED)}"


def test_a_body_in_chunks_however_small_and_slow_is_read(http: httpx.Client, server: str) -> None:
    chunked = head("Transfer-Encoding: chunked")
    letters = [f"1\r\n{letter}\r\n".encode() for letter in ASKED]
    assert b"200 OK" in raw(server, chunked, *letters, b"0\r\n\r\n")
    pieces = [ASKED[at : at + 16].encode() for at in range(0, len(ASKED), 16)]
    assert b"200 OK" in raw(server, head(LENGTH), *pieces, pause_s=0.1)
    assert b"200 OK" in raw(server, head(LENGTH, "Expect: 100-continue"), ASKED.encode())
    begun = chunked + b'5\r\n{"mod\r\n'
    assert b"400 Bad Request" in raw(server, begun, b"zz\r\n")
    assert b"400 Bad Request" in raw(server, begun, b"0\r\n\r\n")


@pytest.mark.parametrize(
    "lines",
    [
        (),  # no length is a length of nothing
        ("Content-Length: 0",),
        ("Content-Length: 5",),  # and the rest of the body is no request
        ("Content-Length: -1",),
        ("Content-Length: x",),
        (LENGTH, "Content-Length: 1"),
        (LENGTH, "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: gzip",),
        (LENGTH, "Content-Encoding: gzip", "Accept-Encoding: \x7f"),
    ],
)
def test_a_body_of_a_wrong_length_gets_an_answer(
    http: httpx.Client, server: str, lines: tuple[str, ...]
) -> None:
    status = raw(server, head(*lines) + ASKED.encode()).partition(b"\r\n")[0]
    assert status in {b"HTTP/1.1 400 Bad Request", b"HTTP/1.1 200 OK"}


def test_a_client_that_leaves_in_the_middle_of_its_body_is_forgotten(
    http: httpx.Client, server: str
) -> None:
    at = urlsplit(server)
    for sent in (b"", b"{", ASKED.encode()[:-1]):
        with socket.create_connection((at.hostname, at.port)) as sock:
            sock.sendall(head(LENGTH) + sent)
