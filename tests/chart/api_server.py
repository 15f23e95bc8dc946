"""A real API server over etcd, with KubeRay's resources: it accepts objects and runs nothing."""

import secrets
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from orchestrator.runtime.ports import PortClaims

BUILD_S = 1_500.0  # the first time on a machine
READY_S = 60.0
HOST = "127.0.0.1"


@dataclass(frozen=True)
class ApiServer:
    """A server that is ready."""

    tools: Path
    config: Path  # of kubectl and Helm
    client: httpx.Client

    def helm(self, *argv: str, values: str = "{}") -> subprocess.CompletedProcess[str]:
        """Helm 4 on this cluster; `values` are its standard input."""
        command = [str(self.tools / "helm4"), *argv, "--kubeconfig", str(self.config)]
        return subprocess.run(
            command, input=values, capture_output=True, text=True, timeout=60, check=False
        )

    def kubectl(self, *argv: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """kubectl on this cluster."""
        command = [str(self.tools / "kubectl"), "--kubeconfig", str(self.config), *argv]
        return subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=60, check=False
        )

    def refusal(self, thing: dict[str, Any], namespace: str) -> str | None:
        """Why the server does not take the object, or None; nothing is kept."""
        group, _, version = thing["apiVersion"].rpartition("/")
        root = f"/apis/{group}/{version}" if group else f"/api/{version}"
        answer = self.client.patch(
            f"{root}/namespaces/{namespace}/{PLURALS[thing['kind']]}/{thing['metadata']['name']}",
            params={
                "dryRun": "All",
                "fieldManager": "test",
                "fieldValidation": "Strict",
                "force": "true",
            },
            headers={"content-type": "application/apply-patch+yaml"},
            content=yaml.dump(thing, Dumper=yaml.CSafeDumper),
        )
        return None if answer.is_success else answer.text


PLURALS = {
    "ConfigMap": "configmaps",
    "DaemonSet": "daemonsets",
    "Ingress": "ingresses",
    "Job": "jobs",
    "NetworkPolicy": "networkpolicies",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "Pod": "pods",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "RayService": "rayservices",
    "ResourceClaimTemplate": "resourceclaimtemplates",
    "Secret": "secrets",
    "ServiceAccount": "serviceaccounts",
}


@contextmanager
def api_server(folder: Path) -> Iterator[ApiServer]:
    """Runs until the block ends."""
    built = subprocess.run(
        ["deploy/cluster/programs.sh"], check=True, capture_output=True, text=True, timeout=BUILD_S
    )
    tools = Path(built.stdout.strip())
    ports = PortClaims(HOST)
    store, peer, secure = ports.take(3)
    token = secrets.token_hex(16)
    (folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
    key = folder / "service-accounts.key"
    subprocess.run(
        ["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True, timeout=60
    )
    url = f"https://{HOST}:{secure}"
    with ExitStack() as stack:
        stack.callback(ports.release)
        _run(
            stack,
            folder / "etcd.log",
            *("etcd", "--data-dir", str(folder / "etcd")),
            *("--listen-client-urls", f"http://{HOST}:{store}"),
            *("--advertise-client-urls", f"http://{HOST}:{store}"),
            *("--listen-peer-urls", f"http://{HOST}:{peer}"),
        )
        _run(
            stack,
            folder / "apiserver.log",
            *(str(tools / "kube-apiserver"), "--etcd-servers", f"http://{HOST}:{store}"),
            *("--bind-address", HOST, "--secure-port", str(secure)),
            *("--cert-dir", str(folder / "certs"), "--endpoint-reconciler-type", "none"),
            *("--service-account-issuer", "https://kubernetes.default.svc"),
            *("--service-account-key-file", str(key)),
            *("--service-account-signing-key-file", str(key)),
            *("--token-auth-file", str(folder / "tokens.csv"), "--authorization-mode", "RBAC"),
            *("--service-cluster-ip-range", "10.96.0.0/16"),
        )
        config = folder / "config"
        config.write_text(yaml.safe_dump(_config(url, token)))
        # The server makes its own certificate; the connection is this machine's own.
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        client = stack.enter_context(
            httpx.Client(
                base_url=url,
                headers={"authorization": f"Bearer {token}"},
                verify=trusting,
                timeout=30,
            )
        )
        _await(client, "/readyz", folder)
        server = ApiServer(tools, config, client)
        made = server.kubectl("apply", "--server-side", "-f", f"{tools}/kuberay/")
        assert made.returncode == 0, made.stderr
        _await(client, "/apis/ray.io/v1/namespaces/default/rayservices", folder)
        yield server


def _run(stack: ExitStack, log: Path, *argv: str) -> None:
    sink = stack.enter_context(log.open("wb"))
    process = subprocess.Popen(argv, stdout=sink, stderr=subprocess.STDOUT)

    def end() -> None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)


def _await(client: httpx.Client, path: str, folder: Path) -> None:
    """Until the server answers the question well."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        try:
            if client.get(path).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    log = (folder / "apiserver.log").read_text()
    raise AssertionError(f"the API server does not answer {path}: {log[-2000:]}")


def _config(url: str, token: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
