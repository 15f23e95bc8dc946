"""Chance from named streams of one seed: a new draw in one place disturbs no other."""

import random


class Chance:
    """All streams of one seed; the same seed and name give the same draws in every process."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._streams: dict[str, random.Random] = {}

    def __call__(self, name: str) -> random.Random:
        """The stream of that name, going on from where it was."""
        stream = self._streams.get(name)
        if stream is None:
            # seeded by text, which Python hashes with SHA-512 and never by `hash()`
            stream = self._streams[name] = random.Random(f"{self._seed}/{name}")
        return stream
