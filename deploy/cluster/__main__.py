"""`python -m deploy.cluster FOLDER [IMAGE.tar ...]`: a cluster of one node until Ctrl-C."""

import signal
import sys
from pathlib import Path

from deploy.cluster.cluster import cluster


def main(folder: Path, images: list[Path]) -> None:
    """Prints where kubectl finds it."""
    with cluster(folder.resolve(), images) as found:
        print(f"export KUBECONFIG={found.config} PATH={found.tools}:$PATH", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("ending every process ...", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main(Path(sys.argv[1]), [Path(each).resolve() for each in sys.argv[2:]])
