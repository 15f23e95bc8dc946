import pytest

from orchestrator.codec import strict_schema_fault


def of(**properties: object) -> dict[str, object]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def nested(depth: int) -> dict[str, object]:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return of(a=schema)


@pytest.mark.parametrize(
    "schema",
    [
        of(),
        of(a={"type": "string", "pattern": "^a", "description": "A."}, b={"type": "boolean"}),
        of(a={"type": "string", "format": "ipv6"}, b={"type": "string", "enum": ["x"]}),
        of(a={"type": "number", "exclusiveMinimum": 0, "multipleOf": 0.5, "default": 1}),
        of(a={"type": "integer", "const": 1}, b={"type": "array", "items": {"type": "integer"}}),
        of(a={"anyOf": [{"type": "string"}, of(b={"type": "number"})]}),
        {**of(a={"$ref": "#/$def/n"}), "$def": {"n": of(next={"$ref": "#/$def/n"})}},
        {**of(a={"$ref": "#/$defs/n"}), "$defs": {"n": {"type": "string"}}},
        of(a={"$ref": "#"}, b={"enum": [1, "x"]}),
        of(a=of(b=of(c={"type": "string"}))),
    ],
)
def test_allows_what_strict_tools_allow(schema: object) -> None:
    assert strict_schema_fault(schema) is None


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        (None, "$: "),
        ([], "$: "),
        ({"type": "string"}, "$: the parameters must be of type object"),
        ({**of(a={"type": "string"}), "required": []}, "$.required: 'a' is missing"),
        ({**of(), "required": ["a"]}, "$.required: 'a' is not among"),
        ({**of(), "required": "a"}, "$.required: must be a list"),
        ({**of(), "properties": []}, "$.properties: must be an object"),
        ({"type": "object", "properties": {}}, "$.additionalProperties: must be false"),
        ({**of(), "additionalProperties": {}}, "$.additionalProperties: must be false"),
        (of(a={"type": "string", "minLength": 1}), "$.properties.a: the keyword 'minLength'"),
        (of(a={"type": "string", "format": "date"}), "$.properties.a.format: 'date'"),
        (of(a={"type": "string", "pattern": 1}), "$.properties.a.pattern: must"),
        (
            of(a={"type": "array", "items": {"type": "string"}, "maxItems": 1}),
            "$.properties.a: the keyword 'maxItems'",
        ),
        (of(a={"type": "array"}), "$.properties.a: the items"),
        (of(a={"type": "array", "items": {"type": "null"}}), "$.properties.a.items.type: 'null'"),
        (of(a={"type": ["string", "null"]}), "$.properties.a.type: ['string', 'null']"),
        (of(a={}), "$.properties.a: a type is missing"),
        (of(a=True), "$.properties.a: a schema must be an object"),
        (of(a={"anyOf": []}), "$.properties.a.anyOf: must"),
        (of(a={"anyOf": [of(), {"type": "x"}]}), "$.properties.a.anyOf[1].type: 'x'"),
        (of(a={"oneOf": [of()]}), "$.properties.a: the keyword 'oneOf'"),
        (of(a={"$ref": "#/$def/n"}), "$.properties.a.$ref: '#/$def/n' leads nowhere"),
        (of(a={"$ref": "http://x"}), "$.properties.a.$ref: 'http://x' leads nowhere"),
        ({**of(), "$defs": {"b c": {"type": "x"}}}, "$.$defs['b c'].type: 'x'"),
        ({**of(), "$defs": []}, "$.$defs: must be an object"),
        (of(a={"type": "string", "enum": []}), "$.properties.a.enum: must"),
        (nested(100), "nested more than 64 deep"),
    ],
)
def test_refuses_the_rest_with_its_place(schema: object, fault: str) -> None:
    found = strict_schema_fault(schema)
    assert found is not None
    assert fault in found
