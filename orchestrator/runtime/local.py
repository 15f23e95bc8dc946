"""`r1-serve up`: the whole of r1-serve on this machine, until it is told to end."""

import json
import logging
import os
import re
import signal
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import FrameType
from typing import NoReturn

from ray import serve
from ray.serve.schema import ApplicationStatus

from orchestrator.core import EngineStartError, StartError
from orchestrator.runtime import keeper
from orchestrator.runtime.local_cluster import LocalCluster, check_port, last_line
from orchestrator.runtime.local_telemetry import LocalTelemetry
from orchestrator.runtime.serve_api import put_config
from orchestrator.runtime.serve_config import APPLICATION, serve_config
from orchestrator.runtime.simulated import check_files, check_layout
from orchestrator.spec import PUBLISHER, Spec, public_names

Say = Callable[[str], None]

TEND_S = 1.0  # between two looks at Ray's head
READY_S = 60.0  # from "every replica runs" to "a gateway behind HAProxy reaches every pool"
ANSWER_TOKENS = 192  # enough for a thought of r1-nano; random weights would go on for ever
# Long enough for a KV transfer; r1-nano was not trained on these two numbers.
QUESTION = "Tom has 29 apples and gets 35 more. How many apples does Tom have now?"


class _Ended(BaseException):
    """Somebody asked for the end; not an error, so nothing below may catch it."""


def run_local(spec: Spec, folder: Path, say: Say, began_at: float) -> None:
    """Serves until SIGTERM or SIGINT; raises R1ServeError if it cannot.

    `began_at` is the instant of the wall clock that the printed times count from; `folder`, whose
    path must be short, is for sockets and Ray's logs, and belongs to the caller.
    """
    check_files(spec)
    check_layout(spec)
    check_port(spec)
    _quiet()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    cluster, telemetry = LocalCluster(spec, folder), LocalTelemetry(spec, folder)
    try:
        say(f"starting Ray: a head and {spec.local.nodes} simulated nodes ...")
        cluster.start()
        telemetry.start()
        for model in spec.models:
            gangs = ", ".join(f"{pool.replicas} x {pool.role}" for pool in model.pools)
            say(f"starting {model.name} ({model.profile.licence}): {gangs} ...")
        say(f"the gangs' logs are in {spec.log_dir}/")
        _deploy(spec)
        _await_ready(spec)
        if spec.api.keys_path is None:
            first = f"first streamed token {_ask(spec, say, began_at):.0f} s after the command"
        else:  # of which only the hashes are here
            first = f"ready {time.time() - began_at:.0f} s after the command; asked nothing, for"
            first += " it needs a key"
        _announce(spec, cluster, telemetry, say, first)
        while signal.sigtimedwait({signal.SIGTERM, signal.SIGINT}, TEND_S) is None:
            if cluster.tend():
                say("Ray's head had died; it runs again")
    except _Ended:
        pass
    finally:
        say("ending every process ...")
        telemetry.stop()
        cluster.stop()


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _Ended


def _quiet() -> None:
    """Ray's own progress lines would bury ours."""
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _deploy(spec: Spec) -> None:
    """As a RayService does it: by a configuration, which alone may have a policy for the whole
    application, and of which a changed one can be put later.
    """
    put_config(serve_config(spec))
    try:
        _await_running()
    except RuntimeError as error:
        raise _cause_of(error, spec) from error


def _await_running() -> None:
    while True:
        told = serve.status().applications.get(APPLICATION)
        if told is not None and told.status == ApplicationStatus.RUNNING:
            return
        if told is not None and told.status == ApplicationStatus.DEPLOY_FAILED:
            raise RuntimeError(told.message)
        time.sleep(0.5)


def _cause_of(error: RuntimeError, spec: Spec) -> StartError:
    """The engine's own error, dug out of the tracebacks that Serve keeps of it."""
    told = serve.status().applications[APPLICATION].deployments.values()
    text = "\n".join(deployment.message for deployment in told)
    found = re.findall(r"EngineStartError: (.*?)(?: \[(.*)\])?$", text, re.MULTILINE)
    if found:
        cause, cure = found[-1]
        return EngineStartError(cause, cure or f"read the logs in {spec.log_dir}/")
    cause = f"Serve could not start: {last_line(error)}"
    return StartError(cause, f"read the logs in {spec.log_dir}/")


def _await_ready(spec: Spec) -> None:
    """Until a gateway behind HAProxy reaches a rank of every pool."""
    deadline = time.monotonic() + READY_S
    answer: object = "no answer"
    while time.monotonic() < deadline:
        try:
            status, answer = _get(spec, "/health")
        except (OSError, HTTPException, ValueError) as error:
            answer = error
        else:
            if status == 200 and isinstance(answer, dict) and _complete(answer["ranks"]):
                return
        time.sleep(0.2)
    raise StartError(
        f"the gateway is not ready after {READY_S:g} s: {answer}",
        f"read the logs in {spec.log_dir}/",
    )


def _complete(ranks: dict[str, dict[str, int]]) -> bool:
    return all(count for roles in ranks.values() for count in roles.values())


def _get(spec: Spec, path: str) -> tuple[int, object]:
    connection = HTTPConnection(spec.gateway.host, spec.gateway.port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def _ask(spec: Spec, say: Say, began_at: float) -> float:
    """Asks one question through the whole path, shows the answer as it comes; returns when its
    first token came, in seconds since `began_at`.
    """
    say(f"asking it: {QUESTION}")
    body = {
        "model": next(iter(public_names(spec.models))),
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": True,
        "max_tokens": ANSWER_TOKENS,
    }
    first_token_s = None
    shown = {"reasoning_content": "", "content": ""}
    connection = HTTPConnection(spec.gateway.host, spec.gateway.port, timeout=120)
    try:
        connection.request("POST", "/chat/completions", json.dumps(body))
        response = connection.getresponse()
        if response.status != 200:
            raise StartError(f"the first question was answered {response.status}", "read the logs")
        for line in response:
            if line.startswith(b"data: {"):
                delta = json.loads(line[6:])["choices"][0]["delta"]
                for part in shown:
                    if delta.get(part):
                        first_token_s = first_token_s or time.time() - began_at
                        shown[part] += delta[part]
    except (OSError, HTTPException) as error:
        raise StartError(f"the first question failed: {error}", "read the logs") from error
    finally:
        connection.close()
    if first_token_s is None:
        raise StartError("the first question was answered with nothing", "read the logs")
    say(f"  thought: {shown['reasoning_content']}")
    say(f"  answer:  {shown['content']}")
    return first_token_s


def _announce(
    spec: Spec, cluster: LocalCluster, telemetry: LocalTelemetry, say: Say, first: str
) -> None:
    url = f"http://{spec.gateway.host}:{spec.gateway.port}"
    count, memory_bytes = _memory()
    names = [name for name in public_names(spec.models) if not name.startswith(PUBLISHER)]
    keys = "any key: it is OPEN, set api.keys_path" if spec.api.keys_path is None else "needs a key"
    proof = "" if spec.api.keys_path is None else "-H 'authorization: Bearer sk-...' "
    say(
        f"{first}; {count} processes hold {memory_bytes / 2**30:.1f} GiB\n"
        f"\n"
        f"  chat page      {url}/\n"
        f"  API            {url}  (DeepSeek's and OpenAI's; {keys})\n"
        f"  models         {', '.join(names)}\n"
        f"  boards         {telemetry.boards}\n"
        f"  metrics        {telemetry.url}/metrics\n"
        f"  Ray dashboard  {cluster.dashboard_url}\n"
        f"  Ray address    {cluster.address}\n"
        f"  try            curl -N {url}/chat/completions {proof}-d "
        f'\'{{"model":"{names[0]}","stream":true,'
        f'"messages":[{{"role":"user","content":"{QUESTION}"}}]}}\'\n'
        f"\n"
        f"Ctrl-C ends it."
    )


def _memory() -> tuple[int, int]:
    """How many processes belong to this run, and their proportional set size together in bytes."""
    pids = [os.getppid(), *keeper.descendants(os.getppid())]
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
                total += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
        except OSError:
            continue  # ended meanwhile
    return len(pids), total << 10
