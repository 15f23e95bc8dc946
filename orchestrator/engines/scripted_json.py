"""JSON that fits a schema and a question; what a good model would write, roughly."""

import json
import re
from collections import deque
from collections.abc import Mapping

from orchestrator.engines.scripted_prompt import Schema, Tool

_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?")
_QUOTED = re.compile(
    r"(?<!\w)'([^'\n]+)'(?!\w)|\"([^\"\n]+)\"|“([^”\n]+)”|「([^」\n]+)」|`([^`\n]+)`"
)
_PROPER = re.compile(r"[A-Z][\w’-]*(?:,? [A-Z][\w’-]*)*")
_KEY = re.compile(r"['\"`“](\w+)['\"`”]")
_decoder = json.JSONDecoder()
_OBJECT = re.compile(r"\{[^{}]*\}")
_DEPTH_MAX = 8  # of what a schema may contain in itself; deeper, only what is required
_ITEMS_MAX = 100
_FALLBACK_CHARS = 80
_KNOWN = {
    "setup": "Why was the cat sitting on the computer?",
    "punchline": "To keep an eye on the mouse!",
}
_FORMATS = {
    "date": "2025-01-20",
    "time": "12:00:00Z",
    "date-time": "2025-01-20T12:00:00Z",
    "duration": "P1D",
    "email": "user@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


class Filler:
    """Fills schemas with the numbers, quotes and names of one question, each used once, in order.

    What runs out is made up. Draws nothing by chance.
    """

    def __init__(self, question: str, root: Schema) -> None:
        """`root` is where references are looked up."""
        self._question = question
        self._root = root
        self._numbers = deque(_NUMBER.findall(question))
        self._strings = deque(strings_of(question))

    def value(self, schema: object, name: str = "", depth: int = 0) -> object:
        """An instance, as long as it is no endless one; `name` is the property that it is for."""
        if depth > 2 * _DEPTH_MAX:
            return None
        schema = self._resolved(schema, depth)
        if "const" in schema:
            return schema["const"]
        choices = schema.get("enum")
        if isinstance(choices, list) and choices:
            return self._chosen(choices)
        kind = _kind(schema)
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "integer":
                return int(self._number(schema))
            case "number":
                number = self._number(schema)
                return int(number) if number.is_integer() else number
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return self._string(schema, name)

    def _resolved(self, schema: object, depth: int) -> Schema:
        """The schema behind references, of unions the first that is not null."""
        for _ in range(_DEPTH_MAX):
            if not isinstance(schema, dict):
                return {}
            if isinstance(reference := schema.get("$ref"), str):
                schema = self._referred(reference)
            elif isinstance(parts := schema.get("allOf"), list):
                merged = {key: value for key, value in schema.items() if key != "allOf"}
                for part in parts:
                    merged |= self._resolved(part, depth)
                schema = merged
            elif isinstance(options := schema.get("anyOf", schema.get("oneOf")), list) and options:
                nulls = [option for option in options if option == {"type": "null"}]
                others = [option for option in options if option != {"type": "null"}]
                schema = nulls[0] if nulls and (depth > _DEPTH_MAX or not others) else others[0]
            else:
                return schema
        return {"type": "null"}

    def _referred(self, reference: str) -> object:
        found: object = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if step:
                found = found.get(step, {}) if isinstance(found, dict) else {}
        return found

    def _object(self, schema: Schema, depth: int) -> dict[str, object]:
        properties = schema.get("properties")
        if not isinstance(properties, dict):
            return {}
        required = schema.get("required")
        needed = set(required) if isinstance(required, list) else set()
        filled: dict[str, object] = {}
        for wanted in (True, False):
            for name, part in properties.items():
                if (name in needed) is wanted and (wanted or self._worth_it(name, part, depth)):
                    filled[name] = self.value(part, name, depth + 1)
        return {name: filled[name] for name in properties if name in filled}

    def _worth_it(self, name: str, schema: object, depth: int) -> bool:
        """Whether the question has something for an optional property."""
        match _kind(self._resolved(schema, depth)):
            case "integer" | "number":
                return bool(self._numbers)
            case "string":
                return bool(self._strings) or (
                    name in _KNOWN and f"no {name}" not in self._question
                )
            case _:
                return False

    def _array(self, schema: Schema, name: str, depth: int) -> list[object]:
        items = schema.get("items")
        prefix = schema.get("prefixItems")
        if isinstance(prefix, list):
            return [self.value(item, name, depth + 1) for item in prefix]
        least = schema.get("minItems")
        if isinstance(least, int):
            least = min(least, _ITEMS_MAX)
        count = least if isinstance(least, int) else 1
        if depth > _DEPTH_MAX:
            return [] if not isinstance(least, int) else [None] * least
        if _kind(self._resolved(items, depth)) in ("integer", "number"):
            count = max(count, len(self._numbers))
        most = schema.get("maxItems")
        return [
            self.value(items, name, depth + 1)
            for _ in range(min(count, most) if isinstance(most, int) else count)
        ]

    def _number(self, schema: Schema) -> float:
        number = float(self._numbers.popleft()) if self._numbers else 1.0
        for key, bound in _bounds(schema).items():
            if key == "exclusiveMinimum":
                number = max(number, bound + 1)
            elif key == "exclusiveMaximum":
                number = min(number, bound - 1)
            else:
                number = max(number, bound) if key == "minimum" else min(number, bound)
        return number

    def _string(self, schema: Schema, name: str) -> str:
        form = schema.get("format")
        if isinstance(form, str) and form in _FORMATS:
            return _FORMATS[form]
        if name in _KNOWN:
            return _KNOWN[name]
        text = self._strings.popleft() if self._strings else self._question[:_FALLBACK_CHARS]
        least, most = schema.get("minLength"), schema.get("maxLength")
        text = text.ljust(least if isinstance(least, int) else 1, ".")
        return text[:most] if isinstance(most, int) else text

    def _chosen(self, choices: list[object]) -> object:
        """The choice that the question names, or the first."""
        words = self._question.lower()
        named = (choice for choice in choices if str(choice).lower() in words)
        return next(named, choices[0])


def instance(schema_text: str, question: str) -> str:
    """The JSON of an instance of a schema, in several lines for every other question."""
    schema: object = json.loads(schema_text)
    root = schema if isinstance(schema, dict) else {}
    value = Filler(question, root).value(root)
    return json.dumps(value, ensure_ascii=False, indent=2 if len(question) % 2 else None)


def any_object(question: str, system: str) -> str:
    """The JSON of an object with the keys that the prompt names or shows, or of a schema in it."""
    text = f"{system}\n{question}"
    if schema := _shown_schema(text):
        return instance(schema, question)
    keys: list[str] = []
    for shown in _OBJECT.findall(text):
        try:
            keys = list(json.loads(shown))
        except ValueError:
            continue
        break
    keys = keys or list(dict.fromkeys(_KEY.findall(text)))
    if not keys and "joke" in text.lower():
        keys = list(_KNOWN)
    answers = {key: _KNOWN.get(key, question[:_FALLBACK_CHARS]) for key in keys}
    return json.dumps(answers or {"answer": question[:_FALLBACK_CHARS]}, ensure_ascii=False)


def _shown_schema(text: str) -> str:
    """The first JSON Schema of an object that a text spells out; empty if there is none."""
    at = text.find("{")
    while at >= 0:
        try:
            value, end = _decoder.raw_decode(text, at)
        except ValueError:
            end = at + 1
        else:
            if isinstance(value, dict) and isinstance(value.get("properties"), dict):
                return text[at:end]
        at = text.find("{", end)
    return ""


def arguments(tool: Tool, question: str) -> dict[str, object]:
    """What to call a tool with."""
    filled = Filler(question, tool.parameters).value({"type": "object", **tool.parameters})
    return filled if isinstance(filled, dict) else {}


def wanted_kind(tool: Tool) -> str:
    """The type of the tool's only parameter; empty if it has several, or none."""
    properties = tool.parameters.get("properties")
    if not isinstance(properties, dict) or len(properties) != 1:
        return ""
    (schema,) = properties.values()
    return _kind(schema) if isinstance(schema, dict) else ""


def has_a(kind: str, text: str) -> bool:
    """Whether a text has something for a parameter of that type."""
    if kind in ("integer", "number"):
        return bool(_NUMBER.search(text))
    return kind == "string" and bool(strings_of(text))


def strings_of(question: str) -> list[str]:
    """Quotes first, then names; those behind a preposition before the others."""
    quoted = [next(filter(None, groups)) for groups in _QUOTED.findall(question)]
    rest = _QUOTED.sub(" ", question)
    placed: list[str] = []
    others: list[str] = []
    for match in _PROPER.finditer(rest):
        before = rest[: match.start()].rstrip()
        name = match[0]
        if not before or before[-1] in ".!?:\n":  # any word has a capital there
            _, _, name = name.partition(" ")
        if name and name != "I":
            word = before.rpartition(" ")[2].lower()
            (placed if word in ("in", "at", "for", "of", "from", "to", "named") else others).append(
                name
            )
    return [*quoted, *placed, *others]


def _kind(schema: Mapping[str, object]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if isinstance(kind, str):
        return kind
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "string"


def _bounds(schema: Schema) -> dict[str, float]:
    keys = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
    return {key: bound for key in keys if isinstance(bound := schema.get(key), int | float)}
