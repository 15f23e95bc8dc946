"""The JSON Schemas that strict tools allow: https://api-docs.deepseek.com/guides/tool_calls."""

import re
from collections.abc import Mapping

_COMMON = frozenset(
    ("type", "description", "title", "enum", "default", "const", "$schema", "$defs", "$def")
)
_NUMBER = frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"))
_ALLOWED: Mapping[str, frozenset[str]] = {
    "object": _COMMON | {"properties", "required", "additionalProperties"},
    "string": _COMMON | {"pattern", "format"},
    "number": _COMMON | _NUMBER,
    "integer": _COMMON | _NUMBER,
    "boolean": _COMMON,
    "array": _COMMON | {"items"},
}
_UNTYPED = _COMMON | {"anyOf", "$ref"}
_FORMATS = frozenset(("email", "hostname", "ipv4", "ipv6", "uuid"))
_DEPTH_MAX = 64
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def strict_schema_fault(parameters: object) -> str | None:
    """Why `parameters`, a decoded JSON Schema, is not allowed for a strict tool; None if it is.

    The text names the place as a JSON path, from `$`. The topmost schema must be an object's.
    """
    if not isinstance(parameters, dict) or parameters.get("type") != "object":
        return "$: the parameters must be of type object."
    return _schema(parameters, "$", parameters, 0)


def _schema(schema: object, path: str, root: dict[str, object], depth: int) -> str | None:
    if depth > _DEPTH_MAX:
        return f"{path}: the schema is nested more than {_DEPTH_MAX} deep."
    if not isinstance(schema, dict):
        return f"{path}: a schema must be an object."
    kind = schema.get("type")
    if kind is None:
        fault = _untyped(schema, path, root)
    elif not isinstance(kind, str) or kind not in _ALLOWED:
        return f"{path}.type: {kind!r} is not supported."
    else:
        fault = _keywords(schema, path, _ALLOWED[kind]) or _typed(schema, path, kind)
    return fault or _enum(schema, path) or _below(schema, path, root, depth)


def _keywords(schema: dict[str, object], path: str, allowed: frozenset[str]) -> str | None:
    for keyword in schema:
        if keyword not in allowed:
            return f"{path}: the keyword {keyword!r} is not supported here."
    return None


def _enum(schema: dict[str, object], path: str) -> str | None:
    if "enum" in schema and not (isinstance(schema["enum"], list) and schema["enum"]):
        return f"{path}.enum: must be a list of at least one value."
    return None


def _untyped(schema: dict[str, object], path: str, root: dict[str, object]) -> str | None:
    if fault := _keywords(schema, path, _UNTYPED):
        return fault
    if "anyOf" in schema and not (isinstance(schema["anyOf"], list) and schema["anyOf"]):
        return f"{path}.anyOf: must be a list of at least one schema."
    if "$ref" in schema and not _resolves(schema["$ref"], root):
        return f"{path}.$ref: {schema['$ref']!r} leads nowhere in this schema."
    if not schema.keys() & {"anyOf", "$ref", "enum", "const"}:
        return f"{path}: a type is missing."
    return None


def _resolves(ref: object, root: dict[str, object]) -> bool:
    """Whether `ref` is a JSON pointer to a place in `root`."""
    if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
        return False
    at: object = root
    for key in ref.split("/")[1:]:
        key = key.replace("~1", "/").replace("~0", "~")
        if not isinstance(at, dict) or key not in at:
            return False
        at = at[key]
    return isinstance(at, dict)


def _typed(schema: dict[str, object], path: str, kind: str) -> str | None:
    if kind == "object":
        return _object(schema, path)
    if kind == "array" and "items" not in schema:
        return f"{path}: the items of an array must have a schema."
    if kind == "string":
        if "format" in schema and schema["format"] not in _FORMATS:
            return f"{path}.format: {schema['format']!r} is not supported."
        if "pattern" in schema and not isinstance(schema["pattern"], str):
            return f"{path}.pattern: must be a string."
    return None


def _object(schema: dict[str, object], path: str) -> str | None:
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    if not isinstance(properties, dict):
        return f"{path}.properties: must be an object."
    if not isinstance(required, list):
        return f"{path}.required: must be a list."
    for name in properties:
        if name not in required:
            return f"{path}.required: {name!r} is missing; all properties must be required."
    for name in required:
        if name not in properties:
            return f"{path}.required: {name!r} is not among the properties."
    if schema.get("additionalProperties") is not False:
        return f"{path}.additionalProperties: must be false."
    return None


def _below(schema: dict[str, object], path: str, root: dict[str, object], depth: int) -> str | None:
    """The first fault in the schemas that `schema` consists of."""
    inner: list[tuple[str, object]] = []
    for group in ("properties", "$defs", "$def"):
        members = schema.get(group, {})
        if not isinstance(members, dict):
            return f"{path}.{group}: must be an object."
        inner += [(f"{path}.{group}{_step(name)}", member) for name, member in members.items()]
    if "items" in schema:
        inner.append((f"{path}.items", schema["items"]))
    choices = schema.get("anyOf")
    if isinstance(choices, list):
        inner += [(f"{path}.anyOf[{at}]", choice) for at, choice in enumerate(choices)]
    for place, member in inner:
        if fault := _schema(member, place, root, depth + 1):
            return fault
    return None


def _step(name: str) -> str:
    return f".{name}" if _NAME.match(name) else f"[{name!r}]"
