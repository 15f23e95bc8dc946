"""`r1-serve drain`: ends a gang, or what is on a node, without cutting a stream."""

import argparse

from orchestrator.core.arguments import not_negative


def add_drain(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.description = (
        "Drains a gang, or all gangs of a node: nothing new goes there, what runs may end or is "
        "moved to another gang, and then the gang ends and Serve starts its successor; that of a "
        "node is started on another one. Without a target it lists the gangs and their nodes."
    )
    parser.add_argument("target", nargs="?", metavar="GANG|NODE")
    parser.add_argument(
        "--address",
        default="auto",
        help="of the cluster's GCS, HOST:PORT (default: on this machine)",
    )
    parser.add_argument(
        "--wait",
        type=not_negative,
        metavar="SECONDS",
        help="that what runs may go on before it is moved",
    )
    parser.add_argument(
        "--force", action="store_true", help="though a pool would have no ready gang left"
    )
    parser.set_defaults(run=_drain)


def _drain(options: argparse.Namespace) -> int:
    from orchestrator.runtime.attach import attached  # imports Ray
    from orchestrator.runtime.drain import await_gone, drain, gangs

    with attached(options.address):
        if options.target is None:
            for gang in gangs():
                print(
                    f"{gang.gang_id}  {gang.phase}  {gang.requests} requests  "
                    f"on {', '.join(gang.nodes)}"
                )
            return 0
        drained = drain(options.target, forced=options.force, wait_s=options.wait)
        print(f"draining {', '.join(drained.gang_ids)} ...", flush=True)
        await_gone(drained.gang_ids, LIMIT_S)
        print("gone")
    return 0


LIMIT_S = 7_200.0  # a drain ends by itself long before
