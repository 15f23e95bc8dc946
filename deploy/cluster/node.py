"""Process 1 of the one-node cluster, inside namespaces of its own: it starts all programs of a
Kubernetes node and control plane, and ends with the first of them that ends. With it the kernel
ends every process, mount and network rule there.

`python -m deploy.cluster.node TOOLS FOLDER`: deploy.cluster.cluster runs it, and has put the folder
together.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from deploy.cluster.addresses import (
    API_PORT,
    API_URL,
    CGROUP,
    DNS,
    HOST,
    NODE,
    NODE_LINK,
    NODE_NAME,
    PODS,
    PREFIX,
    SERVICES,
)

LINK_S = 30.0
SOCKET_S = 60.0
SERVER_S = 150.0
CORES = 32  # at most, that the scheduler believes in: pods ask for what real hosts have
STORE = "http://127.0.0.1:2379"
HIERARCHIES = (
    *("cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "devices", "freezer"),
    *("systemd", "unified"),
)
RUNTIME = "/run/containerd/containerd.sock"


def run(*argv: str) -> None:
    """Runs one command to its end."""
    subprocess.run(argv, check=True)


def await_command(*argv: str, within_s: float) -> None:
    """Runs it until it ends well; raises AssertionError with what it said last."""
    deadline = time.monotonic() + within_s
    while True:
        ended = subprocess.run(argv, capture_output=True, text=True, check=False)
        if ended.returncode == 0:
            return
        assert time.monotonic() < deadline, f"{argv}: {ended.stderr}"
        time.sleep(0.2)


def enter(folder: Path) -> None:
    """Mounts that nobody outside sees, then the network."""
    run("mount", "--make-rprivate", "/")
    run("mount", "--make-rshared", "/")  # kubelet's mounts must reach the pods
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    for name in ("lib", "log"):
        (folder / "var" / name).mkdir(parents=True, exist_ok=True)
        run("mount", "--bind", str(folder / "var" / name), f"/var/{name}")
    (folder / "entered").touch()
    deadline = time.monotonic() + LINK_S
    while NODE_LINK not in Path("/proc/net/dev").read_text():
        assert time.monotonic() < deadline, "nobody gave us a network"
        time.sleep(0.05)
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{NODE}/{PREFIX}", "dev", NODE_LINK)
    run("ip", "link", "set", NODE_LINK, "up")
    run("ip", "route", "add", "default", "via", HOST)
    for name in ("ipv4/ip_forward", "bridge/bridge-nf-call-iptables"):
        Path("/proc/sys/net", name).write_text("1")


def pretend_cores() -> None:
    """Kubelet counts the cores of every memory node, and here each of them has the same ones."""
    run("mount", "-t", "tmpfs", "tmpfs", "/sys/devices/system/node")
    real = sorted(os.sched_getaffinity(0))
    for memory in range(CORES // len(real)):
        for core in real:
            topology = Path(f"/sys/devices/system/node/node{memory}/cpu{core}/topology")
            topology.mkdir(parents=True)
            (topology / "core_id").write_text(str(core))
            (topology / "physical_package_id").write_text("0")


def cgroups() -> list[Path]:
    """Ours in each hierarchy; kubelet wants them to be there."""
    return [
        Path("/sys/fs/cgroup", kind, CGROUP)
        for kind in HIERARCHIES
        if Path("/sys/fs/cgroup", kind).is_dir()
    ]


def make_cgroups() -> None:
    """Raises OSError if the kernel has no cgroups of version 1."""
    for each in cgroups():
        each.mkdir(exist_ok=True)
        if "cpuset" in each.parts:
            for name in ("cpuset.cpus", "cpuset.mems"):
                (each / name).write_text((each.parent / name).read_text())


def containerd_config(tools: Path, folder: Path) -> str:
    """Without negative OOM scores, which a machine in a sandbox may not set."""
    return f"""
version = 2
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{RUNTIME}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "r1-serve.test/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{tools}/node/usr/lib/cni"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""


def network_config() -> dict[str, Any]:
    """CNI's: one bridge."""
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": PODS}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
        ],
    }


def kubelet_config(folder: Path) -> dict[str, Any]:
    """A small machine whose disk may be rather full, with cgroups of version 1."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cpuCFSQuota": False,  # or two cores would stand idle for the sake of limits
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{RUNTIME}",
        "enforceNodeAllocatable": [],
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
        },
        "failCgroupV1": False,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "nodeStatusUpdateFrequency": "2s",
        "oomScoreAdj": 0,
        "resolvConf": str(folder / "resolv.conf"),
        "serializeImagePulls": False,
    }


PROXY_CONFIG = {
    "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
    "kind": "KubeProxyConfiguration",
    "mode": "nftables",
    "clusterCIDR": PODS,
    "hostnameOverride": NODE_NAME,
    "oomScoreAdj": 0,
    "conntrack": {
        "maxPerCore": 0,
        "min": 0,
        "tcpEstablishedTimeout": "0s",
        "tcpCloseWaitTimeout": "0s",
    },
}

CORE_FILE = f"""
. {{
    bind {NODE}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig KUBECONFIG x
        pods insecure
        ttl 1
    }}
}}
"""


class Programs:
    """Those that run, by their process's id."""

    def __init__(self, tools: Path, folder: Path) -> None:
        """Their logs are in the folder."""
        self.tools, self._folder = tools, folder
        self._names: dict[int, str] = {}
        (folder / "logs").mkdir(exist_ok=True)

    def start(self, name: str, *argv: str) -> None:
        """One program, of the tools if it is there."""
        path = self.tools / name
        with (self._folder / "logs" / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(path) if path.exists() else name, *argv], stdout=log, stderr=subprocess.STDOUT
            )
        self._names[process.pid] = name

    def wait(self) -> str:
        """Reaps what ends here, until it is one of ours: its name."""
        while True:
            pid, _ = os.wait()
            if pid in self._names:
                return self._names[pid]


def control_plane(programs: Programs, folder: Path) -> None:
    """etcd in memory, the API server, its controllers and scheduler."""
    config, keys = str(folder / "config"), folder / "pki"
    programs.start(
        "etcd",
        *("--data-dir", "/run/etcd", "--listen-client-urls", STORE),
        *("--advertise-client-urls", STORE, "--listen-peer-urls", "http://127.0.0.1:2380"),
    )
    programs.start(
        "kube-apiserver",
        *("--etcd-servers", STORE, "--advertise-address", NODE, "--secure-port", str(API_PORT)),
        *(
            "--tls-cert-file",
            str(keys / "api.crt"),
            "--tls-private-key-file",
            str(keys / "api.key"),
        ),
        *("--service-account-issuer", "https://kubernetes.default.svc"),
        *("--service-account-key-file", str(keys / "accounts.key")),
        *("--service-account-signing-key-file", str(keys / "accounts.key")),
        *("--token-auth-file", str(keys / "tokens.csv"), "--authorization-mode", "RBAC"),
        *("--service-cluster-ip-range", SERVICES, "--allow-privileged"),
        *("--kubelet-preferred-address-types", "InternalIP"),
    )
    # The others give up after half a minute, which a busy machine may need.
    ready = (str(programs.tools / "kubectl"), "--kubeconfig", config, "get", "--raw", "/readyz")
    await_command(*ready, within_s=SERVER_S)
    programs.start(
        "kube-controller-manager",
        *("--kubeconfig", config, "--leader-elect=false", "--root-ca-file", str(keys / "ca.crt")),
        *("--service-account-private-key-file", str(keys / "accounts.key")),
    )
    programs.start("kube-scheduler", "--kubeconfig", config, "--leader-elect=false")


def node(programs: Programs, tools: Path, folder: Path) -> None:
    """The container runtime with its images, kubelet, and the ways to services."""
    programs.start("containerd", "--config", str(folder / "containerd.toml"))
    await_command("ctr", "version", within_s=SOCKET_S)
    for image in sorted((folder / "images").iterdir()):
        run("ctr", "-n", "k8s.io", "images", "import", str(image))
    config = str(folder / "config")
    programs.start(
        "kubelet",
        *("--config", str(folder / "kubelet.json"), "--kubeconfig", config),
        *("--hostname-override", NODE_NAME, "--node-ip", NODE),
    )
    programs.start("kube-proxy", "--config", str(folder / "proxy.json"))
    programs.start("dns", "-conf", str(folder / "Corefile"))


def main(tools: Path, folder: Path) -> None:
    """Until a program ends; says which."""
    system = tools / "node/usr"
    os.environ["PATH"] = f"{system}/sbin:{system}/bin:{os.environ['PATH']}"
    os.environ["LD_LIBRARY_PATH"] = f"{system}/lib/x86_64-linux-gnu"
    enter(folder)
    pretend_cores()
    make_cgroups()
    (folder / "cni").mkdir(exist_ok=True)
    config = folder / "config"
    for name, text in {
        "containerd.toml": containerd_config(tools, folder),
        "cni/pods.conflist": json.dumps(network_config()),
        "kubelet.json": json.dumps(kubelet_config(folder)),
        "proxy.json": json.dumps(PROXY_CONFIG | {"clientConnection": {"kubeconfig": str(config)}}),
        "Corefile": CORE_FILE.replace("KUBECONFIG", str(config)),
        "resolv.conf": "",
    }.items():
        (folder / name).write_text(text)
    programs = Programs(tools, folder)
    control_plane(programs, folder)
    node(programs, tools, folder)
    ended = programs.wait()
    print(f"{ended} has ended: read {folder}/logs/{ended}.log; API server: {API_URL}")
    sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
