"""How fast an all-reduce is among some processes: `python -m orchestrator.engines.collective`.

One process a node, started together; each prints one JSON line, `{"bytes_per_s": ...}` or
`{"cause": ...}`, and ends. What counts is the bandwidth that the slowest link must have had, as
NCCL's own tests report it: 2 (n - 1) / n of the bytes that are reduced, by the time of the median
round.
"""

import argparse
import json
import statistics
import sys
import time
from datetime import timedelta

WARM_UP = 2
ROUNDS = 7
TIMEOUT_S = 60.0


def measured(rank: int, ranks: int, address: str, backend: str, mib: int) -> float:
    """Bytes a second; blocks until all have come. Raises what torch.distributed raises."""
    import torch  # seconds
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        backend,
        init_method=f"tcp://{address}",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=TIMEOUT_S),
    )
    try:
        device = "cuda" if backend == "nccl" else "cpu"
        data = torch.ones(mib << 18, dtype=torch.float32, device=device)
        times = []
        for _ in range(WARM_UP + ROUNDS):
            dist.barrier()
            began = time.perf_counter()
            dist.all_reduce(data)
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
        return bus_bytes_per_s(ranks, mib << 20, statistics.median(times[WARM_UP:]))
    finally:
        dist.destroy_process_group()


def bus_bytes_per_s(ranks: int, size_bytes: int, seconds: float) -> float:
    """Of an all-reduce of so many bytes."""
    return 2 * (ranks - 1) / ranks * size_bytes / seconds


def main() -> int:
    """The entry point."""
    parser = argparse.ArgumentParser(prog="orchestrator.engines.collective")
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--at", required=True, metavar="HOST:PORT", help="where rank 0 runs")
    parser.add_argument("--backend", choices=("gloo", "nccl"), default="gloo")
    parser.add_argument("--mib", type=int, default=64)
    given = parser.parse_args()
    try:
        speed = measured(given.rank, given.ranks, given.at, given.backend, given.mib)
    except (ImportError, RuntimeError, ValueError, OSError) as error:
        said = " ".join(str(error).split())[:300]
        sys.stdout.write(json.dumps({"cause": f"{type(error).__name__}: {said}"}) + "\n")
        return 1
    sys.stdout.write(json.dumps({"bytes_per_s": speed}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
