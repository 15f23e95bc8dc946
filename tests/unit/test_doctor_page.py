"""docs/doctor.md names every probe and every silent fault, and tests that exist."""

import re
from pathlib import Path

from orchestrator.fleet.doctor import Probe, SilentFault

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "doctor.md").read_text()


def _rows(head: str) -> set[str]:
    """The names in the first cells of the table with that heading."""
    table = PAGE.split(head)[1].split("\n\n")[0]
    cells = [line.split(" | ")[0] for line in table.splitlines()[2:]]
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_every_probe_and_every_fault_has_its_row_and_no_row_is_left_over() -> None:
    assert _rows("| probe | what is done and seen") == set(Probe)
    assert _rows("| fault | named by") == set(SilentFault)


def test_the_tests_that_are_named_exist() -> None:
    pages = PAGE + (ROOT / "docs" / "why.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", pages)
    assert len(named) >= 3
    for path, name in named:
        assert re.search(rf"^async def {name}\(", (ROOT / path).read_text(), re.MULTILINE), name
