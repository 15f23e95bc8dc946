"""Reads the tenants file; whatever is wrong with it is one error with the line and the cure."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from orchestrator.core import SpecError
from orchestrator.spec.load import TENANTS, problem_of, read_text, validate
from orchestrator.spec.spec import Spec
from orchestrator.spec.tenancy import TenantsSpec
from orchestrator.spec.tenancy_checks import tenants_faults

_CURE = "mend that line; docs/tenants.md has an example"


def load_tenants(path: Path, spec: Spec) -> TenantsSpec:
    """The tenants in the file, as they may be below `spec`.

    Raises SpecError naming the file, the line, the key and the cure.
    """
    text = read_text(path, "tenants")
    try:
        root, tree = _parse(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        raise SpecError(f"{path}, line {line} is not YAML: {error.problem}", _CURE) from error
    except yaml.YAMLError as error:
        raise SpecError(f"{path} is not YAML: {error}", _CURE) from error
    for line, key in _repeated(root):
        raise SpecError(f"{path}, line {line}: {key} stands there twice", _CURE)
    if not isinstance(tree, dict):
        raise SpecError(f"{path}, line 1: holds no mapping at its top level", _CURE)
    tenants = validate(TENANTS, tree)
    if not isinstance(tenants, TenantsSpec):
        place, kind, message = tenants[0]
        line = _line(root, place)
        raise SpecError(f"{path}, line {line}: {problem_of(place, kind, message)}", _CURE)
    for where, cause, cure in tenants_faults(tenants, spec):
        raise SpecError(f"{path}, line {_line(root, where)}: {'.'.join(where)}: {cause}", cure)
    return tenants


def _parse(text: str) -> tuple[yaml.Node | None, object]:
    """The nodes, which know their lines, and what they say. Raises yaml.YAMLError."""
    loader = (yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader)(text)
    try:
        root = loader.get_single_node()
        return root, None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()


def _line(root: yaml.Node | None, place: tuple[int | str, ...]) -> int:
    """Of the last key of `place` that is there, counted from 1."""
    line, node = 1, root
    for key in place:
        found = next((pair for pair in _pairs(node) if pair[0].value == str(key)), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _repeated(node: yaml.Node | None) -> Iterator[tuple[int, str]]:
    """Keys that a mapping has already, of which YAML would silently keep the last."""
    seen = set()
    for key, value in _pairs(node):
        if key.value in seen:
            yield key.start_mark.line + 1, str(key.value)
        if isinstance(key, yaml.ScalarNode):
            seen.add(key.value)
        yield from _repeated(value)


def _pairs(node: yaml.Node | None) -> list[tuple[yaml.Node, yaml.Node]]:
    return node.value if isinstance(node, yaml.MappingNode) else []
