"""`python -m deploy.images.checkpoint FOLDER`: the checkpoint of r1-nano, for an image."""

import sys
from pathlib import Path

from orchestrator.engines.tiny_checkpoint import CheckpointKind, write_tiny_checkpoint

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write_tiny_checkpoint(folder, CheckpointKind.NANO)
    for file in folder.iterdir():
        file.chmod(0o644)  # pods run as somebody else
