"""A Ray cluster of simulated nodes on this machine, with GPUs only the scheduler believes in.

They share the loopback, or have addresses of their own in network namespaces.
"""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.exceptions import RayError

from orchestrator.core import PortInUseError, StartError
from orchestrator.runtime.application import serve_environment
from orchestrator.runtime.namespaces import Namespaces
from orchestrator.runtime.ports import PortClaims
from orchestrator.runtime.simulated import node_labels
from orchestrator.spec import LOOPBACK, Spec

OBJECT_STORE_BYTES = 80 << 20  # nothing large is put there; 75 MiB is Ray's least
HEAD_CPUS = 2
NODE_ATTEMPTS = 3
NODE_CPUS = 16
NODE_S = 120.0  # for one namespaced node to start
NODES_AT_ONCE = 2
_GCS = "gcs_server"


def check_port(spec: Spec) -> None:
    """Raises PortInUseError if the gateway's port is taken: HAProxy would fail much later."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((spec.gateway.host, spec.gateway.port))
        except OSError as error:
            raise PortInUseError(
                f"cannot listen on {spec.gateway.host}:{spec.gateway.port}: {error.strerror}",
                "stop what owns the port, or choose another with --port",
            ) from error


def last_line(error: Exception) -> str:
    """What a traceback that Ray or Serve made into a message says in the end."""
    return _last_words(str(error)) or type(error).__name__


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


class LocalCluster:
    """One head and the spec's simulated nodes, each with its own processes, and Serve on them."""

    def __init__(self, spec: Spec, folder: Path) -> None:
        """`folder` is for the sockets and logs of Ray and HAProxy, which allows 97 characters for
        the path of its own: some 25 are left.
        """
        self._spec = spec
        self._folder = folder
        self._ports = PortClaims(LOOPBACK)
        self._cluster: Cluster | None = None
        self._namespaces: Namespaces | None = None

    @property
    def dashboard_url(self) -> str:
        """Ray's dashboard."""
        assert self._cluster is not None
        return f"http://{self._cluster.webui_url}"

    @property
    def address(self) -> str:
        """Of Ray's GCS, for `--address`."""
        assert self._cluster is not None
        return str(self._cluster.address)

    def start(self) -> None:
        """Starts head, nodes and Serve, whose settings are in the environment from now on."""
        os.environ.update(serve_environment(self._spec) | self._own_environment())
        labels = node_labels(self._spec)
        if self._spec.local.namespaces:
            self._namespaces = Namespaces(os.getppid(), len(labels))  # the keeper's, as all here
            self._namespaces.make()
        self._cluster = Cluster()
        self._add_node(
            num_cpus=HEAD_CPUS,
            num_gpus=0,
            temp_dir=str(self._folder),
            include_dashboard=True,
            dashboard_host=LOOPBACK,
            dashboard_port=self._ports.take(1)[0],
        )
        gpus = self._spec.local.gpus_per_node
        if self._namespaces is not None:
            self._start_namespaced(self._namespaces, labels)
        else:
            for of_node in labels:
                self._add_node(num_cpus=NODE_CPUS, num_gpus=gpus, labels=of_node)
        # `ray.init` replaces a loopback address by the host's own unless it knows its node.
        ray._private.worker._global_node = self._cluster.head_node
        ray.init(address=self._cluster.address, log_to_driver=False, configure_logging=False)
        alive = sum(node["Alive"] for node in ray.nodes())
        if alive < len(labels) + 1:
            raise StartError(f"{alive} of {len(labels) + 1} Ray nodes are up", "try again")
        self._start_serve()

    def tend(self) -> bool:
        """Starts the server of the cluster's tables again if it has died, as Kubernetes starts a
        head again: it finds them where it left them. Returns whether it had died.
        """
        assert self._cluster is not None
        head = self._cluster.head_node
        if all(name != _GCS for name, _ in head.dead_processes()):
            return False
        head.kill_gcs_server(check_alive=False)  # Ray then forgets it
        head.start_gcs_server()
        return True

    def stop(self) -> None:
        """Ends all of it; what is left is for the keeper."""
        if self._cluster is not None:
            ray.shutdown()
            self._cluster.shutdown()
            self._cluster = None
        if self._namespaces is not None:
            self._namespaces.remove()
            self._namespaces = None
        self._ports.release()

    def _start_serve(self) -> None:
        gateway = self._spec.gateway
        try:
            serve.start(
                proxy_location="HeadOnly",
                http_options={"host": gateway.host, "port": gateway.port},
            )
        except (RuntimeError, RayError) as error:
            raise StartError(
                f"Serve did not start: {last_line(error)}", f"read {self._spec.log_dir}/ray.log"
            ) from error

    def _add_node(self, **settings: object) -> None:
        """Starts a node's processes; Ray gives them 30 s, which a busy machine may need twice."""
        assert self._cluster is not None
        host = LOOPBACK if self._namespaces is None else self._namespaces.head
        fixed = {"node_ip_address": host, "object_store_memory": OBJECT_STORE_BYTES}
        for attempt in range(1, NODE_ATTEMPTS + 1):
            try:
                self._cluster.add_node(**fixed, **settings)
            except Exception as error:  # Ray raises nothing more precise
                if attempt == NODE_ATTEMPTS:
                    raise StartError(
                        f"a Ray node did not start: {error}",
                        "end what keeps the machine busy, then try again",
                    ) from error
            else:
                return

    def _start_namespaced(self, namespaces: Namespaces, labels: tuple[dict[str, str], ...]) -> None:
        """Each node with `ray start` inside its namespace, some at a time."""
        with ThreadPoolExecutor(NODES_AT_ONCE) as pool:
            works = [
                pool.submit(self._start_in, namespaces, node, of_node)
                for node, of_node in enumerate(labels)
            ]
            for work in works:
                work.result()

    def _start_in(self, namespaces: Namespaces, node: int, labels: dict[str, str]) -> None:
        assert self._cluster is not None
        argv = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--disable-usage-stats"),
            *("--address", self._cluster.address),
            # of its own: nodes that start together take each other's names of sockets
            *("--temp-dir", str(self._folder / f"n{node}")),
            *("--node-ip-address", namespaces.address(node)),
            *("--num-cpus", str(NODE_CPUS)),
            *("--num-gpus", str(self._spec.local.gpus_per_node)),
            *("--object-store-memory", str(OBJECT_STORE_BYTES)),
            *("--include-log-monitor", "False"),
        ]
        if labels:
            argv += ["--labels", ",".join(f"{key}={value}" for key, value in labels.items())]
        said = ""
        for _ in range(NODE_ATTEMPTS):
            try:
                started = subprocess.run(
                    namespaces.command(node, argv),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=NODE_S,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                said = "it does not end"
            else:
                if started.returncode == 0:
                    return
                said = _last_words(started.stderr or started.stdout)
            namespaces.end_all(node)
        raise StartError(
            f"a Ray node did not start: {said}", "end what keeps the machine busy, then try again"
        )

    def _own_environment(self) -> dict[str, str]:
        metrics, stats, fallback = self._ports.take(3)
        return {
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(self._folder / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(self._folder / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(self._folder),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(self._folder / "server-state"),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
            "RAY_SERVE_HAPROXY_NBTHREAD": "1",
            # A head that is started again knows what runs.
            "RAY_gcs_storage": "rocksdb",
            "RAY_gcs_storage_path": str(self._folder / "gcs"),
            # Ray starts workers, and so engines, at 15: whatever else runs here would starve them.
            "RAY_worker_niceness": "0",
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        }
