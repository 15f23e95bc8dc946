"""docs/known-failures.md names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = [
    line
    for line in (ROOT / "docs" / "known-failures.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| failure")
]


def test_every_row_has_a_test_and_every_test_exists() -> None:
    assert len(ROWS) >= 18
    for row in ROWS:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 3, row
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", cells[2])
        assert named, row
        for path, name in named:
            text = (ROOT / path).read_text()
            assert re.search(rf"^ *(async )?def {name}\(", text, re.MULTILINE), f"{path}::{name}"
