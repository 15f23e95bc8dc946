"""Whether a cluster can run is tried, said in a line, and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.cluster.able import why_not
from deploy.cluster.node import cgroups


def said(*before: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, "-m", "deploy.cluster.able"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=dict(os.environ) | environment,
    )


def test_what_can_be_is_tried_and_leaves_nothing() -> None:
    why = why_not()
    assert said().returncode == (0 if why is None else 1)
    assert not [each for each in cgroups() if Path(f"{each}-try").exists()]
    assert "r1-try" not in Path("/proc/net/dev").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be less than root")
def test_what_is_missing_is_named() -> None:
    bare = said(PATH="/nowhere")
    assert (bare.returncode, bare.stderr) == (1, "")
    assert bare.stdout.startswith("no cluster can run here: there is no go, apt-get")
    # Root of a user namespace alone may make neither cgroups nor, mostly, mounts.
    poor = said("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    assert poor.returncode == 1
    assert "cannot be made: " in poor.stdout
