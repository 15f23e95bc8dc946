"""`python -m deploy.images.checkpoint FOLDER`: the checkpoint of r1-nano, for an image."""

import sys
from pathlib import Path

from orchestrator.engines.tiny_checkpoint import CheckpointKind, write_tiny_checkpoint

if __name__ == "__main__":
    write_tiny_checkpoint(Path(sys.argv[1]), CheckpointKind.NANO)
