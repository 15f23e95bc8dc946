"""`r1-serve dashboards`: the boards, for a Grafana."""

import argparse
import os
from pathlib import Path

from orchestrator.core import R1ServeError, SpecError

TOKEN_VARIABLE = "GRAFANA_TOKEN"  # of a service account that may edit dashboards


def add_dashboards(parser: argparse.ArgumentParser) -> None:
    """Its commands and their options."""
    parser.description = (
        "The boards of docs/telemetry.md: service level and cost, serving, GPUs, fabric, Ray and "
        "Kubernetes, capacity. Needs the extra `grafana`."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    push = commands.add_parser("push", help="bring them into a Grafana")
    push.description = (
        f"Creates or updates the boards in a folder of their own. The token is read from "
        f"${TOKEN_VARIABLE}. A second push changes nothing."
    )
    push.add_argument("--grafana", required=True, metavar="URL", help="of the Grafana")
    push.add_argument("--folder", default="R1", help="title of the folder (default R1)")
    push.add_argument("--dry-run", action="store_true", help="only say what would change")
    push.add_argument("--diff", action="store_true", help="show the changes of the JSON")
    push.set_defaults(run=_push)
    write = commands.add_parser("write", help="write their JSON into a folder")
    write.add_argument("out", type=Path, help="the folder")
    write.set_defaults(run=_write)


def _push(options: argparse.Namespace) -> int:
    try:
        from grafana_client import GrafanaApi
        from grafana_client.client import GrafanaException

        from orchestrator.telemetry.grafana import FOLDER_UID, dashboards
        from orchestrator.telemetry.grafana_push import Change, Pusher
    except ImportError as error:
        raise _no_extra(error) from error
    token = os.environ.get(TOKEN_VARIABLE)
    api = GrafanaApi.from_url(options.grafana, credential=token)
    pusher, boards = Pusher(api, FOLDER_UID, options.folder), dashboards()
    try:
        steps = pusher.steps(boards)
        for step in steps:
            print(f"{step.change:8} {step.uid}")
            if options.diff and step.change is not Change.CREATE:
                print("\n".join(f"  {line}" for line in step.diff))
        if not options.dry_run:
            pusher.push(boards, steps)
    except (GrafanaException, OSError) as error:
        raise R1ServeError(
            f"the Grafana at {options.grafana}: {error}",
            f"look at the URL, and at the token in ${TOKEN_VARIABLE}",
        ) from error
    return 0


def _write(options: argparse.Namespace) -> int:
    try:
        from orchestrator.telemetry.grafana import dashboards
    except ImportError as error:
        raise _no_extra(error) from error
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        for uid, text in dashboards().items():
            (options.out / f"{uid}.json").write_text(text, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"cannot write {options.out}: {error}", "name another folder") from error
    return 0


def _no_extra(error: ImportError) -> R1ServeError:
    return R1ServeError(f"{error}", "install r1-serve[grafana]")
