"""From where a checkpoint is to how an engine reads it; pure."""

from orchestrator.spec import Source, SourceKind


def local_path(source: Source, cache: str) -> str:
    """What the engine is told to load: a folder of its node, or a bucket's URL."""
    if source.kind is SourceKind.HUB:
        return f"{cache}/{source.where.replace('/', '--')}@{source.revision.replace('/', '--')}"
    return source.where


def loader_flags(source: Source, *, expert_parallel: bool) -> tuple[str, ...]:
    """vLLM's flags for reading it fast.

    Files of the node are mapped into memory, which is vLLM's default. Over a network that reads in
    small pieces, one after the other; there the next ones are read ahead. A bucket has no files to
    map: its objects are streamed by many connections.
    """
    flags: tuple[str, ...] = ()
    match source.kind:
        case SourceKind.PVC:
            flags = ("--safetensors-load-strategy", "prefetch")
        case SourceKind.S3:
            flags = ("--load-format", "runai_streamer")
        case SourceKind.FOLDER | SourceKind.HUB:
            pass
    if expert_parallel and source.kind is not SourceKind.S3:
        flags += ("--enable-ep-weight-filter",)  # a rank reads its own experts only
    return flags
