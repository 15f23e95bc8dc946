"""A pool's replica: one gang, which starts, serves, drains and fails as one."""

import asyncio
import os
from dataclasses import asdict
from pathlib import Path

import ray
from ray import serve
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator import fleet
from orchestrator.core import EngineStartError, RankId, Role
from orchestrator.engines import (
    ChannelLimits,
    ChannelState,
    RankChannel,
)
from orchestrator.engines.command import EngineCommand
from orchestrator.gateway import Member, Supervisor
from orchestrator.runtime.fleet_watch import MEMBERS
from orchestrator.runtime.launch import PORTS_PER_NODE, NodeFacts, gang_commands
from orchestrator.runtime.node_agent import NodeAgent, Ready
from orchestrator.spec import PoolSpec, Spec
from orchestrator.telemetry import Log, open_log

WATCH_S = 1.0  # how often the gang's progress is judged
DESCRIBE_S = 120.0  # an actor on a reserved bundle starts in seconds; then its node is in trouble
STOP_S = 15.0  # how long the ends of a gang's processes are waited for


class Gang:
    """Holds a placement group with a bundle per node and one engine process in each."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, spec: Spec, model_name: str, role: Role
    ) -> None:
        model = spec.model(model_name)
        pool = model.pool(role)
        assert pool is not None
        self._spec = spec
        self._model = model
        self._gang_id = f"{model.name}-{role}-{serve.get_replica_context().replica_id.unique_id}"
        self._log: Log = open_log(self._gang_id, _log_path(spec, self._gang_id))
        self._supervisor = Supervisor()
        self._agents = _start_agents(pool)
        self._failure: str | None = None
        try:
            nodes = await self._describe()
            ready = await self._start(
                gang_commands(model, role, self._gang_id, tuple(nodes)), nodes
            )
        except BaseException:
            await self._stop_agents()
            raise
        rank_id = RankId(f"{self._gang_id}/0")  # the one data-parallel rank of the gang
        self._member = Member(rank_id, role, ready.address, self._gang_id)
        self._channel = RankChannel(
            ready.address,
            self._gang_id,
            gateway_id=f"watch-of-{self._gang_id}",
            limits=ChannelLimits(
                heartbeat_s=spec.channel.heartbeat_s, lost_after_s=spec.channel.lost_after_s
            ),
        )
        await self._supervisor.start()
        self._supervisor.spawn(self._channel.run())
        self._supervisor.spawn(self._watch())
        for index, agent in enumerate(self._agents):
            self._supervisor.spawn(self._watch_process(index, agent))

    # --- what Serve asks -----------------------------------------------------------------------

    def record_replica_metadata(self) -> dict[str, object]:
        """Where the gang's ranks are; Serve hands it to every gateway."""
        return {MEMBERS: [asdict(self._member)]}

    def check_health(self) -> None:
        """Raises if the gang is dead; Serve then replaces it."""
        if cause := self._failure or self._supervisor.failure():
            raise RuntimeError(cause)

    async def __del__(self) -> None:
        """Serve's graceful stop: no gateway sends here any more; waits for what is running."""
        try:
            async with asyncio.timeout(self._spec.fleet.drain_s):
                await self._idle()
            self._log.info("gang_drained", gang=self._gang_id)
        except TimeoutError:
            self._log.warning("gang_drain_timed_out", gang=self._gang_id)
        await self._supervisor.stop()
        await self._stop_agents()

    async def _idle(self) -> None:
        while self._channel.state is ChannelState.OPEN and _busy(self._channel):  # noqa: ASYNC110
            await asyncio.sleep(self._spec.channel.heartbeat_s)  # the load comes no more often

    # --- life ----------------------------------------------------------------------------------

    async def _start(self, commands: tuple[EngineCommand, ...], nodes: list[NodeFacts]) -> Ready:
        """All nodes' processes at once; ready when node 0 serves, failed when any of them ends."""
        self._log.info(
            "gang_starting",
            gang=self._gang_id,
            hosts=[node.host for node in nodes],
            commands=[command.argv for command in commands],
        )
        await asyncio.gather(
            *(
                agent.start.remote(
                    command.argv,
                    dict(command.env),
                    str(_log_path(self._spec, self._gang_id, index)),
                )
                for index, (agent, command) in enumerate(zip(self._agents, commands, strict=True))
            )
        )
        limit_s = self._model.engine.start_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                ready = await self._until_ready()
        except TimeoutError:
            raise EngineStartError(
                f"gang {self._gang_id} was not ready after {limit_s:g} s",
                f"read {_log_path(self._spec, self._gang_id, 0)} or raise engine.start_timeout_s",
            ) from None
        self._log.info(
            "gang_ready",
            gang=self._gang_id,
            address=ready.address,
            metrics=ready.metrics,
            info=ready.info,
        )
        return ready

    async def _describe(self) -> list[NodeFacts]:
        try:
            async with asyncio.timeout(DESCRIBE_S):
                facts: list[NodeFacts] = await asyncio.gather(
                    *(agent.describe.remote(PORTS_PER_NODE) for agent in self._agents)
                )
                return facts
        except TimeoutError:
            raise EngineStartError(
                f"an agent on a node of gang {self._gang_id} did not start in {DESCRIBE_S:g} s",
                "look for the node's troubles in Ray's dashboard",
            ) from None

    async def _until_ready(self) -> Ready:
        """Node 0's answer; raises EngineStartError as soon as any node's process ends."""
        try:
            async with asyncio.TaskGroup() as group:
                others = [
                    group.create_task(_must_not_end(index, agent))
                    for index, agent in enumerate(self._agents[1:], 1)
                ]
                ready: Ready = await self._agents[0].ready.remote()
                for task in others:
                    task.cancel()
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return ready

    async def _watch_process(self, index: int, agent: ActorHandle) -> None:
        cause = await agent.ended.remote()
        await self._fail(fleet.Reason.RANK_EXITED, f"node {index}: {cause}")

    async def _watch(self) -> None:
        """Judges the gang's progress; the process watchers see what ends at once."""
        state = fleet.Watch()
        now = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(WATCH_S)
            load = self._channel.load
            if load is None or self._channel.state is not ChannelState.OPEN:
                continue
            seen = fleet.Observation(load.running + load.waiting, load.steps)
            verdict, state = fleet.watch(self._spec.fleet.stuck_after_s, state, seen, now())
            if verdict.dead:
                await self._fail(verdict.reason, verdict.cause)

    async def _fail(self, reason: fleet.Reason, cause: str) -> None:
        """Takes the whole gang down, then this replica, which Serve then replaces at once."""
        if self._failure is not None:
            return
        self._failure = cause
        self._log.error("gang_failed", gang=self._gang_id, reason=reason, cause=cause)
        await self._stop_agents()
        os._exit(1)

    async def _stop_agents(self) -> None:
        try:
            async with asyncio.timeout(STOP_S):
                await asyncio.gather(
                    *(agent.stop.remote() for agent in self._agents), return_exceptions=True
                )
        except TimeoutError:
            self._log.warning("gang_stop_timed_out", gang=self._gang_id)  # the keepers go on


def _busy(channel: RankChannel) -> bool:
    return channel.load is None or channel.load.running + channel.load.waiting > 0


async def _must_not_end(index: int, agent: ActorHandle) -> None:
    raise EngineStartError(f"node {index}: {await agent.ended.remote()}", "read the engine's log")


def _start_agents(pool: PoolSpec) -> list[ActorHandle]:
    """One actor in each bundle of the replica's placement group, with all of the bundle's GPUs."""
    group = ray.util.get_current_placement_group()
    agent = ray.remote(num_cpus=0)(NodeAgent)
    return [
        agent.options(
            num_gpus=pool.gang.gpus_per_node,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=index
            ),
        ).remote()
        for index in range(pool.gang.nodes)
    ]


def _log_path(spec: Spec, gang_id: str, node: int | None = None) -> Path:
    name = f"gang-{gang_id}.log" if node is None else f"engine-{gang_id}-node{node}.log"
    return Path(spec.log_dir) / name
