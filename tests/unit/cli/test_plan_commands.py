"""`r1-serve plan --format commands`: what each node starts, for vLLM and for SGLang."""

import shlex

import pytest

from orchestrator.cli import main

H200 = ("plan", "--gpus", "16xH200", "--model", "DeepSeek-R1", "--slo", "itl=30ms")


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The command lines of a plan."""
    assert main([*arguments, "--format", "commands"]) == 0
    return [line for line in capsys.readouterr().out.splitlines() if line and line[0] != "#"]


def test_every_data_parallel_rank_has_a_command_of_vllms(
    capsys: pytest.CaptureFixture[str],
) -> None:
    commands = [shlex.split(line) for line in said(capsys, *H200)]
    ranks = [words[words.index("--data-parallel-rank") + 1] for words in commands]
    assert len(ranks) == len(commands)
    assert sorted(set(ranks), key=int) == [str(rank) for rank in range(max(map(int, ranks)) + 1)]
    assert all("NCCL_SOCKET_IFNAME=eth0" in words for words in commands)


def test_sglang_has_a_command_for_each_node(capsys: pytest.CaptureFixture[str]) -> None:
    commands = said(capsys, *H200, "--engine", "sglang")
    assert all(line.startswith("python -m sglang.launch_server ") for line in commands)
    assert len(commands) <= 2


def test_values_are_not_written_for_engines_that_r1_serve_does_not_start(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*H200, "--engine", "sglang", "--format", "values"]) == 2
    assert "use --format commands" in capsys.readouterr().err
