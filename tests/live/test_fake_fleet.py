"""A fleet of fake engines under the real Ray Serve stack: deaths, disconnects, refusals; its boards
in a browser, and `r1-serve drill` on it as an operator types it.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from playwright.sync_api import Browser

from orchestrator.engines.tiny_checkpoint import write_tokenizer
from tests.live.boards import boards_url, chromium, look, traffic
from tests.live.local_stack import Asker, LocalStack, command, end_of, local_stack, stream, until

pytestmark = [pytest.mark.live, pytest.mark.timeout(400)]

QUESTION = "Say something long about the weather of the last hundred years, please. " * 8
BACK_S = 120.0
SPEC = """
models:
  - path: {path}
    name: DeepSeek-R1
    max_model_len: 2048
    engine: {{kind: fake, device: cpu, fake_step_s: 0.05}}
    pools:
      - {{role: prefill, gang: {{tensor_parallel: 2, nodes: 2, tensor_across_nodes: true}}}}
      - {{role: decode, replicas: 4}}
  - path: {path}
    name: DeepSeek-V3-0324
    max_model_len: 2048
    engine: {{kind: fake, device: cpu}}
    pools: [{{role: unified}}]
gateway: {{host: 127.0.0.1}}
fleet: {{health_period_s: 1, start_attempts: 1, stuck_after_s: 60, drain_s: 60}}
local: {{nodes: 7}}
telemetry: {{gpu_hour_price: 2}}
"""
WHOLE = {"prefill": 1, "decode": 4}
# What a fleet of fake engines that nobody overloads cannot show; each panel says why.
SILENT = {
    "SLO kept, last hour",
    "Error budget, times as fast as it may go",
    "Charged an hour",
    "Answers that are not what they should be",
    "KV transfer, bytes",
    "Preemptions and refusals of engines",
    "Tokens of a step",
    "Arithmetic used, of what there is",
    "Weights read, of the memory's bandwidth",
    "Skew between the GPUs of a gang",
    "Tokens for a joule",
    "Slowed down",
    "XID errors",
    "Memory errors",
    "Scaling: wanted and needed",
    "Scaling: reasons",
    "Pods that are not ready",
    "Restarts of containers",
    "Certificates, until they expire",
    "Oldest file of API keys",
    "Why requests were not admitted at once",
    "Most loaded rank, above the mean",
    "Limits of tenants that were met",
    "Thinking budgets",
    "Requests that lived through something",
}
SLOW_S = 120.0  # until a rate of each series is known, on a busy machine


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """Six nodes for R1: a prefill gang of two, four decode gangs of one; and one for V3."""
    folder = tmp_path_factory.mktemp("fleet")
    checkpoint = folder / "tokenizer"
    write_tokenizer(checkpoint)
    spec = folder / "spec.yaml"
    spec.write_text(SPEC.format(path=checkpoint))
    with local_stack(folder, "--spec", str(spec)) as stack:
        yield stack


def ask_in_parallel(fleet: LocalStack, count: int) -> list[Asker]:
    """Starts streams and returns when every one has begun."""
    askers = [Asker(fleet.client(), QUESTION) for _ in range(count)]
    for asker in askers:
        asker.start()
    until(lambda: all(len(a.heard) > 1 or not a.is_alive() for a in askers), 60)
    return askers


def test_every_gang_serves(fleet: LocalStack) -> None:
    assert fleet.ranks() == WHOLE
    whole = stream(fleet.client(), QUESTION)
    assert whole.finish == "stop"
    assert whole.reasoning
    assert whole.answer


def test_models_stand_side_by_side(fleet: LocalStack) -> None:
    names = ["deepseek-reasoner", "deepseek-chat", "DeepSeek-R1", "DeepSeek-V3-0324"]
    assert sorted(model.id for model in fleet.client().models.list()) == sorted(names)
    answer = fleet.client().chat.completions.create(
        model="deepseek-chat", messages=[{"role": "user", "content": QUESTION}]
    )
    assert answer.choices[0].message.content
    assert "reasoning_content" not in (answer.choices[0].message.model_extra or {})
    page = httpx.get(fleet.url)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "DeepThink" in page.text


def test_a_killed_decode_process_costs_no_request_and_its_gang_comes_back(
    fleet: LocalStack,
) -> None:
    undisturbed = stream(fleet.client(), QUESTION)
    askers = ask_in_parallel(fleet, 8)
    before = fleet.engine_pids("decode")
    os.kill(before[0], signal.SIGKILL)
    end_of(askers)
    assert [asker.completion for asker in askers] == [undisturbed] * 8
    until(lambda: fleet.ranks() == WHOLE, BACK_S)
    until(lambda: len(set(fleet.engine_pids("decode")) - set(before)) == 1, BACK_S)


def test_a_killed_process_on_a_gangs_other_node_takes_the_whole_gang_down(
    fleet: LocalStack,
) -> None:
    before = fleet.engine_pids("prefill")
    os.kill(fleet.engine_pids("prefill", node=1)[0], signal.SIGKILL)
    until(lambda: not set(before) & set(fleet.engine_pids("prefill")), BACK_S)
    until(lambda: fleet.ranks() == WHOLE, BACK_S)


def test_a_killed_prefill_process_costs_no_request(fleet: LocalStack) -> None:
    undisturbed = stream(fleet.client(), QUESTION)
    askers = [Asker(fleet.client(), QUESTION) for _ in range(8)]
    for asker in askers:
        asker.start()
    os.kill(fleet.engine_pids("prefill")[0], signal.SIGKILL)
    end_of(askers)
    assert [asker.completion for asker in askers] == [undisturbed] * 8
    until(lambda: fleet.ranks() == WHOLE, BACK_S)


def test_a_killed_gateway_cuts_its_own_streams_only_and_comes_back(fleet: LocalStack) -> None:
    undisturbed = stream(fleet.client(), QUESTION)
    askers = ask_in_parallel(fleet, 8)
    gateways = fleet.pids("ServeReplica:r1-serve:gateway")
    assert len(gateways) == 2
    os.kill(gateways[0], signal.SIGKILL)
    end_of(askers)
    whole = [asker.completion for asker in askers if asker.completion is not None]
    cut = [asker.error for asker in askers if asker.error is not None]
    assert whole == [undisturbed] * len(whole)
    assert whole, "the other gateway's streams were cut"
    assert cut, "no stream was on the gateway that was killed"
    # A broken connection, which a client can tell from an end: nobody is told a lie.
    assert all(isinstance(error, openai.APIConnectionError | httpx.HTTPError) for error in cut)
    until(lambda: len(fleet.pids("ServeReplica:r1-serve:gateway")) == 2, BACK_S)
    for _ in range(6):
        assert stream(fleet.client(), QUESTION) == undisturbed


def test_a_client_that_leaves_frees_its_slot(fleet: LocalStack) -> None:
    body = {
        "model": "deepseek-reasoner",
        "stream": True,
        "messages": [{"role": "user", "content": QUESTION}],
    }
    with httpx.stream("POST", f"{fleet.url}/chat/completions", json=body, timeout=30) as response:
        next(response.iter_raw())
    until(lambda: 'r1_requests_in_flight{model="DeepSeek-R1"} 0.0' in metrics(fleet), 30)


def test_errors_of_the_gateway_keep_their_status_behind_haproxy(fleet: LocalStack) -> None:
    answer = httpx.post(f"{fleet.url}/v1/chat/completions", content=b"{", timeout=30)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request_error"


def metrics(fleet: LocalStack) -> str:
    """The metrics of whichever gateway answers."""
    return httpx.get(f"{fleet.url}/metrics", timeout=30).text


def test_the_log_folder_has_each_decision_with_its_reason(fleet: LocalStack) -> None:
    lines = "".join(path.read_text() for path in Path(fleet.log_dir).glob("decisions-*.jsonl"))
    for event in ("admission", "path", "routing"):
        assert f'"event":"{event}"' in lines
    assert '"reason":' in lines


def test_every_panel_of_the_boards_shows_data_or_says_why_not(fleet: LocalStack) -> None:
    url = boards_url(fleet)
    with traffic(fleet.url, 2) as wrong, chromium() as browser:
        until(lambda: _silent(browser, url) <= SILENT, SLOW_S)
        shown = look(browser, url, None)
    assert {each.panel for each in shown if each.said} <= SILENT
    for each in shown:
        assert not each.said or len(each.said) > len("No data. "), each
    assert wrong == []


def _silent(browser: Browser, url: str) -> set[str]:
    return {each.panel for each in look(browser, url, None) if each.said}


@pytest.mark.parametrize(
    "name",
    [
        "kill-rank",
        "head-restart",
        "kill-gang",  # the new head knows what the old one knew
        "kill-gateway",
        "overload",
        "drain-under-load",
        "cut-transfer",
        "poison",
    ],
)
def test_a_drill_passes_and_leaves_its_report(fleet: LocalStack, name: str) -> None:
    code, said, page = drill(fleet, name)
    assert code == 0, said
    assert f"Drill {name}: passed" in page


def test_a_drill_without_a_target_says_so_and_names_the_simulator(fleet: LocalStack) -> None:
    code, said, page = drill(fleet, "drop-kv-events")  # fake engines publish none
    assert code == 1
    assert "has no target" in said
    assert "--simulate" in said
    assert not page


def drill(fleet: LocalStack, name: str) -> tuple[int, str, str]:
    """Its exit code, what it said, and its page. Streams of it last 1.2 s, and so the phases have
    some of each client's.
    """
    until(lambda: fleet.ranks() == WHOLE, BACK_S)
    report = fleet.log_dir / f"{name}.html"
    words = ["drill", name, "--url", fleet.url, "--streams", "4", "--report", str(report)]
    words += ["--tokens", "24", "--before", "2.5", "--lasts", "3", "--after", "2.5"]
    told = subprocess.run(command(*words), capture_output=True, text=True, timeout=400, check=False)
    page = report.read_text() if report.exists() else ""
    return told.returncode, told.stdout + told.stderr, page
