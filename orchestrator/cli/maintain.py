"""`r1-serve maintain`: drains nodes before Kubernetes takes them away."""

import argparse
import sys


def add_maintain(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.description = (
        "Watches Kubernetes' nodes and drains those that are cordoned, that an autoscaler removes, "
        "or whose owner wants them back (spot notices): gangs are started elsewhere where there is "
        "room, and what runs is moved. Runs in a pod beside Ray's head, until it is ended."
    )
    parser.add_argument("--namespace", required=True, help="of Ray's pods")
    parser.add_argument(
        "--selector",
        default="ray.io/node-type",
        help="label selector of Ray's pods (default %(default)s)",
    )
    parser.add_argument("--address", default="auto", help="of the cluster's GCS, HOST:PORT")
    parser.set_defaults(run=_maintain)


def _maintain(options: argparse.Namespace) -> int:
    from orchestrator.runtime.attach import attached  # imports Ray
    from orchestrator.runtime.maintenance import KubernetesNodes, maintain
    from orchestrator.telemetry import open_log

    nodes = KubernetesNodes(options.namespace, options.selector)
    with attached(options.address):
        try:
            maintain(nodes, open_log("maintenance"))
        except KeyboardInterrupt:
            print("ended", file=sys.stderr)
    return 0
