"""`python -m deploy.cluster.able`: whether a cluster can run on this machine; if not, says why not
in a line and ends with 1.

What a cluster of cluster.py wants of a machine is tried, and nothing of it is left behind.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from deploy.cluster.node import cgroups

PROGRAMS = ("go", "apt-get", "openssl", "ip", "unshare", "setpriv")
TRY_S = 30.0
# What starts its process 1, and a link as the one between it and this machine.
NAMESPACES = (
    *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
    *("ip", "link", "add", "r1-try", "type", "veth", "peer", "name", "r1-tried"),
)


def why_not() -> str | None:
    """Why no cluster can run here, or None."""
    if os.geteuid() != 0:
        return "namespaces and containers need root"
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"there is no {', '.join(missing)}"
    if not cgroups():
        return "there are no cgroups of version 1"
    if not Path("/proc/sys/net/bridge").is_dir():
        return "the kernel has no br_netfilter"
    return _namespaces() or _cgroups()


def _namespaces() -> str | None:
    try:
        tried = subprocess.run(
            NAMESPACES, capture_output=True, text=True, timeout=TRY_S, check=False
        )
    except subprocess.TimeoutExpired:
        return "namespaces cannot be made: unshare does not end"
    said = tried.stderr.strip() or f"unshare ends with {tried.returncode}"
    return f"namespaces cannot be made: {said}" if tried.returncode else None


def _cgroups() -> str | None:
    for ours in cgroups():
        tried = Path(f"{ours}-try")
        try:
            tried.mkdir()
            tried.rmdir()
        except OSError as error:
            return f"cgroups cannot be made: {tried}: {error.strerror}"
    return None


def main() -> int:
    """Says it."""
    why = why_not()
    if why is not None:
        print(f"no cluster can run here: {why}")
    return 0 if why is None else 1


if __name__ == "__main__":
    sys.exit(main())
