"""A real Kubernetes of one node on this machine, for tests and for looking at the chart.

Everything of it runs in namespaces of its own, so that its end leaves nothing. Needs root and
Linux; the programs come from programs.sh.
"""

import fcntl
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.cluster.addresses import (
    API,
    API_URL,
    DNS,
    HOST,
    HOST_LINK,
    NODE,
    NODE_LINK,
    NODE_NAME,
    PODS,
    PREFIX,
    SERVICES,
)
from deploy.cluster.node import cgroups

PROGRAMS = (
    *("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"),
    *("kuberay-operator", "dns", "pause", "node"),
)
BUILD_S = 3_600.0  # the first time on a machine
READY_S = 300.0  # some 20 s on two quiet cores
END_S = 60.0
ROOT = Path(__file__).parents[2]

DNS_SERVICE = f"""
apiVersion: v1
kind: Service
metadata: {{name: kube-dns, namespace: kube-system}}
spec:
  clusterIP: {DNS}
  ports: [{{name: dns, port: 53, protocol: UDP}}, {{name: dns-tcp, port: 53, protocol: TCP}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: kube-dns
  namespace: kube-system
  labels: {{kubernetes.io/service-name: kube-dns}}
addressType: IPv4
ports: [{{name: dns, port: 53, protocol: UDP}}, {{name: dns-tcp, port: 53, protocol: TCP}}]
endpoints: [{{addresses: [{NODE}]}}]
"""


@dataclass(frozen=True)
class Cluster:
    """A cluster whose node is ready."""

    tools: Path
    folder: Path  # with the logs

    @property
    def config(self) -> Path:
        """Of kubectl and Helm, with every right."""
        return self.folder / "config"

    def ask(self, path: str) -> dict[str, Any]:
        """What the API server says at a path, for who asks often: kubectl starts slowly."""
        keys = self.folder / "pki"
        token = (keys / "tokens.csv").read_text().partition(",")[0]
        request = urllib.request.Request(
            f"{API_URL}{path}", headers={"authorization": f"Bearer {token}"}
        )
        trusted = ssl.create_default_context(cafile=str(keys / "ca.crt"))
        with urllib.request.urlopen(request, timeout=60, context=trusted) as answer:
            told: dict[str, Any] = json.loads(answer.read())
        return told

    def kubectl(self, *argv: str, text: str = "", timeout_s: float = 60.0) -> str:
        """What kubectl prints; raises RuntimeError with its error."""
        return self._run("kubectl", argv, text, timeout_s)

    def helm(self, *argv: str, text: str = "", timeout_s: float = 900.0) -> str:
        """The same of Helm 4."""
        return self._run("helm4", argv, text, timeout_s)

    def _run(self, program: str, argv: Sequence[str], text: str, timeout_s: float) -> str:
        ended = subprocess.run(
            [str(self.tools / program), "--kubeconfig", str(self.config), *argv],
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            # Of its own: what another cluster at this address had is not what this one has.
            env=dict(os.environ) | {"KUBECACHEDIR": str(self.folder / "cache")},
        )
        if ended.returncode:
            raise RuntimeError(f"{program} {' '.join(argv)}: {ended.stderr}{ended.stdout}")
        return ended.stdout


def programs(*names: str) -> Path:
    """The folder of tools with these programs in it."""
    made = subprocess.run(
        [str(ROOT / "deploy/cluster/programs.sh"), *names],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=BUILD_S,
    )
    return Path(made.stdout.strip())


@contextmanager
def cluster(folder: Path, images: Sequence[Path] = ()) -> Iterator[Cluster]:
    """Runs until the block ends. `folder` is the caller's, and keeps the logs alone.

    The images are files as `docker save` writes them. One cluster runs on a machine at a time; a
    second waits.
    """
    tools = programs(*PROGRAMS)
    with ExitStack() as stack:
        lock = stack.enter_context((tools / ".cluster.lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        _put_together(folder, images)
        stack.callback(_clean, folder)
        stack.callback(_remove_cgroups)
        log = stack.enter_context((folder / "node.log").open("wb"))
        process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL"),  # whatever ends us ends it
                *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *(sys.executable, "-m", "deploy.cluster.node", str(tools), str(folder)),
            ],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us
        )
        stack.callback(_end, process)
        _connect(process, folder)
        found = Cluster(tools, folder)
        _await_ready(found, process)
        yield found


def leftovers() -> list[str]:
    """What of a cluster is still on this machine; nothing, but while one runs."""
    found = [str(each) for each in cgroups() if each.exists()]
    links = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True)
    routes = subprocess.run(["ip", "route"], check=True, capture_output=True, text=True)
    found += [line for line in links.stdout.splitlines() if HOST_LINK in line]
    found += [line for line in routes.stdout.splitlines() if HOST_LINK in line]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # ended meanwhile
        if "deploy.cluster.node" in command or "containerd-shim" in command:
            found.append(f"process {process.name}: {command[:80]}")
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return found + [line for line in mounts if "/kubelet/" in line or "/containerd/" in line]


def _put_together(folder: Path, images: Sequence[Path]) -> None:
    """The keys, the configuration of clients and the images."""
    keys = folder / "pki"
    _clean(folder)  # of one that was killed
    (folder / "entered").unlink(missing_ok=True)
    keys.mkdir(parents=True)
    (folder / "images").mkdir()
    for image in images:
        (folder / "images" / image.name).symlink_to(image)
    token = secrets.token_hex(16)
    (keys / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
    names = (
        "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,"
        f"DNS:kubernetes.default.svc.cluster.local,IP:{API},IP:{NODE},IP:127.0.0.1"
    )
    pair = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30")
    api = (
        *("-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=CA:FALSE"),
        *("-addext", f"subjectAltName={names}", "-keyout", "api.key", "-out", "api.crt"),
    )
    for argv in (
        ("genrsa", "-out", "accounts.key", "2048"),
        (*pair, "-subj", "/CN=cluster", "-keyout", "ca.key", "-out", "ca.crt"),
        (*pair, "-subj", "/CN=api", *api),
    ):
        subprocess.run(["openssl", *argv], cwd=keys, check=True, capture_output=True, timeout=60)
    (folder / "config").write_text(
        f"""apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "{API_URL}", certificate-authority: "{keys}/ca.crt"}}}}]
users: [{{name: u, user: {{token: {token}}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
"""
    )


def _connect(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Gives the node its link, and this machine the ways to pods and services."""
    _await(process, folder, lambda: (folder / "entered").exists())
    _unlink()  # of one that was killed
    ours = ("link", "add", HOST_LINK, "type", "veth")
    for argv in (
        (*ours, "peer", "name", NODE_LINK, "netns", str(process.pid)),
        ("address", "add", f"{HOST}/{PREFIX}", "dev", HOST_LINK),
        ("link", "set", HOST_LINK, "up"),
        ("route", "add", SERVICES, "via", NODE),
        ("route", "add", PODS, "via", NODE),
    ):
        subprocess.run(["ip", *argv], check=True, timeout=10)


def _await_ready(found: Cluster, process: subprocess.Popen[bytes]) -> None:
    def node_ready() -> bool:
        told = found.ask(f"/api/v1/nodes/{NODE_NAME}")["status"]["conditions"]
        return any(each["type"] == "Ready" and each["status"] == "True" for each in told)

    for true in (
        lambda: found.ask("/api/v1/namespaces/kube-system") != {},
        lambda: found.kubectl("apply", "-f", "-", text=DNS_SERVICE) != "",
        node_ready,
        lambda: found.ask("/api/v1/namespaces/default/serviceaccounts/default") != {},
    ):
        _await(process, found.folder, true)


def _await(process: subprocess.Popen[bytes], folder: Path, true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_S

    def holds() -> bool:
        try:
            return true()
        except (OSError, RuntimeError):
            return False  # not yet

    while not holds():
        if process.poll() is not None or time.monotonic() > deadline:
            said = (folder / "node.log").read_text()[-3000:]
            raise RuntimeError(f"the cluster does not start; its logs are in {folder}: {said}")
        time.sleep(0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    """With process 1 of the namespaces the kernel ends all others there."""
    process.send_signal(signal.SIGKILL)
    process.wait(END_S)
    _unlink()


def _unlink() -> None:
    """The kernel keeps a network for as long as one of its connections closes."""
    subprocess.run(["ip", "link", "delete", HOST_LINK], check=False, capture_output=True)


def _remove_cgroups() -> None:
    deadline = time.monotonic() + END_S
    for top in cgroups():
        for each in sorted((top, *top.rglob("*/")), reverse=True):
            while each.exists():
                try:
                    each.rmdir()
                except OSError:  # a process of it is still ending
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)


def _clean(folder: Path) -> None:
    for name in ("var", "pki", "images", "cni", "cache"):
        shutil.rmtree(folder / name, ignore_errors=True)
