"""Where a checkpoint is, as `models.path` says it."""

import re
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core import SpecError

PVC_ROOT = "/mnt/weights"  # where the chart mounts each claim under its name
_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_CURE = "give a folder, hf://OWNER/NAME[@REVISION], s3://BUCKET/PREFIX or pvc://CLAIM[/FOLDER]"


class SourceKind(StrEnum):
    """What must happen before an engine can read it."""

    FOLDER = "folder"  # nothing: it is on the node
    PVC = "pvc"  # nothing: it is mounted, and read over a network
    HUB = "hf"  # it is downloaded to the node once
    S3 = "s3"  # nothing: the engine streams it into the GPUs


@dataclass(frozen=True, slots=True)
class Source:
    """`where` is a folder, a repository of the hub, or the whole URL of a bucket's prefix."""

    kind: SourceKind
    where: str
    revision: str = "main"  # of a repository


def source_of(path: str) -> Source:
    """What a path means; raises SpecError if it is an URL of another kind, or a broken one."""
    scheme, mark, rest = path.partition("://")
    if not mark:
        return Source(SourceKind.FOLDER, path)
    rest = rest.strip("/")
    if scheme == SourceKind.HUB and (found := _HUB.fullmatch(rest)) is not None:
        return Source(SourceKind.HUB, found["repo"], found["revision"] or "main")
    if scheme == SourceKind.S3 and rest:
        return Source(SourceKind.S3, f"s3://{rest}")
    if scheme == SourceKind.PVC and rest and ".." not in rest.split("/"):
        return Source(SourceKind.PVC, f"{PVC_ROOT}/{rest}")
    raise SpecError(f"{path} is no place of a checkpoint", _CURE)
