"""Every model that a gateway serves: its public names, its tokenizer, the service behind it."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import assert_never

from orchestrator.codec import Tokenizer, transformers_fault
from orchestrator.core import Role, SpecError
from orchestrator.fleet.drill import Disturbance
from orchestrator.gateway.network import Member
from orchestrator.gateway.service import Service
from orchestrator.gateway.story import Story
from orchestrator.gateway.supervisor import Supervisor
from orchestrator.gateway.tracing import spans_of
from orchestrator.scaling import Observation
from orchestrator.spec import EngineKind, ModelSpec, SourceKind, Spec, public_names, source_of
from orchestrator.telemetry import Log, Metrics
from orchestrator.telemetry.spans import SpanSink, open_spans


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
        self.log = log
        self._spans: SpanSink | None = None
        if spec.tracing.endpoint is not None:
            self._spans = open_spans(spec.tracing.endpoint, gateway_id)
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
        if self._spans is not None:
            self.trace_to(self._spans)
        for served in self._served.values():
            served.service.start()
            self.log.info(
                "model_served",
                model=served.spec.name,
                licence=served.spec.profile.licence,
                names=[name for name, model in self.names.items() if model is served.spec],
            )

    async def stop(self) -> None:
        """Ends every channel; open requests end as failed."""
        await self.supervisor.stop()
        if self._spans is not None:
            await asyncio.to_thread(self._spans.close)

    def trace_to(self, spans: SpanSink) -> None:
        """From now on spans of requests that are sampled go there."""
        self._spans = spans
        for served in self._served.values():
            served.service.on_traced = partial(self._traced, spans, served.spec.name)

    @property
    def traces(self) -> bool:
        """Whether spans go anywhere."""
        return self._spans is not None

    def _traced(self, spans: SpanSink, model: str, story: Story) -> None:
        wall_ns = int(datetime.now(UTC).timestamp() * 1e9)
        spans.send(spans_of(story, model, wall_ns, asyncio.get_running_loop().time()))

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

    def disturb(self, what: Disturbance, lasts_s: float) -> int:
        """Does without something for a while, as a drill wants it; how many ranks it concerns."""
        return sum(served.service.disturb(what, lasts_s) for served in self._served.values())

    def ranks_of(self, session: str) -> list[str]:
        """The ranks that have the open requests of a session."""
        services = (served.service for served in self._served.values())
        return [rank_id for service in services for rank_id in service.ranks_of(session)]

    def ranks(self) -> dict[str, dict[str, int]]:
        """How many ranks can be reached now, by model and role."""
        return {name: served.service.ranks_by_role() for name, served in self._served.items()}


def _fingerprint(model: ModelSpec) -> str:
    """The same for all gateways; another one when the model, its template or its engine change."""
    facts = (model.path, model.name, model.profile.template, model.engine.kind, model.engine.dtype)
    return f"fp_{hashlib.sha256(repr(facts).encode()).hexdigest()[:10]}"
