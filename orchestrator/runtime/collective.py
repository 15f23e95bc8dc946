"""Has all nodes of a fleet, or two processes of this machine, do an all-reduce together."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core import R1ServeError
from orchestrator.spec import LOOPBACK

LIMIT_S = 150.0


@dataclass(frozen=True, slots=True)
class Process:
    """One of them: where, and by which network interface."""

    node: str
    interface: str


def on_this_machine(port: int, backend: str) -> Mapping[str, float]:
    """Two processes over the loopback; bytes a second, by process. Raises R1ServeError."""
    address = f"{LOOPBACK}:{port}"
    started = [
        subprocess.Popen(
            command(rank, 2, address, backend), env=_environment("lo"), stdout=subprocess.PIPE
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=LIMIT_S)[0] for process in started]
    except subprocess.TimeoutExpired as error:
        raise R1ServeError(f"no end within {LIMIT_S:g} s", "look at this machine's load") from error
    finally:
        for process in started:
            process.kill()
    return speeds([f"process {rank}" for rank in range(2)], said)


def on_all_nodes(backend: str) -> Mapping[str, float]:
    """A process on each node with GPUs of the cluster, whose driver this is, or on each of all if
    none has any; bytes a second, by address.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from orchestrator.runtime.node_agent import interface_of
    from orchestrator.runtime.ports import PortClaims

    def facts() -> tuple[str, str, int]:
        host = ray.util.get_node_ip_address()
        (port,) = PortClaims(host).take(1)
        return host, interface_of(host), port

    def run(argv: list[str], interface: str) -> bytes:
        done = subprocess.run(
            argv, env=_environment(interface), stdout=subprocess.PIPE, timeout=LIMIT_S, check=False
        )
        return done.stdout

    alive = [node for node in ray.nodes() if node["Alive"]]
    computing = [node for node in alive if node["Resources"].get("GPU")]
    nodes = [node["NodeID"] for node in computing or alive]
    if len(nodes) < 2:
        raise R1ServeError("the cluster has one node", "there is no link to measure")
    places = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    asking = ray.remote(num_cpus=0)(facts)
    told = ray.get([asking.options(scheduling_strategy=at).remote() for at in places])
    address = f"{told[0][0]}:{told[0][2]}"
    running = ray.remote(num_cpus=0)(run)
    said = ray.get(
        [
            running.options(scheduling_strategy=at).remote(
                command(rank, len(nodes), address, backend), interface
            )
            for rank, (at, (_, interface, _)) in enumerate(zip(places, told, strict=True))
        ],
        timeout=LIMIT_S,
    )
    return speeds([f"{host}, node {rank}" for rank, (host, _, _) in enumerate(told)], said)


def command(rank: int, ranks: int, address: str, backend: str) -> list[str]:
    """What a node runs."""
    options = ["--rank", str(rank), "--ranks", str(ranks), "--at", address, "--backend", backend]
    return [sys.executable, "-m", "orchestrator.engines.collective", *options]


def speeds(names: Sequence[str], said: Sequence[bytes]) -> Mapping[str, float]:
    """What the processes have printed. Raises R1ServeError with the first cause."""
    found = {}
    for name, text in zip(names, said, strict=True):
        try:
            tree = json.loads(text.splitlines()[-1])
        except (ValueError, IndexError):
            tree = {"cause": "it has said nothing"}
        if "bytes_per_s" not in tree:
            raise R1ServeError(
                f"the collective failed at {name}: {tree.get('cause')}",
                "look at the network between the nodes, and whether torch is installed there",
            )
        found[name] = float(tree["bytes_per_s"])
    return found


def _environment(interface: str) -> dict[str, str]:
    return {**os.environ, "GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}
