"""Hosts what is decided of tenants: their keys, their limits, their usage and its journal."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from orchestrator.admission import (
    Charge,
    Ended,
    Opened,
    OpenRequest,
    Progress,
    Refused,
    Tenancy,
    budget_pico,
    cost_pico,
    money_text,
    to_pico,
)
from orchestrator.core import SpecError, TokenCounts
from orchestrator.gateway.errors import ApiError, refused
from orchestrator.gateway.journal import Journal, LifeReader, lives
from orchestrator.gateway.keys import Keys
from orchestrator.gateway.spending import Spending
from orchestrator.gateway.watched import RELOAD_S, Watched, files_of
from orchestrator.spec import ModelSpec, Spec, TenantSpec, TenantsSpec, load_tenants
from orchestrator.telemetry import Log, Metrics, metrics


class Bill:
    """One open request: what it has used as its limits and its journal know it."""

    __slots__ = ("at_s", "cost_pico", "follow", "limited", "model", "request_id", "streamed",
                 "tenant", "used")  # fmt: skip

    def __init__(
        self, request_id: str, tenant: str, model: ModelSpec, *, streamed: bool, prompt_tokens: int
    ) -> None:
        self.request_id = request_id
        self.tenant = tenant
        self.model = model
        self.streamed = streamed
        self.at_s = _wall_s()
        self.limited = TokenCounts(input=prompt_tokens)  # as buckets were charged
        self.used = TokenCounts()  # as the journal knows
        self.cost_pico = 0
        self.follow: Callable[[], TokenCounts] = TokenCounts  # to be set: what it has used by now

    def ended(self, at_s: int, outcome: str) -> Ended:
        """The record of its end."""
        name, cost = self.model.name, self.cost_pico
        return Ended(self.request_id, self.tenant, name, at_s, outcome, self.used, cost)

    def carried(self) -> OpenRequest:
        """As the next segment begins with it."""
        name, cost = self.model.name, self.cost_pico
        return OpenRequest(self.request_id, self.tenant, name, self.at_s, self.used, cost)


@dataclass(frozen=True, slots=True)
class Balance:
    """A tenant's money in the official form."""

    available: bool
    currency: str
    total: str
    granted: str
    topped_up: str


class Tenants:
    """The tenants at one gateway; all on its event loop, but for reading and syncing files."""

    def __init__(self, spec: Spec, gateway_id: str, counted: Metrics, log: Log) -> None:
        """Raises SpecError for keys, tenants or a journal that cannot be read."""
        self._spec = spec
        self._log = log
        self.metrics = counted
        self._spending = Spending(counted, spec)
        self._keys = Keys(spec.api.keys_path, log)
        path = spec.api.tenants_path
        self._file: Watched[TenantsSpec] | None = None
        if path is not None:
            self._file = Watched("tenants", Path(path), lambda at: load_tenants(at, spec), log)
        tenants = TenantsSpec() if self._file is None else self._file.value
        self._tenancy = Tenancy(tenants, spec.gateway.replicas)
        self._open: dict[str, Bill] = {}
        self._spent: dict[str, int] = {}  # in this life
        self._others: dict[str, int] = {}  # in all other lives, as far as they have been read
        self._readers: dict[str, LifeReader] = {}
        self._sizes: dict[str, int] = {}  # in bytes, of lives when they were last read
        self._life = f"{gateway_id}-{uuid4().hex[:8]}"
        self._journal: Journal | None = None
        self._behind = False
        if spec.usage.dir is not None:
            self._journal = Journal(spec.usage, self._life)
        self.read_others()

    # --- requests ------------------------------------------------------------------------------

    def check(self, authorization: str | None) -> str | ApiError:
        """The tenant that an `Authorization` header proves, or the official refusal."""
        return self._keys.check(authorization)

    def of(self, tenant: str) -> TenantSpec:
        """What holds for the tenant now."""
        return self._tenancy.of(tenant)

    def refusal(self, tenant: str) -> ApiError | None:
        """Why the tenant may not use the API at all."""
        return self._refused(self._tenancy.standing(tenant, self.spent_pico(tenant)))

    def open(self, bill: Bill) -> ApiError | None:
        """Why the request may not begin now; otherwise it is open until `close`."""
        found = self._tenancy.open(
            bill.tenant,
            streamed=bill.streamed,
            prompt_tokens=bill.limited.input,
            now=_now(),
        )
        if found is not None:
            return self._refused(found)
        self._open[bill.request_id] = bill
        if self._journal is not None:
            self._journal.put(Opened(bill.request_id, bill.tenant, bill.model.name, bill.at_s))
        return None

    def _refused(self, found: Refused | None) -> ApiError | None:
        if found is None:
            return None
        self.metrics.count(metrics.LIMITED, 1, found.limit)
        return refused(found)

    def close(self, bill: Bill, outcome: str) -> None:
        """The one end of an open request. What was refused with an error costs nothing."""
        self._charge(bill, TokenCounts() if outcome.startswith("error_") else bill.follow())
        self._tenancy.close(bill.tenant, streamed=bill.streamed, now=_now())
        del self._open[bill.request_id]
        if self._journal is not None:
            self._journal.put(bill.ended(_wall_s(), outcome))

    def spent_pico(self, tenant: str) -> int:
        """By all lives of all gateways, as far as this one knows."""
        return self._spent.get(tenant, 0) + self._others.get(tenant, 0)

    def balance(self, tenant: str) -> Balance:
        """What is left; nil where there is no budget. Granted money goes first."""
        budget, currency = self.of(tenant).budget, self._spec.usage.currency
        available = self._tenancy.standing(tenant, self.spent_pico(tenant)) is None
        if budget is None:
            return Balance(available, currency, "0.00", "0.00", "0.00")
        total = max(0, budget_pico(budget) - self.spent_pico(tenant))
        topped_up = min(total, to_pico(budget.topped_up))
        parts = (money_text(each) for each in (total, total - topped_up, topped_up))
        return Balance(available, currency, *parts)

    def _charge(self, bill: Bill, used: TokenCounts) -> None:
        self._tenancy.charge(bill.tenant, used - bill.limited, _now())
        cost = cost_pico(bill.model.prices, used)
        klass = self.of(bill.tenant).admission_class
        self._spending.charged(bill.model, klass, bill.used, used, cost - bill.cost_pico)
        bill.limited = bill.used = used
        self._spent[bill.tenant] = self._spent.get(bill.tenant, 0) + cost - bill.cost_pico
        bill.cost_pico = cost

    # --- time ----------------------------------------------------------------------------------

    def tasks(self) -> list[Coroutine[None, None, None]]:
        """What has to run as long as the gateway does."""
        usage = self._spec.usage
        running = [self._reload(), _every(usage.progress_s, self.tell)]
        return running if self._journal is None else [*running, self._keep(self._journal)]

    async def look(self) -> None:
        """Reads keys and tenants again if their files have changed, which may take long."""
        await asyncio.to_thread(self._keys.look)
        if self._file is not None and await asyncio.to_thread(self._file.look):
            self._tenancy.update(self._file.value, _now())

    def tell(self) -> None:
        """Charges open requests for what they have used by now, and puts it into the journal."""
        charges = []
        for bill in self._open.values():
            used = bill.follow()
            if used not in (bill.used, TokenCounts()):
                self._charge(bill, used)
                charges.append(Charge(bill.request_id, used, bill.cost_pico))
        if charges and self._journal is not None:
            self._journal.put(Progress(_wall_s(), tuple(charges)))

    def stop(self) -> None:
        """Nothing may be opened after."""
        if self._journal is not None:
            self._journal.close()

    async def _reload(self) -> None:
        while True:
            if (age_s := await asyncio.to_thread(self._key_age_s)) is not None:
                self.metrics.set(metrics.KEY_AGE, age_s)
            await asyncio.sleep(RELOAD_S)
            await self.look()

    def _key_age_s(self) -> float | None:
        """How old the file of keys is that has not changed for longest; None: there is none."""
        if self._spec.api.keys_path is None:
            return None
        try:
            changed_s = [at.stat().st_mtime for at in files_of(Path(self._spec.api.keys_path))]
        except (OSError, SpecError):
            return None  # what cannot be read is told of when it is read
        return max(0.0, _wall_s() - min(changed_s)) if changed_s else None

    async def _keep(self, journal: Journal) -> None:
        """Brings records to the disk, reads those of others, begins new segments."""
        while True:
            await asyncio.sleep(self._spec.usage.sync_s)
            journal.flush()
            await asyncio.to_thread(journal.sync)
            if journal.full:  # with little left to be synced, which holds up all streams
                journal.rotate(tuple(bill.carried() for bill in self._open.values()))
            try:
                await asyncio.to_thread(self.read_others)
                await asyncio.to_thread(journal.add_up)
            except (OSError, SpecError) as error:
                self._report(journal, str(error))
            else:
                self._report(journal, journal.fault)

    def _report(self, journal: Journal, fault: str) -> None:
        self.metrics.set(metrics.USAGE_FAULT, bool(fault))
        self.metrics.set(metrics.USAGE_LOST, journal.lost)
        if fault and not self._behind:
            self._log.error("usage_not_kept", cause=fault, lost=journal.lost)
        self._behind = bool(fault)

    def read_others(self) -> None:
        """Learns what tenants have spent in all lives but this one; in any thread, one at a time.
        Raises OSError or SpecError.
        """
        if self._journal is None:
            return
        folder = self._journal.folder
        spent = dict(self._others)
        for life, size in lives(folder).items():
            if life == self._life or self._sizes.get(life) == size:
                continue
            if life not in self._readers:
                self._readers[life] = LifeReader(folder, life, by_day=False)
            reader = self._readers[life]
            before = reader.fold.rows() if life in self._sizes else {}
            reader.read()
            if reader.fold.currency not in ("", self._spec.usage.currency):
                raise SpecError(
                    f"usage.dir: {folder} holds usage in {reader.fold.currency}, and "
                    f"usage.currency is {self._spec.usage.currency}",
                    "keep one folder for each currency",
                )
            for rows, sign in ((before, -1), (reader.fold.rows(), 1)):
                for key, usage in rows.items():
                    spent[key.tenant] = spent.get(key.tenant, 0) + sign * usage.cost_pico
            self._sizes[life] = size
            self._others = dict(spent)


async def _every(period_s: float, action: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(period_s)
        action()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _wall_s() -> int:
    """Seconds of Unix time: usage is of a day."""
    return int(datetime.now(UTC).timestamp())
