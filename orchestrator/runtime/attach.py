"""A Ray cluster that runs already, seen by a command from outside."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import ray
from ray.exceptions import RayError

from orchestrator.core import StartError
from orchestrator.spec import LOOPBACK


@contextmanager
def attached(address: str) -> Iterator[None]:
    """Within it this process is a driver of the cluster whose GCS is at `address`."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # as the cluster's own processes have it
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        if address.startswith(LOOPBACK):
            # `ray.init` replaces a loopback address by the host's own unless it knows its node.
            ray._private.worker._global_node = SimpleNamespace(node_ip_address=LOOPBACK)
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (RayError, RuntimeError, ConnectionError, ValueError) as error:
        raise StartError(
            f"no Ray cluster answers at {address}: {error}",
            "give --address HOST:PORT of its GCS, as `r1-serve up` prints it",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
