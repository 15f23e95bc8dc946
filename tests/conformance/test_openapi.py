"""The OpenAPI document against what is served: its routes, its schemas, and schemathesis on it."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.routing import Route

from orchestrator.codec import Tokenizer
from orchestrator.gateway import Models, Tenants, build_app, key_line
from orchestrator.gateway.openapi import document
from orchestrator.telemetry import open_log
from tests.conformance.conftest import running
from tests.conformance.server import Settings, spec_of

SCHEMATHESIS = Path(".clients/schemathesis/bin").absolute()
# What is the same code behind another path is fuzzed once; the examples are sent to all of them.
TWINS = "^/(v1|beta/v1)/|^/beta/models"

# Of the checks that are left out, some hold for no lenient API, the others for no open one:
# - positive_data_acceptance: a body of the right form may still ask for what cannot be given, such
#   as a choice among tools that has none of them, or more tokens than the context has.
# - ignored_auth, missing_required_header: without keys everybody may come in; see the last test.
# - use_after_free, ensure_resource_availability, object_level_authorization: nothing is created.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",  # of each event of a stream as well
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
)
WITH_KEYS = (*CHECKS, "ignored_auth", "missing_required_header")

# Every schema must be one by the rules of its draft, which is that of OpenAPI 3.1.
META = """
import json, sys
import jsonschema_rs
schemas = json.load(sys.stdin)["components"]["schemas"]
for name, schema in schemas.items():
    jsonschema_rs.Draft202012Validator(schema | {"components": {"schemas": schemas}})
print(len(schemas))
"""


def schemathesis(url: str, folder: Path, *options: str) -> None:
    """Fails with its report unless all checks pass. The cases are the same each time."""
    ended = subprocess.run(
        [
            *(SCHEMATHESIS / "schemathesis", "run", f"{url}/openapi.json", "--url", url),
            *("--seed", "1", "--generation-deterministic"),
            *("--request-timeout", "30", "--warnings", "off", "--no-color", *options),
        ],
        cwd=folder,  # it keeps notes where it runs
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "No issues found" in ended.stdout, ended.stdout


@pytest.fixture
def tree(server: str) -> dict[str, dict[str, dict[str, object]]]:
    """The document as it is served."""
    answer = httpx.get(f"{server}/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    tree: dict[str, dict[str, dict[str, object]]] = answer.json()
    return tree


def nodes(value: object) -> Iterator[dict[str, object]]:
    match value:
        case dict():
            yield value
            for inner in value.values():
                yield from nodes(inner)
        case list():
            for inner in value:
                yield from nodes(inner)
        case _:
            pass


def test_the_routes_of_the_api_are_those_of_the_document(
    tree: dict[str, dict[str, dict[str, object]]], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    log = open_log("test", tmp_path / "log")
    spec = spec_of(Settings())
    tokenizers = dict.fromkeys((model.name for model in spec.models), tokenizer)
    models = Models(spec, "gateway-test", tokenizers, log, log)
    app = build_app(models, Tenants(spec, "gateway-test", models.metrics, log), lambda: None)
    log.close()
    served = {
        (route.path_format, method)
        for route in app.routes
        if isinstance(route, Route)
        and route.path not in {"/", "/page/{path:path}", "/openapi.json"}
        and not route.path.startswith("/operator/")  # r1-serve's own commands, no client's
        for method in (route.methods or set()) - {"HEAD"}
    }
    described = {(path, method.upper()) for path, item in tree["paths"].items() for method in item}
    assert described == served
    assert all(isinstance(route, Route) for route in app.routes)


def test_the_document_is_well_formed(tree: dict[str, dict[str, dict[str, object]]]) -> None:
    assert str(tree["openapi"]) == "3.1.0"
    for node in nodes(tree):
        if isinstance(reference := node.get("$ref"), str):
            found: object = tree
            for part in reference.removeprefix("#/").split("/"):
                assert isinstance(found, dict)
                found = found[part]
    operations = [operation for item in tree["paths"].values() for operation in item.values()]
    ids = [operation["operationId"] for operation in operations if isinstance(operation, dict)]
    assert len(set(ids)) == len(operations)
    meta = subprocess.run(
        [SCHEMATHESIS / "python", "-c", META],
        input=json.dumps(tree),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert meta.returncode == 0, meta.stderr
    assert int(meta.stdout) == len(tree["components"]["schemas"])


def test_the_document_names_the_models_that_there_are() -> None:
    tree = json.loads(document(["deepseek-reasoner", "mine"]))
    for kind in ("ChatRequest", "FimRequest"):
        model = tree["components"]["schemas"][kind]["allOf"][1]["properties"]["model"]
        assert model["enum"] == ["deepseek-reasoner", "mine"]


@pytest.mark.timeout(300)
def test_whatever_is_asked_the_answer_is_one_that_the_document_describes(
    server: str, tmp_path: Path
) -> None:
    schemathesis(
        server,
        tmp_path,
        *("-H", "Authorization: Bearer sk-test", "--checks", ",".join(CHECKS)),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", "100"),
        *("--exclude-path-regex", TWINS),
    )


@pytest.mark.timeout(300)
def test_behind_keys_nothing_but_the_operators_paths_answers_without_one(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{key_line('ada', 'sk-ada')}\n")
    settings = Settings(api={"keys_path": str(tmp_path / "keys")})
    with running(settings, tmp_path) as locked:
        schemathesis(
            locked.url,
            tmp_path,
            *("-H", "Authorization: Bearer sk-ada", "--checks", ",".join(WITH_KEYS)),
            *("--phases", "examples"),
        )
        for path, method in (("/models", "GET"), ("/chat/completions", "POST")):
            for headers in ({}, {"authorization": "Bearer sk-bob"}):
                answer = httpx.request(method, f"{locked.url}{path}", headers=headers)
                assert answer.status_code == 401
