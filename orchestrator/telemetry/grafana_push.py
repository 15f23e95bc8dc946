"""Brings the boards into a Grafana: into a folder of their own, and only what has changed.

Needs the extra `grafana`. What a board is compared by leaves out what Grafana itself counts up.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from grafana_client import GrafanaApi
from grafana_client.client import GrafanaClientError

_ITS_OWN = frozenset({"id", "version", "iteration"})


class Change(StrEnum):
    """What a push does to one board."""

    CREATE = "create"
    UPDATE = "update"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Step:
    """One board's change; `diff` is of its JSON, line by line, empty if there is none."""

    uid: str
    change: Change
    diff: Sequence[str]


class Pusher:
    """One Grafana and one folder in it."""

    def __init__(self, api: GrafanaApi, folder_uid: str, folder_title: str) -> None:
        self._api = api
        self._folder_uid = folder_uid
        self._folder_title = folder_title

    def steps(self, boards: Mapping[str, str]) -> list[Step]:
        """What a push would do. Raises GrafanaClientError for a Grafana that refuses to say."""
        return [self._step(uid, text) for uid, text in boards.items()]

    def push(self, boards: Mapping[str, str], steps: Sequence[Step]) -> None:
        """Does it; a second time there is nothing to do."""
        if all(step.change is Change.NOTHING for step in steps):
            return
        if _found(lambda: self._api.folder.get_folder(self._folder_uid)) is None:
            self._api.folder.create_folder(self._folder_title, self._folder_uid)
        for step in steps:
            if step.change is not Change.NOTHING:
                self._api.dashboard.update_dashboard(
                    {
                        "dashboard": json.loads(boards[step.uid]),
                        "folderUid": self._folder_uid,
                        "overwrite": True,
                        "message": "r1-serve dashboards push",
                    }
                )

    def _step(self, uid: str, text: str) -> Step:
        answer = _found(lambda: self._api.dashboard.get_dashboard(uid))
        wanted = _lines(json.loads(text))
        if answer is None:
            return Step(uid, Change.CREATE, [f"+{line}" for line in wanted])
        there = _lines(answer["dashboard"])
        if answer.get("meta", {}).get("folderUid") != self._folder_uid:
            moved = [f"-folder {answer.get('meta', {}).get('folderUid')}"]
            return Step(uid, Change.UPDATE, [*moved, f"+folder {self._folder_uid}"])
        diff = list(difflib.unified_diff(there, wanted, "grafana", "r1-serve", lineterm="", n=1))
        return Step(uid, Change.UPDATE if diff else Change.NOTHING, diff)


def _found(ask: Any) -> Any:  # noqa: ANN401  # the client is untyped
    """The answer, or None for what is not there."""
    try:
        return ask()
    except GrafanaClientError as error:
        if error.status_code == 404:
            return None
        raise


def _lines(board: Mapping[str, object]) -> list[str]:
    kept = {key: value for key, value in board.items() if key not in _ITS_OWN}
    return json.dumps(kept, indent=1, sort_keys=True).splitlines()
