"""Reads a spec from YAML; unknown keys, wrong types and contradictions are errors with a path."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from orchestrator.core import Role, SpecError
from orchestrator.spec.catalogue import CATALOGUE
from orchestrator.spec.spec import ModelSpec, Spec


def load_spec(path: Path) -> Spec:
    """The spec in the file; raises SpecError naming the file, the key and the cure."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"cannot read the spec {path}: {error}", "name a readable YAML file"
        ) from error
    return parse_spec(text, str(path))


def parse_spec(text: str, origin: str = "spec") -> Spec:
    """The spec in a YAML text; `origin` names it in errors."""
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(
            f"{origin} is not YAML: {_one_line(error)}", "mend the line named"
        ) from error
    if not isinstance(tree, dict):
        raise SpecError(
            f"{origin} holds no mapping at its top level",
            "start from an example in deploy/local/",
        )
    try:
        spec = _ADAPTER.validate_python(tree)
    except ValidationError as error:
        problems = "; ".join(_problem(e["loc"], e["type"], e["msg"]) for e in error.errors()[:5])
        raise SpecError(f"{origin}: {problems}", "mend the keys named") from error
    for problem in _contradictions(spec):
        raise SpecError(f"{origin}: {problem[0]}", problem[1])
    return spec


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
    if not 1 <= spec.gateway.port <= 65_535:
        yield f"gateway.port: {spec.gateway.port} is no TCP port", "give one from 1 to 65535"


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
    yield "channel.heartbeat_s", spec.channel.heartbeat_s
    yield "channel.lost_after_s", spec.channel.lost_after_s
    yield "channel.max_requests", spec.channel.max_requests
    yield "gateway.replicas", spec.gateway.replicas
    yield "gateway.keep_alive_s", spec.gateway.keep_alive_s
    yield "handoff.attempts_max", spec.handoff.attempts_max
    yield "fleet.start_attempts", spec.fleet.start_attempts
    yield "local.nodes", spec.local.nodes


def _problem(loc: tuple[int | str, ...], kind: str, message: str) -> str:
    if kind == "unexpected_keyword_argument":
        message = "unknown key"
    return f"{'.'.join(map(str, loc))}: {message[0].lower()}{message[1:]}"


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


def _strict(kind: type) -> None:
    """Unknown keys are errors, in this dataclass and those it is made of."""
    with_config(ConfigDict(extra="forbid"))(kind)


def _adapter() -> TypeAdapter[Spec]:
    import orchestrator.spec.spec as tree

    for kind in vars(tree).values():
        if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__"):
            _strict(kind)
    return TypeAdapter(Spec)


_ADAPTER = _adapter()
