"""Reads a spec from YAML; unknown keys, wrong types and contradictions are errors with a path."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from orchestrator.core import Role, SpecError
from orchestrator.spec import inventory as inventory_types
from orchestrator.spec import observing as observing_types
from orchestrator.spec import scaling as scaling_types
from orchestrator.spec import spec as spec_types
from orchestrator.spec import telemetry as telemetry_types
from orchestrator.spec import tenancy as tenancy_types
from orchestrator.spec.catalogue import CATALOGUE
from orchestrator.spec.inventory import Inventory
from orchestrator.spec.local import LOOPBACK
from orchestrator.spec.observing_checks import observing_contradictions
from orchestrator.spec.scaling_checks import scaling_contradictions
from orchestrator.spec.spec import AdmissionSpec, EngineKind, KvHandoff, ModelSpec, Spec
from orchestrator.spec.tenancy import TenantsSpec
from orchestrator.spec.tenancy_checks import tenancy_contradictions

Tree = TypeVar("Tree")

SPEC_VARIABLE = "R1_SERVE_SPEC"  # a part of the spec, in YAML, for one replica


def load_spec(path: Path) -> Spec:
    """The spec in the file; raises SpecError naming the file, the key and the cure."""
    return parse_spec(read_text(path, "spec"), str(path))


def parse_spec(text: str, origin: str = "spec") -> Spec:
    """The spec in a YAML text; `origin` names it in errors."""
    return _spec(parse_mapping(text, origin, "start from an example in deploy/local/"), origin)


def spec_of_environment() -> Spec:
    """The spec that this process was given in `SPEC_VARIABLE`, as what looks after it must have."""
    return parse_spec(os.environ[SPEC_VARIABLE], f"${SPEC_VARIABLE}")


def parse_plan(text: str, origin: str) -> Spec:
    """The spec in the values that `r1-serve plan` wrote: their `spec`."""
    tree = parse_mapping(text, origin, "write one with `r1-serve plan --format values`")
    unknown = sorted(set(tree) - {"plan", "spec", "workerGroups"})
    if unknown or not isinstance(tree.get("spec"), dict):
        said = f"unknown key {unknown[0]}" if unknown else "no mapping `spec`"
        raise SpecError(
            f"{origin} is no plan: {said}", "write one with `r1-serve plan --format values`"
        )
    return _spec(tree["spec"], f"{origin}: spec")


def load_inventory(path: Path) -> Inventory:
    """The inventory in the file; raises SpecError naming the file, the key and the cure."""
    cure = "give `nodes:` a list with `name`, `gpu` and `gpus` of each"
    tree = parse_mapping(read_text(path, "inventory"), str(path), cure)
    inventory = _validated(_INVENTORY, tree, str(path), cure)
    names = Counter(node.name for node in inventory.nodes)
    for at, node in enumerate(inventory.nodes):
        if names[node.name] > 1:
            raise SpecError(
                f"{path}: nodes.{at}: {node.name} is named twice", "name each node once"
            )
        if node.gpus < 1:
            raise SpecError(f"{path}: nodes.{at}.gpus: {node.gpus} is not positive", cure)
    if not inventory.nodes:
        raise SpecError(f"{path}: nodes: there is none", cure)
    return inventory


def spec_tree(spec: Spec) -> Mapping[str, object]:
    """What `parse_spec` reads back as the same spec; without what is as by default."""
    tree: Mapping[str, object] = _ADAPTER.dump_python(spec, mode="json", exclude_defaults=True)
    return tree


def spec_text(spec: Spec) -> str:
    """The YAML of `spec_tree`."""
    return yaml.safe_dump(dict(spec_tree(spec)), sort_keys=False)


def read_text(path: Path, what: str) -> str:
    """The text of a file; raises SpecError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"cannot read the {what} {path}: {error}", "name a readable YAML file"
        ) from error


def parse_mapping(text: str, origin: str, cure: str) -> dict[str, object]:
    """The mapping in a YAML text; raises SpecError if it holds anything else."""
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(
            f"{origin} is not YAML: {_one_line(error)}", "mend the line named"
        ) from error
    if not isinstance(tree, dict):
        raise SpecError(f"{origin} holds no mapping at its top level", cure)
    return tree


def _spec(tree: object, origin: str) -> Spec:
    spec = _validated(_ADAPTER, tree, origin, "mend the keys named")
    for problem in _contradictions(spec):
        raise SpecError(f"{origin}: {problem[0]}", problem[1])
    return spec


def _validated(adapter: TypeAdapter[Tree], tree: object, origin: str, cure: str) -> Tree:
    found = validate(adapter, tree)
    if not isinstance(found, list):
        return found
    raise SpecError(f"{origin}: {'; '.join(problem_of(*each) for each in found[:5])}", cure)


Problem = tuple[tuple[int | str, ...], str, str]  # where, kind, message


def validate(adapter: TypeAdapter[Tree], tree: object) -> Tree | list[Problem]:
    """The tree in its type, or what is wrong with it."""
    try:
        return adapter.validate_python(tree)
    except ValidationError as error:
        return [(each["loc"], each["type"], each["msg"]) for each in error.errors()]


def _contradictions(spec: Spec) -> Iterator[tuple[str, str]]:
    if not spec.models:
        yield "models: there is none", "name at least one model"
    for at, model in enumerate(spec.models):
        yield from _model_contradictions(f"models.{at}", model)
    names = Counter(model.name for model in spec.models)
    aliases = Counter(alias for model in spec.models for alias in model.aliases or ())
    for name, count in (names + aliases).items():
        if count > 1:
            yield f"models: {name} is given {count} times", "let each name lead to one model"
    for key, value in _positive(spec):
        if value <= 0:
            yield f"{key}: {value} is not positive", "give a positive number"
    if spec.local.namespaces and spec.gateway.host in (LOOPBACK, "localhost", "::1"):
        yield (
            f"gateway.host: {spec.gateway.host} is not reached from nodes of local.namespaces",
            "give gateway.host 0.0.0.0, or leave local.namespaces false",
        )
    moved = [model for model in spec.models if model.pool(Role.PREFILL) is not None]
    if spec.handoff.kv is KvHandoff.PULL_BOUND and any(
        model.engine.kind is EngineKind.VLLM for model in moved
    ):
        yield (
            f"handoff.kv: vLLM has no connector for {spec.handoff.kv}",
            "say pull (NIXL) or push (Mooncake)",
        )
    yield from _class_contradictions(spec)
    yield from observing_contradictions(spec)
    yield from tenancy_contradictions(spec)
    yield from _port_contradictions(spec)
    price = spec.telemetry.gpu_hour_price
    if price is not None and price < 0:
        yield f"telemetry.gpu_hour_price: {price} is below 0", "give what a GPU costs an hour"


def _port_contradictions(spec: Spec) -> Iterator[tuple[str, str]]:
    for key, port in ("gateway.port", spec.gateway.port), ("telemetry.port", spec.telemetry.port):
        if not 1 <= port <= 65_535:
            yield f"{key}: {port} is no TCP port", "give one from 1 to 65535"


def _class_contradictions(spec: Spec) -> Iterator[tuple[str, str]]:
    for name, count in Counter(each.name for each in spec.admission.classes).items():
        if not name or count > 1:
            yield (
                f"admission.classes: {name or 'no name'} is given {count} times",
                "give each class one name, which is not empty",
            )


def _model_contradictions(path: str, model: ModelSpec) -> Iterator[tuple[str, str]]:
    if model.name not in CATALOGUE:
        yield (
            f"{path}.name: {model.name} is not in the catalogue",
            f"give one of {', '.join(CATALOGUE)}; `aliases` may hold any public name",
        )
    roles = [pool.role for pool in model.pools]
    if len(set(roles)) != len(roles):
        yield f"{path}.pools: a role is named twice", "give each role one pool, more replicas"
    if set(roles) not in ({Role.UNIFIED}, {Role.PREFILL, Role.DECODE}):
        yield (
            f"{path}.pools: the roles {', '.join(sorted(roles)) or 'none'} cannot serve a request",
            "give one pool `unified`, or the two pools `prefill` and `decode`",
        )
    yield from scaling_contradictions(path, model)


def _positive(spec: Spec) -> Iterator[tuple[str, float]]:
    for at, model in enumerate(spec.models):
        yield f"models.{at}.max_model_len", model.max_model_len
        for pool in model.pools:
            name, gang = f"models.{at}.pools.{pool.role}", pool.gang
            yield f"{name}.replicas", pool.replicas
            yield f"{name}.gang.tensor_parallel", gang.tensor_parallel
            yield f"{name}.gang.pipeline_parallel", gang.pipeline_parallel
            yield f"{name}.gang.data_parallel", gang.data_parallel
            yield f"{name}.gang.nodes", gang.nodes
    yield from _positive_admission(spec.admission)
    yield "channel.heartbeat_s", spec.channel.heartbeat_s
    yield "channel.lost_after_s", spec.channel.lost_after_s
    yield "channel.max_requests", spec.channel.max_requests
    yield "gateway.replicas", spec.gateway.replicas
    yield "gateway.keep_alive_s", spec.gateway.keep_alive_s
    yield "handoff.attempts_max", spec.handoff.attempts_max
    yield "handoff.deaths_max", spec.handoff.deaths_max
    yield "fleet.start_attempts", spec.fleet.start_attempts
    yield "fleet.stuck_after_s", spec.fleet.stuck_after_s
    yield "fleet.cut_off_after_s", spec.fleet.cut_off_after_s
    yield "local.nodes", spec.local.nodes


def _positive_admission(admission: AdmissionSpec) -> Iterator[tuple[str, float]]:
    for at, each in enumerate(admission.classes):
        for key in ("wait_s", "queue_requests_max"):
            if (value := getattr(each, key)) is not None:
                yield f"admission.classes.{at}.{key}", value
    for key in ("wait_s", "tenant_requests_max", "rank_requests_max"):
        if (value := getattr(admission, key)) is not None:
            yield f"admission.{key}", value


def problem_of(loc: tuple[int | str, ...], kind: str, message: str) -> str:
    """One problem of `validate`, as an operator reads it."""
    if kind == "unexpected_keyword_argument":
        message = "unknown key"
    elif kind in ("missing", "missing_argument"):
        message = "is missing"
    return f"{'.'.join(map(str, loc))}: {message[0].lower()}{message[1:]}"


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


def _adapter(root: type[Tree], *trees: ModuleType) -> TypeAdapter[Tree]:
    """Of the dataclasses of these modules; unknown keys are errors in each of them."""
    for kind in (kind for tree in trees for kind in vars(tree).values()):
        if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__"):
            with_config(ConfigDict(extra="forbid"))(kind)
    return TypeAdapter(root)


_ADAPTER = _adapter(
    Spec, spec_types, observing_types, scaling_types, telemetry_types, tenancy_types
)
TENANTS = _adapter(TenantsSpec, tenancy_types)
_INVENTORY = _adapter(Inventory, inventory_types)
