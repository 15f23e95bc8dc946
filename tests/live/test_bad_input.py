"""What an operator gets wrong: one clear message, a non-zero exit, and no process left behind."""

import json
import socket
import subprocess
from pathlib import Path

import psutil
import pytest

from orchestrator.runtime.ports import PORTS
from tests.live.local_stack import command, left_behind

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]

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


def up(tmp_path: Path, *arguments: str) -> str:
    """What `r1-serve up` says as it fails; checks that it leaves nothing."""
    before, children = left_behind(), set(psutil.Process().children(recursive=True))
    ended = subprocess.run(
        command("up", "--log-dir", str(tmp_path / "logs"), *arguments),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    print(ended.stdout, ended.stderr)
    assert ended.returncode not in {0, -9}
    assert "Traceback" not in ended.stderr
    assert left_behind() - before == set()
    assert set(psutil.Process().children(recursive=True)) == children
    return ended.stderr


def spec(tmp_path: Path, model: Path, **parts: object) -> str:
    """A spec file with these parts; nothing gets as far as listening on its port."""
    values = {
        "model": model,
        "gang": "{}",
        "args": "[]",
        "port": PORTS[0],
    } | parts
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.format(**values))
    return str(path)


@pytest.fixture
def model(tmp_path: Path, tokenizer_dir: Path) -> Path:
    """A folder with a tokenizer and no weights: a gateway starts with it, an engine cannot."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "tokenizer.json").write_bytes((tokenizer_dir / "tokenizer.json").read_bytes())
    return model


def test_an_unreadable_spec(tmp_path: Path) -> None:
    said = up(tmp_path, "--spec", str(tmp_path / "none.yaml"))
    assert "cannot read the spec" in said
    assert "do: name a readable YAML file" in said


def test_a_spec_with_a_wrong_key(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("models: [{path: x, pth: y, pools: [{role: unified}]}]")
    assert "models.0.pth: unknown key" in up(tmp_path, "--spec", str(path))


def test_a_layout_with_more_gpus_than_the_nodes_have(tmp_path: Path, model: Path) -> None:
    said = up(tmp_path, "--spec", spec(tmp_path, model, gang="{tensor_parallel: 16}"))
    assert "no room for a gang of 1 nodes x 16 GPUs" in said
    assert "1 x 8 GPUs" in said


def test_a_fleet_too_large_for_its_nodes(tmp_path: Path) -> None:
    said = up(tmp_path, "--engine", "fake", "--nodes", "1")
    assert "no room" in said


def test_a_busy_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = up(tmp_path, "--engine", "fake", "--port", str(port))
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "choose another with --port" in said


def test_a_checkpoint_that_lacks_a_shard(tmp_path: Path, model: Path) -> None:
    config = {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3"}
    (model / "config.json").write_text(json.dumps(config))
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00001.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    said = up(tmp_path, "--spec", spec(tmp_path, model))
    assert "lacks the shard model-00001-of-00001.safetensors" in said
    assert "do: copy the checkpoint again" in said


def test_nodes_with_another_engine_than_the_spec_asks_for(tmp_path: Path, model: Path) -> None:
    path = Path(spec(tmp_path, model))
    path.write_text(path.read_text().replace("kind: vllm,", "kind: vllm, version: 0.31.0,"))
    said = up(tmp_path, "--spec", str(path))
    assert "has vLLM 0.32.0, the spec asks for 0.31.0" in said
    assert "use one image on all nodes" in said


def test_an_engine_flag_that_is_ours_to_set(tmp_path: Path, model: Path) -> None:
    said = up(tmp_path, "--spec", spec(tmp_path, model, args="[--tensor-parallel-size, '2']"))
    assert "--tensor-parallel-size" in said
    assert "remove it" in said


def test_prefill_and_decode_whose_kv_would_differ(tmp_path: Path, model: Path) -> None:
    path = Path(spec(tmp_path, model))
    pools = "[{role: prefill, args: [--kv-cache-dtype, fp8]}, {role: decode}]"
    path.write_text(path.read_text().replace("[{role: unified, gang: {}}]", pools))
    said = up(tmp_path, "--spec", str(path))
    assert "--kv-cache-dtype says fp8 to prefill and nothing to decode engines" in said
    assert "do: give both pools the same" in said


def test_a_tokenizer_that_loses_text_is_never_served_with(tmp_path: Path, model: Path) -> None:
    file = json.loads((model / "tokenizer.json").read_text())
    file["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}
    (model / "tokenizer.json").write_text(json.dumps(file))
    said = up(tmp_path, "--spec", spec(tmp_path, model))
    assert "tokenizer.json turns the text" in said
    assert "Serve the tokenizer.json that was published with the checkpoint" in said


def test_a_tokenizer_that_vllm_would_corrupt_is_never_served_with(
    tmp_path: Path, model: Path
) -> None:
    (model / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizerFast"}')
    (model / "config.json").write_text('{"model_type": "llama"}')
    said = up(tmp_path, "--spec", spec(tmp_path, model))
    assert "transformers 5 loses spaces, line breaks and CJK" in said


def test_keys_that_are_none(tmp_path: Path, model: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("sk-plain\n")
    path = Path(spec(tmp_path, model))
    path.write_text(path.read_text() + f"api: {{keys_path: {keys}}}\n")
    said = up(tmp_path, "--spec", str(path))
    assert "line 1 is no `TENANT sha256:HEX`" in said
    assert "r1-serve key" in said


def test_a_model_folder_without_a_tokenizer(tmp_path: Path) -> None:
    said = up(tmp_path, "--spec", spec(tmp_path, tmp_path))
    assert "there is no tokenizer.json" in said
