"""`r1-serve gateway`: what makes no sense is one message with its cure."""

import socket

import pytest

from orchestrator.cli import main


@pytest.mark.parametrize(
    ("arguments", "cause", "cure"),
    [
        (["https://10.0.0.1:8000"], "is not http://HOST:PORT", "without /v1"),
        (["http://10.0.0.1"], "is not http://HOST:PORT", "without /v1"),
        (["http://10.0.0.1:8000/v1"], "is not http://HOST:PORT", "without /v1"),
        (["http://a:b"], "is not http://HOST:PORT", "without /v1"),
        (["http://a:1", "a:1"], "stands there twice", "once"),
        (["http://a:1", "--model", "nowhere"], "no tokenizer.json in nowhere", "folder"),
        (["http://a:1", "--model", ".", "--name", "R2"], "not in the catalogue", "DeepSeek-R1"),
    ],
)
def test_a_mistake_is_one_message_with_its_cure(
    arguments: list[str],
    cause: str,
    cure: str,
    tmp_path: object,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["gateway", "--log-dir", str(tmp_path), "--engine-url", *arguments]) == 1
    said = capsys.readouterr().err
    assert cause in said.splitlines()[0]
    assert cure in said


def test_a_busy_port_is_named(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        arguments = ["--port", str(port), "--log-dir", str(tmp_path)]
        assert main(["gateway", "--engine-url", "http://127.0.0.1:9", *arguments]) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
