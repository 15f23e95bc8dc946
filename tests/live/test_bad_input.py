"""What an operator gets wrong: one clear message, a non-zero exit, and no process left behind."""

import json
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from orchestrator.runtime.ports import PORTS
from tests.live.local_stack import command, left_behind

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]

SPEC = """
models:
  - path: {model}
    max_model_len: 512
    engine: {{kind: vllm, device: cpu, dtype: float32, start_timeout_s: 120, args: {args}}}
    pools: [{{role: unified, gang: {gang}}}]
gateway: {{host: 127.0.0.1, port: {port}, replicas: 1}}
fleet: {{start_attempts: 1}}
local: {{nodes: 1, gpus_per_node: 8}}
"""
END_S = 280.0


@dataclass(frozen=True)
class Wrong:
    """A folder to get something wrong in. `model` has a tokenizer and no weights: a gateway starts
    with it, an engine cannot.
    """

    folder: Path
    model: Path

    def spec(self, *, old: str = "", new: str = "", more: str = "", **parts: object) -> list[str]:
        """Arguments for a spec with these parts, with `new` for `old`; nothing gets as far as
        listening on its port.
        """
        values = {"model": self.model, "gang": "{}", "args": "[]", "port": PORTS[0]} | parts
        path = self.folder / "spec.yaml"
        path.write_text(SPEC.format(**values).replace(old or "\0", new) + more)
        return ["--spec", str(path)]


def a_wrong_key(wrong: Wrong) -> list[str]:
    path = wrong.folder / "spec.yaml"
    path.write_text("models: [{path: x, pth: y, pools: [{role: unified}]}]")
    return ["--spec", str(path)]


def a_shard_is_missing(wrong: Wrong) -> list[str]:
    config = {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3"}
    (wrong.model / "config.json").write_text(json.dumps(config))
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00001.safetensors"}}
    (wrong.model / "model.safetensors.index.json").write_text(json.dumps(index))
    return wrong.spec()


def a_tokenizer_that_loses_text(wrong: Wrong) -> list[str]:
    file = json.loads((wrong.model / "tokenizer.json").read_text())
    file["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}
    (wrong.model / "tokenizer.json").write_text(json.dumps(file))
    return wrong.spec()


def a_tokenizer_that_vllm_would_corrupt(wrong: Wrong) -> list[str]:
    (wrong.model / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizerFast"}')
    (wrong.model / "config.json").write_text('{"model_type": "llama"}')
    return wrong.spec()


def keys_that_are_none(wrong: Wrong) -> list[str]:
    keys = wrong.folder / "keys"
    keys.write_text("sk-plain\n")
    return wrong.spec(more=f"api: {{keys_path: {keys}}}\n")


Case = tuple[Callable[[Wrong], list[str]], Sequence[str]]
UNIFIED = "[{role: unified, gang: {}}]"
DIFFERENT = "[{role: prefill, args: [--kv-cache-dtype, fp8]}, {role: decode}]"
# Found on a node, so Ray has to start: one at a time.
ON_NODES: dict[str, Case] = {
    "a checkpoint that lacks a shard": (
        a_shard_is_missing,
        ("lacks the shard model-00001-of-00001.safetensors", "do: copy the checkpoint again"),
    ),
    "nodes with another engine than the spec asks for": (
        lambda wrong: wrong.spec(old="kind: vllm,", new="kind: vllm, version: 0.31.0,"),
        ("has vLLM 0.32.0, the spec asks for 0.31.0", "use one image on all nodes"),
    ),
}
AT_ONCE: dict[str, Case] = {
    "an unreadable spec": (
        lambda wrong: ["--spec", str(wrong.folder / "none.yaml")],
        ("cannot read the spec", "do: name a readable YAML file"),
    ),
    "a wrong key": (a_wrong_key, ("models.0.pth: unknown key",)),
    "a layout with more GPUs than the nodes have": (
        lambda wrong: wrong.spec(gang="{tensor_parallel: 16}"),
        ("no room for a gang of 1 nodes x 16 GPUs", "1 x 8 GPUs"),
    ),
    "a fleet too large for its nodes": (
        lambda wrong: ["--engine", "fake", "--nodes", "1"],
        ("no room",),
    ),
    "an engine flag that is ours to set": (
        lambda wrong: wrong.spec(args="[--tensor-parallel-size, '2']"),
        ("--tensor-parallel-size", "remove it"),
    ),
    "prefill and decode whose KV would differ": (
        lambda wrong: wrong.spec(old=UNIFIED, new=DIFFERENT),
        (
            "--kv-cache-dtype says fp8 to prefill and nothing to decode engines",
            "do: give both pools the same",
        ),
    ),
    "a tokenizer that loses text": (
        a_tokenizer_that_loses_text,
        (
            "tokenizer.json turns the text",
            "Serve the tokenizer.json that was published with the checkpoint",
        ),
    ),
    "a tokenizer that vLLM would corrupt": (
        a_tokenizer_that_vllm_would_corrupt,
        ("transformers 5 loses spaces, line breaks and CJK",),
    ),
    "keys that are none": (
        keys_that_are_none,
        ("line 1 is no `TENANT sha256:HEX`", "r1-serve key"),
    ),
    "a model folder without a tokenizer": (
        lambda wrong: wrong.spec(model=wrong.folder),
        ("there is no tokenizer.json",),
    ),
}


@contextmanager
def nothing_left() -> Iterator[None]:
    """Checks that what runs within leaves nothing."""
    before, children = left_behind(), set(psutil.Process().children(recursive=True))
    yield
    assert left_behind() - before == set()
    assert set(psutil.Process().children(recursive=True)) == children


def up(folder: Path, arguments: Sequence[str]) -> str:
    """What `r1-serve up` says as it fails."""
    ended = subprocess.run(
        command("up", "--log-dir", str(folder / "logs"), *arguments),
        capture_output=True,
        text=True,
        timeout=END_S,
        check=False,
    )
    print(ended.stdout, ended.stderr)
    assert ended.returncode not in {0, -9}
    assert "Traceback" not in ended.stderr
    return ended.stderr


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: Path) -> dict[str, str]:
    """What was said in each case, two at a time: each waits for its own imports, mostly."""
    tmp_path_factory.getbasetemp()  # two threads that come first would each make one
    tokenizer = (tokenizer_dir / "tokenizer.json").read_bytes()

    def one(case: Case) -> str:
        folder = tmp_path_factory.mktemp("wrong")
        wrong = Wrong(folder, folder / "model")
        wrong.model.mkdir()
        (wrong.model / "tokenizer.json").write_bytes(tokenizer)
        return up(folder, case[0](wrong))

    def all_of(cases: dict[str, Case]) -> dict[str, str]:
        return {name: one(case) for name, case in cases.items()}

    with nothing_left(), ThreadPoolExecutor(2) as pool:
        on_nodes, at_once = pool.map(all_of, (ON_NODES, AT_ONCE))
    return on_nodes | at_once


@pytest.mark.parametrize("name", [*ON_NODES, *AT_ONCE])
def test_it_is_refused_in_words_that_say_what_to_do(name: str, said: dict[str, str]) -> None:
    _, expected = (ON_NODES | AT_ONCE)[name]
    for words in expected:
        assert words in said[name]


def test_a_busy_port(tmp_path: Path) -> None:
    with nothing_left(), socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = up(tmp_path, ["--engine", "fake", "--port", str(port)])
    assert f"cannot listen on 127.0.0.1:{port}" in told
    assert "choose another with --port" in told
