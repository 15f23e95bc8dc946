"""The doctor of one gateway: examines the ranks that it knows, when it is asked and every so often.

Rounds go one after the other. What changes from one to the next is a line of the log, and all of
it is in the metrics, which alerts rest on.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from zlib import crc32

import msgspec

from orchestrator.fleet.doctor import Finding, Probe, SilentFault, State, examine, worst
from orchestrator.gateway.examiner import Examiner
from orchestrator.gateway.models import Models
from orchestrator.gateway.wanted import wanted
from orchestrator.telemetry import metrics

ROUND_S_MAX = 120.0  # a round that takes longer, and that for each rank, is given up
RANK_S_MAX = 4.0
APART_S = 5.0  # between two rounds: who asks sooner gets the last one, so that nobody makes load


class ModelReport(msgspec.Struct, frozen=True):
    """The findings of one model."""

    model: str
    findings: list[Finding]


class Report(msgspec.Struct, frozen=True):
    """One round of one gateway."""

    gateway: str
    gateways: int  # that the spec asks for
    run: str  # whose round it is, as who asked for it calls it
    at: str  # when it ended, ISO
    took_s: float
    state: State
    models: list[ModelReport]


class Doctor:
    """Of all models of one gateway."""

    def __init__(self, models: Models) -> None:
        spec = models.spec
        self._every_s = spec.doctor.every_s
        self._gateways = spec.gateway.replicas
        self._gateway_id = models.gateway_id
        self._metrics = models.metrics
        self._log = models.log
        self._examiners = {
            model.name: Examiner(
                (served := models.served(model)).service,
                served.tokenizer.control,
                models.gateway_id,
                wanted(spec, model),
            )
            for model in spec.models
        }
        self._turn = asyncio.Lock()
        self._known: dict[tuple[str, str, str], State] = {}
        self.last: Report | None = None
        self._ended_at = 0.0

    async def round(self, run: str = "") -> Report:
        """Examines all; who asks again with the same `run`, or too soon, gets the last round."""
        async with self._turn:
            began = asyncio.get_running_loop().time()
            if self.last is not None and (
                (run and self.last.run == run) or began < self._ended_at + APART_S
            ):
                return self.last
            models = [
                ModelReport(name, list(await self._examine(name))) for name in self._examiners
            ]
            state = worst(finding for model in models for finding in model.findings)
            self.last = Report(
                self._gateway_id,
                self._gateways,
                run,
                datetime.now(UTC).isoformat(timespec="seconds"),
                asyncio.get_running_loop().time() - began,
                state,
                models,
            )
            self._ended_at = asyncio.get_running_loop().time()
            self._tell(self.last)
            return self.last

    async def keep(self) -> None:
        """Rounds every so often, the first after that time; returns at once if there are none."""
        if self._every_s is None:
            return
        self._metrics.set(metrics.DOCTOR_EVERY, self._every_s)
        self._metrics.set(metrics.DOCTOR_LAST, datetime.now(UTC).timestamp())  # none is late yet
        # Gateways start together, and are not to examine together.
        share = crc32(self._gateway_id.encode()) % 1_000 / 1_000
        await asyncio.sleep(self._every_s * (1 + share) / 2)
        while True:
            try:
                await self.round()
            except Exception as fault:  # noqa: BLE001  # whatever it is, requests are served
                self._log.error("doctor_failed", cause=repr(fault))
            await asyncio.sleep(self._every_s)

    async def _examine(self, name: str) -> Sequence[Finding]:
        examiner = self._examiners[name]
        limit_s = ROUND_S_MAX + RANK_S_MAX * examiner.ranks
        try:
            async with asyncio.timeout(limit_s):
                return examine(await examiner.examine())
        except TimeoutError:
            self._log.error("doctor_gave_up", model=name, after_s=limit_s)
            return (
                Finding(
                    Probe.REACHED,
                    name,
                    State.UNKNOWN,
                    f"a round of at most {limit_s:g} s",
                    "it took longer",
                ),
            )

    # --- telling -------------------------------------------------------------------------------

    def _tell(self, report: Report) -> None:
        self._metrics.count(metrics.DOCTOR_ROUNDS, 1, report.state)
        self._metrics.set(metrics.DOCTOR_LAST, datetime.now(UTC).timestamp())
        for model in report.models:
            self._measure(model)
            self._note(model)

    def _measure(self, model: ModelReport) -> None:
        for probe in Probe:
            for state in State:
                found = sum(f.probe is probe and f.state is state for f in model.findings)
                self._metrics.set(metrics.DOCTOR_PROBE, found, model.model, probe, state)
        for fault in SilentFault:
            subjects = {f.subject for f in model.findings if f.fault is fault}
            self._metrics.set(metrics.DOCTOR_FAULT, len(subjects), model.model, fault)

    def _note(self, model: ModelReport) -> None:
        """A line for what is wrong now and was not, and for what is right again."""
        seen: set[tuple[str, str, str]] = set()
        for finding in model.findings:
            key = (model.model, finding.probe.value, finding.subject)
            seen.add(key)
            before, now = self._known.get(key), finding.state
            if now is State.FAULT and before is not State.FAULT:
                self._log.error(
                    "doctor_found",
                    model=model.model,
                    probe=finding.probe,
                    subject=finding.subject,
                    fault=finding.fault,
                    expected=finding.expected,
                    seen=finding.seen,
                    cure=finding.cure,
                )
            elif before is State.FAULT and now is not State.FAULT:
                self._log.info(
                    "doctor_cleared",
                    model=model.model,
                    probe=finding.probe,
                    subject=finding.subject,
                    state=finding.state,
                )
            self._known[key] = now
        for key in [k for k in self._known if k[0] == model.model and k not in seen]:
            del self._known[key]
