"""The same scenario gives the same log, to the byte, in every process."""

import hashlib
import os
import subprocess
import sys

from orchestrator.sim.sources import OpenLoop
from orchestrator.sim.story import story_of
from orchestrator.sim.world import World


def digest(seed: int) -> str:
    """Of the whole decision log of a seed's story."""
    told = hashlib.sha256()
    story = story_of(seed, 40)
    World(story.scenario(), told.update).run(OpenLoop(story.calls()))
    return told.hexdigest()


def elsewhere(seed: int, hash_seed: str) -> str:
    """The same, in a process with another hash seed."""
    code = f"from tests.sim.test_reproducible import digest; print(digest({seed}))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


def test_one_seed_is_one_log_whatever_the_hash_seed() -> None:
    seed = next(seed for seed in range(100) if len(story_of(seed).faults) >= 6)
    here = digest(seed)
    assert elsewhere(seed, "0") == here
    assert elsewhere(seed, "12345") == here


def test_another_seed_is_another_log() -> None:
    assert digest(1) != digest(2)
