"""Grammars as xgrammar's structural tags, the one form that bounds the blanks in JSON."""

import json
from typing import assert_never

from orchestrator.codec import JSON_BLANKS_MAX
from orchestrator.engines.engine import Grammar, GrammarKind


def structural_tag(grammar: Grammar) -> str:
    """The tag, as JSON. Raises ValueError for a schema that is none."""
    match grammar.kind:
        case GrammarKind.JSON_OBJECT:
            return _json_tag({"type": "object"})
        case GrammarKind.JSON_SCHEMA:
            return _json_tag(json.loads(grammar.text))
        case GrammarKind.STRUCTURAL_TAG:
            return grammar.text
        case _:
            assert_never(grammar.kind)


def _json_tag(schema: object) -> str:
    form = {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": JSON_BLANKS_MAX}
    return json.dumps({"type": "structural_tag", "format": form})
