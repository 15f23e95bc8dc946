"""The OpenAPI document of what is served."""

from collections.abc import Iterable
from pathlib import Path

import msgspec
import yaml

from orchestrator import __version__

_PATH = Path(__file__).with_name("openapi.yaml")


def document(names: Iterable[str]) -> bytes:
    """The document as JSON; `names` are the models that a request may ask for."""
    tree = yaml.safe_load(_PATH.read_text(encoding="utf-8"))
    tree["info"]["version"] = __version__
    schemas = tree["components"]["schemas"]
    for kind in ("ChatRequest", "FimRequest"):
        schemas[kind]["allOf"][1]["properties"]["model"]["enum"] = list(names)
    return msgspec.json.encode(tree)
