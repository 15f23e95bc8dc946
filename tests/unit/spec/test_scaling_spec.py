"""A spec of scaling: what contradicts itself is said with its key and its cure."""

import copy
from typing import Any

import pytest
import yaml

from orchestrator.core import Role, SpecError
from orchestrator.spec import Day, flag_value, parse_spec, spec_tree

COSTS = {"prefill_base_s": 0.01, "prefill_token_s": 1e-5}
POOL = {"costs": COSTS, "node_weights_bytes": 7e11, "gang": {"tensor_parallel": 8}}
GOOD: dict[str, Any] = {
    "models": [
        {
            "path": "/models/r1",
            "engine": {"storage_bytes_per_s": 5e9},
            "pools": [{"role": "prefill", **POOL}, {"role": "decode", **POOL}],
            "scaling": {
                "ttft_s": 2,
                "tpot_s": 0.05,
                "gpus_max": 64,
                "pools": [
                    {"role": "prefill", "gangs_max": 4},
                    {"role": "decode", "gangs_max": 8, "gangs_min": 2},
                ],
                "calendar": [
                    {
                        "role": "decode",
                        "gangs_min": 6,
                        "from_h": 8,
                        "until_h": 18.5,
                        "days": ["mon", "fri"],
                    }
                ],
            },
        }
    ]
}


def test_scaling_is_read_and_written() -> None:
    spec = parse_spec(yaml.safe_dump(GOOD))
    scaling = spec.models[0].scaling
    assert scaling is not None
    assert scaling.pools[1].role is Role.DECODE
    assert scaling.calendar[0].days == (Day.MON, Day.FRI)
    assert parse_spec(yaml.safe_dump(dict(spec_tree(spec)))) == spec


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        ("ttft_s", None, "models.0.scaling.ttft_s"),
        ("ttft_s", 0, "scaling.ttft_s: 0.0 is not positive"),
        ("colour", 1, "scaling.colour: unknown key"),
        ("attainment", 1.0, "attainment: 1.0 is not within"),
        ("slack", -0.1, "slack: -0.1 is not within"),
        ("dwell_s", -1, "dwell_s: -1.0 is negative"),
        ("gpus_max", 23, "gpus_max: 23 is less than the 24"),
        ("pools.0.gangs_max", 0, "from gangs_min 1 to gangs_max 0 is no range"),
        ("pools.0.role", "decode", "they are not decode, prefill"),
        ("pools.0.colour", 1, "scaling.pools.0.colour: unknown key"),
        ("calendar.0.role", "unified", "the model has no pool unified"),
        ("calendar.0.gangs_min", 9, "9 is not within the pool's 8"),
        ("calendar.0.until_h", 7, "from_h 8 to until_h 7 is no time of a day"),
        ("calendar.0.until_h", 25, "no time of a day"),
        ("calendar.0.days", [], "days: there is none"),
        ("calendar.0.days", ["today"], "calendar.0.days.0"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(at: str, value: object, said: str) -> None:
    tree = copy.deepcopy(GOOD)
    place: Any = tree["models"][0]["scaling"]
    *path, last = at.split(".")
    for step in path:
        place = place[int(step) if step.isdecimal() else step]
    place[last] = value
    with pytest.raises(SpecError) as raised:
        parse_spec(yaml.safe_dump(tree), "plan.yaml")
    assert raised.value.cause.startswith("plan.yaml: ")
    assert said in raised.value.cause
    assert raised.value.cure


@pytest.mark.parametrize("missing", ["costs", "node_weights_bytes", "storage_bytes_per_s"])
def test_what_scaling_predicts_with_must_be_there(missing: str) -> None:
    tree = copy.deepcopy(GOOD)
    model = tree["models"][0]
    (model["engine"] if missing.startswith("storage") else model["pools"][1]).pop(missing)
    with pytest.raises(SpecError, match=missing):
        parse_spec(yaml.safe_dump(tree))


def test_the_last_of_a_flags_values_counts() -> None:
    flags = ["--max-num-seqs", "8", "--other", "--max-num-seqs=16", "--max-num-seqs"]
    assert flag_value(flags, "--max-num-seqs") == "16"
    assert flag_value(flags, "--missing") == ""
