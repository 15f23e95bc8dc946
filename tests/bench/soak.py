"""Stories of the simulator from seeds, with faults, every checker on: counted for a page.

    python -m tests.bench.soak --first 0 --seeds 500 --folder DIR

`make soak` tells them under pytest and shrinks what breaks a rule.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from orchestrator.sim.checks import Violation
from orchestrator.sim.story import story_of


def main() -> int:
    """Tells them; 1 if a rule was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    faults: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    broken: dict[int, str] = {}
    for seed in range(options.first, options.first + options.seeds):
        story = story_of(seed)
        faults.update(fault.kind.value for fault in story.faults)
        try:
            outcomes.update(str(each) for each in story.tell().meter.outcomes.elements())
        except (Violation, AssertionError) as violation:
            broken[seed] = str(violation)
            print(f"seed {seed}: {violation}", flush=True)
    options.folder.mkdir(parents=True, exist_ok=True)
    told = {
        "first": options.first,
        "seeds": options.seeds,
        "broken": broken,
        "faults": dict(faults),
        "outcomes": dict(outcomes),
    }
    (options.folder / f"soak-{options.first}.json").write_text(json.dumps(told))
    print(f"{options.seeds} seeds from {options.first} on: {len(broken)} broke a rule")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
