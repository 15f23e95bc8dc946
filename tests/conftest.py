"""What tests of several rooms share: R1's tokenizer, and the same examples in every run."""

from pathlib import Path

import pytest
from hypothesis import settings

from orchestrator.codec import Tokenizer
from orchestrator.engines.tiny_checkpoint import published_tokenizer

# The same examples every time: a failure is everybody's. No deadlines: the cores are shared.
settings.register_profile("project", derandomize=True, deadline=None)
settings.load_profile("project")


@pytest.fixture(scope="session")
def tokenizer_dir() -> Path:
    """Where R1's own tokenizer lies."""
    return published_tokenizer()


@pytest.fixture(scope="session")
def tokenizer(tokenizer_dir: Path) -> Tokenizer:
    """R1's tokenizer."""
    return Tokenizer.load(tokenizer_dir)
