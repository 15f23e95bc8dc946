"""The JavaScript clients: OpenAI's own, Vercel's AI SDK and LangChain.js, one process for each."""

from pathlib import Path

import playwright
import pytest

from tests.conformance.conftest import Server
from tests.conformance.foreign import run_suite

SUITES = Path(__file__).parent / "clients/js"
INSTALLED = Path(".clients/js").absolute()
NODE = Path(playwright.__file__).parent / "driver/node"


@pytest.fixture(scope="module")
def suites() -> Path:
    """The folder of the suites, beside the modules that they import."""
    for suite in SUITES.glob("*.mjs"):
        (INSTALLED / suite.name).write_bytes(suite.read_bytes())
    return INSTALLED


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("name", "checks"), [("openai", 19), ("ai_sdk", 16), ("langchain", 15)])
def test_all_checks_of_a_client_pass(
    server: str, slow_server: str, guarded: Server, suites: Path, name: str, checks: int
) -> None:
    report = run_suite([NODE, suites / f"{name}.mjs"], server, slow_server, guarded)
    assert f"{checks} passed, 0 failed" in report
