"""LiteLLM's provider for DeepSeek, in the interpreter that has it."""

from pathlib import Path

import pytest

from tests.conformance.conftest import Server
from tests.conformance.foreign import run_suite

SUITE = Path(__file__).parent / "clients/litellm_suite.py"
PYTHON = Path(".clients/litellm/bin/python").absolute()


@pytest.mark.timeout(120)
def test_all_checks_of_litellm_pass(server: str, slow_server: str, guarded: Server) -> None:
    # Its map of costs would be fetched.
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    report = run_suite([PYTHON, SUITE], server, slow_server, guarded, **environment)
    assert "17 passed, 0 failed" in report
