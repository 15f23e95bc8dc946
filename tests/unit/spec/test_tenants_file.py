"""The tenants file, and what contradicts itself in what a spec says of tenants."""

import re
from decimal import Decimal
from pathlib import Path

import pytest

from orchestrator.core import SpecError
from orchestrator.spec import (
    BudgetSpec,
    PrefixSharing,
    PricesSpec,
    TenantSpec,
    ThinkingLimits,
    TokenLimits,
    load_tenants,
    parse_spec,
    spec_tree,
)

PRICES = "{input: 0.55, cached_input: 0.14, thinking: 2.19, answer: '2.19'}"
SPEC = f"""
models: [{{path: m, pools: [{{role: unified}}], prices: {PRICES}}}]
api: {{keys_path: keys, tenants_path: tenants.yaml}}
usage: {{dir: usage}}
admission: {{classes: [{{name: premium, priority: 1, thinking_tokens: 9000}}]}}
"""
WHOLE = """
default: {requests_max: 4}
tenants:
  ada:
    admission_class: premium
    requests_max: 8
    streams_max: 8
    requests_per_minute: 60
    tokens_per_minute: {input: 100_000, thinking: 50_000}
    budget: {granted: 10, topped_up: 0.1}
    thinking: {soft_tokens: 8_192, hard_tokens: 9_000}
    prefix_sharing: all
  bob@example.org: {suspended: true}
"""


def load(tmp_path: Path, text: str, spec: str = SPEC) -> object:
    path = tmp_path / "tenants.yaml"
    path.write_text(text)
    return load_tenants(path, parse_spec(spec))


def test_each_tenant_has_its_limits_and_the_others_have_the_default(tmp_path: Path) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_text(WHOLE)
    tenants = load_tenants(path, parse_spec(SPEC))
    assert tenants.of("ada") == TenantSpec(
        admission_class="premium",
        requests_max=8,
        streams_max=8,
        requests_per_minute=60,
        tokens_per_minute=TokenLimits(input=100_000, thinking=50_000),
        budget=BudgetSpec(Decimal(10), Decimal("0.1")),
        thinking=ThinkingLimits(8_192, 9_000),
        prefix_sharing=PrefixSharing.ALL,
    )
    assert tenants.of("bob@example.org").suspended
    assert tenants.of("eve") == TenantSpec(requests_max=4)


def test_prices_are_exact_whether_they_are_written_as_numbers_or_as_text() -> None:
    spec = parse_spec(SPEC)
    prices = PricesSpec(Decimal("0.55"), Decimal("0.14"), Decimal("2.19"), Decimal("2.19"))
    assert spec.models[0].prices == prices
    assert parse_spec(str(spec_tree(spec))) == spec


@pytest.mark.parametrize(
    ("text", "line", "said", "cure"),
    [
        ("tenants:\n  ada: {requests_max: 0}", 2, "tenants.ada.requests_max: 0 is not", "positive"),
        ("tenants:\n  ada:\n    requets_max: 1", 3, "tenants.ada.requets_max: unknown key", "line"),
        ("tenants:\n  ada:\n    requests_max: many", 3, "requests_max: input should be", "line"),
        ("tenants:\n  ada:\n    requests_max: 1\n   bob: {}", 4, "is not YAML", "line"),
        ("tenants:\n  ada: {}\n  bob: {}\n  ada: {}", 4, "ada stands there twice", "line"),
        ("tenants:\n  a b: {}", 2, "'a b' is no tenant's name", "letters"),
        ("- ada", 1, "no mapping at its top level", "line"),
        ("", 1, "no mapping at its top level", "line"),
        ("\ndefault:\n  admission_class: gold", 3, "there is no class 'gold'", "premium"),
        (
            "tenants:\n  ada:\n    requests_max: 2\n    streams_max: 3",
            4,
            "3 streams are more than requests_max 2",
            "lower streams_max",
        ),
        (
            "tenants:\n  ada:\n    thinking:\n      soft_tokens: 5\n      hard_tokens: 4",
            5,
            "4 is less than soft_tokens 5",
            "hard_tokens >= soft_tokens",
        ),
        (
            "tenants:\n  ada:\n    tokens_per_minute:\n      answer: -1",
            4,
            "tokens_per_minute.answer: -1 is not positive",
            "no limit",
        ),
        ("default:\n  budget:\n    granted: -1", 3, "-1 is no amount of money", "6 decimal"),
        ("default:\n  budget: {topped_up: 0.0000001}", 2, "no amount of money", "6 decimal"),
    ],
)
def test_what_is_wrong_is_one_message_with_the_line_and_the_cure(
    tmp_path: Path, text: str, line: int, said: str, cure: str
) -> None:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, text)
    assert caught.value.cause.startswith(f"{tmp_path}/tenants.yaml, line {line}")
    assert said in caught.value.cause
    assert cure in caught.value.cure


@pytest.mark.parametrize(
    ("without", "said"),
    [(f", prices: {PRICES}", "no model has prices"), ("usage: {dir: usage}", "no usage.dir")],
)
def test_a_budget_needs_prices_and_a_journal(tmp_path: Path, without: str, said: str) -> None:
    text = "tenants:\n  ada:\n    budget: {granted: 5}"
    with pytest.raises(SpecError, match=f"line 3: tenants.ada.budget: .*{said}"):
        load(tmp_path, text, SPEC.replace(without, ""))


def test_a_missing_file_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot read the tenants"):
        load_tenants(tmp_path / "none", parse_spec(SPEC))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("api: {tenants_path: t}", "api.tenants_path: there is no api.keys_path"),
        ("usage: {sync_s: 0}", "usage.sync_s: 0.0 is not positive"),
        ("usage: {segments_kept: 1}", "usage.segments_kept: 1 is less than 2"),
        ("thinking: {soft_tokens: 9, hard_tokens: 8}", "hard_tokens: 8 is less than soft_tokens 9"),
        ("thinking: {answer_tokens: -1}", "thinking.answer_tokens: -1 is negative"),
        ("thinking: {soft_tokens: 0}", "thinking.soft_tokens: 0 is not positive"),
        ("thinking: {levels: [{load: 0, soft_tokens: 5}]}", "levels.0: is not positive"),
        (
            "thinking: {levels: [{load: 1, soft_tokens: 5}, {load: 2, soft_tokens: 6}]}",
            "levels.1: thoughts do not get shorter",
        ),
        (
            "admission: {classes: [{name: a, thinking_tokens: 0}]}",
            "classes.0.thinking_tokens: 0 is not positive",
        ),
    ],
)
def test_contradictions_of_the_spec_are_told_before_anything_starts(more: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(f"models: [{{path: m, pools: [{{role: unified}}]}}]\n{more}")
    assert said in caught.value.cause
    assert caught.value.cure


def test_a_price_has_at_most_six_places() -> None:
    with pytest.raises(SpecError, match=r"prices\.input: 1E-7 is no price"):
        parse_spec(SPEC.replace("input: 0.55", "input: 0.0000001"))


def test_the_examples_of_the_documentation_are_valid(tmp_path: Path) -> None:
    document = Path(__file__).parents[3] / "docs" / "tenants.md"
    spec, tenants = re.findall(r"```yaml\n(.*?)```", document.read_text(), re.DOTALL)
    (tmp_path / "tenants.yaml").write_text(tenants)
    found = load_tenants(tmp_path / "tenants.yaml", parse_spec(spec))
    assert sorted(found.tenants) == ["ada", "bob", "eve", "ops"]
