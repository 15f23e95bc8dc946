"""Every model that a gateway serves: its public names, its tokenizer, the service behind it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from orchestrator.codec import Tokenizer, transformers_fault
from orchestrator.core import Role, SpecError
from orchestrator.gateway.network import Member
from orchestrator.gateway.service import Service
from orchestrator.gateway.supervisor import Supervisor
from orchestrator.scaling import Observation
from orchestrator.spec import EngineKind, ModelSpec, SourceKind, Spec, public_names, source_of
from orchestrator.telemetry import Log, Metrics


@dataclass(frozen=True, slots=True)
class Served:
    """One model with all that answers for it."""

    spec: ModelSpec
    tokenizer: Tokenizer
    service: Service
    fingerprint: str


def load_tokenizers(spec: Spec) -> Mapping[str, Tokenizer]:
    """Each model's tokenizer, by the model's name; takes about half a second for each.

    Raises SpecError for one that would corrupt text, with us or in the engine.
    """
    tokenizers = {}
    for model in spec.models:
        folder = _tokenizer_folder(model)
        if not (folder / "tokenizer.json").is_file():
            raise SpecError(
                f"models: there is no tokenizer.json in {folder}",
                "name a checkpoint's folder, or make a tiny one with `r1-serve checkpoint`",
            )
        if model.engine.kind is EngineKind.VLLM and (fault := transformers_fault(folder)):
            raise SpecError(fault, "mend that file, then start again")
        tokenizers[model.name] = Tokenizer.load(folder)
    return tokenizers


def _tokenizer_folder(model: ModelSpec) -> Path:
    """Where its tokenizer.json is, downloaded if the checkpoint is on a hub."""
    if model.tokenizer is not None:
        return Path(model.tokenizer)
    source = source_of(model.path)
    match source.kind:
        case SourceKind.FOLDER | SourceKind.PVC:
            return Path(source.where)
        case SourceKind.HUB:
            from orchestrator.engines.hub import fetch  # imports an HTTP client

            return fetch(source, Path(model.weights_cache), lambda _: None, weights=False)
        case SourceKind.S3:
            raise SpecError(
                f"models: {model.name} is in a bucket, and gateways read files",
                "set `tokenizer` of the model to a folder with its tokenizer.json",
            )
        case _:
            assert_never(source.kind)


class Models:
    """The models of one gateway replica, and the tasks that keep them going."""

    def __init__(
        self,
        spec: Spec,
        gateway_id: str,
        tokenizers: Mapping[str, Tokenizer],
        log: Log,
        decisions: Log,
    ) -> None:
        self.spec = spec
        self.gateway_id = gateway_id
        self.names = public_names(spec.models)
        self.metrics = Metrics()
        self.supervisor = Supervisor()
        self._log = log
        self._served = {
            model.name: Served(
                model,
                tokenizers[model.name],
                Service(
                    spec,
                    model,
                    gateway_id,
                    supervisor=self.supervisor,
                    metrics=self.metrics,
                    log=log,
                    decisions=decisions,
                ),
                _fingerprint(model),
            )
            for model in spec.models
        }

    async def start(self) -> None:
        """Returns when requests can be opened; ranks come and go with `update_pool`."""
        await self.supervisor.start()
        for served in self._served.values():
            served.service.start()
            self._log.info(
                "model_served",
                model=served.spec.name,
                licence=served.spec.profile.licence,
                names=[name for name, model in self.names.items() if model is served.spec],
            )

    async def stop(self) -> None:
        """Ends every channel; open requests end as failed."""
        await self.supervisor.stop()

    def served(self, model: ModelSpec) -> Served:
        """The one that serves the model."""
        return self._served[model.name]

    def update_pool(self, name: str, role: Role, members: Sequence[Member]) -> None:
        """The fleet's list of the ranks of one pool of the model `name`."""
        self._served[name].service.update_pool(role, members)

    def ready(self) -> bool:
        """Whether a request for any model that came now could be decoded."""
        return all(served.service.ready() for served in self._served.values())

    def observe(self) -> dict[str, Observation]:
        """What was measured of each model's requests."""
        return {name: served.service.observe() for name, served in self._served.items()}

    def ranks(self) -> dict[str, dict[str, int]]:
        """How many ranks can be reached now, by model and role."""
        return {name: served.service.ranks_by_role() for name, served in self._served.items()}


def _fingerprint(model: ModelSpec) -> str:
    """The same for all gateways; another one when the model, its template or its engine change."""
    facts = (model.path, model.name, model.profile.template, model.engine.kind, model.engine.dtype)
    return f"fp_{hashlib.sha256(repr(facts).encode()).hexdigest()[:10]}"
