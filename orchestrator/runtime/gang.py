"""A pool's replica: one gang, which starts, serves, drains and fails as one."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import ray
from ray import serve
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator import fleet
from orchestrator.core import EngineStartError, RankId, Role
from orchestrator.engines import (
    ChannelLimits,
    ChannelState,
    RankChannel,
)
from orchestrator.gateway import Member, Supervisor
from orchestrator.perf import load_s, start_s
from orchestrator.runtime.engine_process import Ready
from orchestrator.runtime.fleet_watch import MEMBERS
from orchestrator.runtime.launch import (
    NodeCommands,
    NodeFacts,
    gang_commands,
    pool_name,
    ports_per_node,
)
from orchestrator.runtime.node_agent import NodeAgent
from orchestrator.runtime.preflight import check_nodes
from orchestrator.runtime.ray_nodes import left_s
from orchestrator.spec import PoolSpec, Spec, spec_of_environment
from orchestrator.telemetry import Log, open_log
from orchestrator.telemetry.targets import Target

WATCH_S = 1.0  # how often the gang's progress is judged
HELD_S = 10.0  # KV that nobody has read for so long will not be: its decode rank is gone
TOLD_BEATS = 2.0  # heartbeats until every gateway knows of a drain, and what it sent has arrived
DESCRIBE_S = 120.0  # an actor on a reserved bundle starts in seconds; then its node is in trouble
STOP_S = 15.0  # how long the ends of a gang's processes are waited for
LEASES = 2  # a node that is cut off ends its processes after so many times `cut_off_after_s`


class Gang:
    """Holds a placement group with a bundle per node, and the engine processes in each."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, model_name: str, role: Role
    ) -> None:
        spec = spec_of_environment()
        model = spec.model(model_name)
        pool = model.pool(role)
        assert pool is not None
        self._spec = spec
        self._model = model
        self._role = role
        self._gang_id = f"{model.name}-{role}-{serve.get_replica_context().replica_id.unique_id}"
        self._log: Log = open_log(self._gang_id, _log_path(spec, self._gang_id))
        self._limits = fleet.Limits(spec.fleet.stuck_after_s, spec.fleet.cut_off_after_s)
        self._supervisor = Supervisor()
        self._agents = _start_agents(pool)
        self._unheard: set[int] = set()  # the nodes that do not answer
        self._failure: str | None = None
        self._drained: asyncio.Task[None] | None = None  # the one drain, from its beginning
        self._members: list[Member] = []
        self._channels: list[RankChannel] = []  # none before all of them serve
        try:
            nodes = await self._describe()
            check_nodes(model, pool.gang.gpus_per_node, nodes)
            ready = await self._start(
                gang_commands(model, role, self._gang_id, tuple(nodes), spec.handoff), nodes
            )
        except BaseException:
            await self._stop_agents()
            raise
        self._members = [
            Member(
                RankId(f"{self._gang_id}/{rank.rank}"),
                role,
                rank.address,
                self._gang_id,
                tuple(dict.fromkeys(node.node_id for node in nodes)),
            )
            for rank in ready
        ]
        self._channels = [self._channel(member) for member in self._members]
        await self._supervisor.start()
        for member, channel in zip(self._members, self._channels, strict=True):
            self._supervisor.spawn(channel.run())
            self._supervisor.spawn(self._watch_rank(member.rank_id, channel))
        for index, agent in enumerate(self._agents):
            self._supervisor.spawn(self._watch_processes(nodes[index], agent))
            self._supervisor.spawn(self._watch_node(index, nodes[index]))

    # --- what Serve asks -----------------------------------------------------------------------

    def record_replica_metadata(self) -> dict[str, object]:
        """Where the gang's ranks are; Serve hands it to every gateway."""
        return {MEMBERS: [asdict(member) for member in self._members]}

    def check_health(self) -> None:
        """Raises if the gang is dead; Serve then replaces it."""
        if cause := self._failure or self._supervisor.failure():
            raise RuntimeError(cause)

    def status(self) -> fleet.Gang:
        """What this gang is, as it is now."""
        loads = [channel.load for channel in self._channels if channel.load is not None]
        return fleet.Gang(
            self._gang_id,
            pool_name(self._model, self._role),
            fleet.Phase.READY if self._drained is None else fleet.Phase.DRAINING,
            self._members[0].nodes,
            sum(load.running + load.waiting for load in loads),
        )

    async def drain(self, gang_ids: Sequence[str], wait_s: float | None) -> None:
        """For operators: begins to drain if this gang is one of those, and returns. What runs may
        go on for `wait_s`; None: as the spec says. When it is over this replica ends, and Serve
        starts its successor.
        """
        if self._gang_id in gang_ids and self._drained is None:
            self._log.info("gang_drain_asked", gang=self._gang_id, wait_s=wait_s)
            self._supervisor.spawn(self._drain_and_leave(wait_s))

    async def __del__(self) -> None:
        """Serve's graceful stop: of a scale-down, an upgrade, a node that is taken away."""
        await self._drain(None)
        self._failure = self._failure or "it was drained"
        await self._supervisor.stop()
        await self._stop_agents()

    async def _drain_and_leave(self, wait_s: float | None) -> None:
        await self._drain(wait_s)
        self._failure = "it was drained"  # the ends of its processes are no failure any more
        self._log.info("gang_gone", gang=self._gang_id)
        await self._stop_agents()
        os._exit(0)

    async def _drain(self, wait_s: float | None) -> None:
        """The barrier over the whole gang: every rank tells every gateway, which send nothing new
        and move what does not end in time; over when no rank has anything, or after `drain_s`.
        A second call only waits for the first one's end.
        """
        if not self._channels:
            return  # it never served
        if self._drained is None:
            self._drained = self._supervisor.spawn(self._drain_once(wait_s))
        await asyncio.wait([self._drained])

    async def _drain_once(self, wait_s: float | None) -> None:
        fleet_spec = self._spec.fleet
        wait_s = fleet_spec.drain_wait_s if wait_s is None else wait_s
        wait_s = fleet.wait_s(wait_s, await self._time_left())
        self._log.info("gang_draining", gang=self._gang_id, wait_s=wait_s)
        for channel in self._channels:
            channel.drain(wait_s)
        try:
            async with asyncio.timeout(max(fleet_spec.drain_s, wait_s)):
                await asyncio.sleep(TOLD_BEATS * self._spec.channel.heartbeat_s)
                await self._idle()
            self._log.info("gang_drained", gang=self._gang_id)
        except TimeoutError:
            self._log.warning("gang_drain_timed_out", gang=self._gang_id)

    async def _time_left(self) -> float | None:
        """Until a node of the gang will be taken away; None: nobody has said, or cannot now."""
        try:
            return await asyncio.to_thread(left_s, self._members[0].nodes)
        except (RayError, RuntimeError) as error:
            self._log.warning("deadline_unknown", gang=self._gang_id, cause=str(error))
            return None

    async def _idle(self) -> None:
        """Until no rank has a request, nor, for a while, holds KV that nobody has read yet."""
        now = asyncio.get_running_loop().time
        held_until = now() + HELD_S
        while True:
            if any(map(_busy, self._channels)):
                held_until = now() + HELD_S
            elif now() >= held_until or not any(map(_holds_kv, self._channels)):
                return
            await asyncio.sleep(self._spec.channel.heartbeat_s)  # the load comes no more often

    # --- life ----------------------------------------------------------------------------------

    async def _start(
        self, commands: tuple[NodeCommands, ...], nodes: list[NodeFacts]
    ) -> list[Ready]:
        """All nodes' processes at once; ready when every rank serves, failed when any process ends
        or a node falls silent.
        """
        self._log.info(
            "gang_starting",
            gang=self._gang_id,
            hosts=[node.host for node in nodes],
            commands=[command.argv for of_node in commands for command in of_node],
        )
        began_at = asyncio.get_running_loop().time()
        limit_s = self._model.engine.start_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await self._start_processes(commands)
                ready = await self._until_ready(nodes)
        except TimeoutError:
            raise EngineStartError(
                f"gang {self._gang_id} was not ready after {limit_s:g} s",
                f"read {self._log_paths(0, 1)[0]} or raise engine.start_timeout_s",
            ) from None
        for rank in ready:
            self._log.info(
                "rank_ready",
                gang=self._gang_id,
                rank=rank.rank,
                address=rank.address,
                metrics=rank.metrics,
                info=rank.info,
                phases_s=rank.phases_s,
            )
        self._log.info("gang_ready", gang=self._gang_id, **self._start_times(ready, began_at))
        return ready

    async def _start_processes(self, commands: tuple[NodeCommands, ...]) -> None:
        lease_s = LEASES * self._limits.cut_off_after_s
        target = Target("", "", self._model.name, self._role, self._gang_id)
        await asyncio.gather(
            *(
                agent.start.remote(of_node, self._log_paths(index, len(of_node)), lease_s, target)
                for index, (agent, of_node) in enumerate(zip(self._agents, commands, strict=True))
            )
        )

    def _start_times(self, ready: list[Ready], began_at: float) -> dict[str, object]:
        """How long the start took, and what was predicted of it if the storage's rate is known."""
        first = ready[0]
        times: dict[str, object] = {
            "start_s": round(asyncio.get_running_loop().time() - began_at, 1),
            "weights_bytes": first.weights_bytes,
            "loading_s": first.phases_s.get("loading weights"),
        }
        if (rate := self._model.engine.storage_bytes_per_s) is not None:
            of_node = first.weights_bytes / len(self._agents)
            times["predicted_loading_s"] = round(load_s(of_node, rate), 1)
            times["predicted_start_s"] = round(start_s(of_node, rate), 1)
        return times

    async def _describe(self) -> list[NodeFacts]:
        ports = ports_per_node(self._model, self._role)
        try:
            async with asyncio.timeout(DESCRIBE_S):
                facts: list[NodeFacts] = await asyncio.gather(
                    *(agent.describe.remote(ports) for agent in self._agents)
                )
                return facts
        except TimeoutError:
            raise EngineStartError(
                f"an agent on a node of gang {self._gang_id} did not start in {DESCRIBE_S:g} s",
                "look for the node's troubles in Ray's dashboard",
            ) from None

    async def _until_ready(self, nodes: list[NodeFacts]) -> list[Ready]:
        """Every rank's answer; raises EngineStartError as soon as a process of any node ends, or a
        node does not answer for `cut_off_after_s`.
        """
        try:
            async with asyncio.TaskGroup() as group:
                watchers = [
                    group.create_task(watch)
                    for index, agent in enumerate(self._agents)
                    for watch in (
                        _must_not_end(nodes[index], agent),
                        self._must_answer(index, nodes[index]),
                    )
                ]
                answers = await asyncio.gather(*(agent.ready.remote() for agent in self._agents))
                for task in watchers:
                    task.cancel()
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [rank for of_node in answers for rank in of_node]

    async def _must_answer(self, index: int, node: NodeFacts) -> None:
        cause = await self._silence(index, node)
        raise EngineStartError(
            f"node {node.host} of gang {self._gang_id}: {cause}",
            "look at the node, and at the network between the gang's nodes",
        )

    async def _watch_processes(self, node: NodeFacts, agent: ActorHandle) -> None:
        try:
            cause = (await agent.ended.remote()).cause
        except RayError as error:
            cause = f"its agent is gone: {type(error).__name__}"
        await self._fail(fleet.Reason.RANK_EXITED, f"node {node.host}: {cause}")

    async def _watch_node(self, index: int, node: NodeFacts) -> None:
        cause = await self._silence(index, node)
        await self._fail(fleet.Reason.CUT_OFF, f"node {node.host}: {cause}")

    async def _silence(self, index: int, node: NodeFacts) -> str:
        """Asks a node's agent again and again, and returns, with the cause, when it has not
        answered for `cut_off_after_s`. Logs what its processes are doing as that changes.
        """
        state, now = fleet.Watch(), asyncio.get_running_loop().time
        known: Sequence[str] = ()
        while True:
            phases = await _phases(self._agents[index])
            if phases is not None and phases != known:
                known = phases
                self._log.info(
                    "engine_phases", gang=self._gang_id, host=node.host, phases=list(phases)
                )
            seen = fleet.Observation(heard=phases is not None)
            verdict, state = fleet.watch(self._limits, state, seen, now())
            if verdict.dead:
                self._unheard.add(index)
                return verdict.cause
            await asyncio.sleep(WATCH_S)

    async def _watch_rank(self, rank_id: RankId, channel: RankChannel) -> None:
        """Judges one rank's progress; the process watchers see what ends at once."""
        state, now = fleet.Watch(), asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(WATCH_S)
            load = channel.load
            if load is None:
                continue  # the first connection is not a second old
            heard = channel.state is ChannelState.OPEN
            seen = fleet.Observation(load.running + load.waiting, load.steps, heard)
            verdict, state = fleet.watch(self._limits, state, seen, now())
            if verdict.dead:
                await self._fail(verdict.reason, f"rank {rank_id}: {verdict.cause}")

    async def _fail(self, reason: fleet.Reason, cause: str) -> None:
        """Takes the whole gang down, then this replica, which Serve then replaces at once."""
        if self._failure is not None:
            return
        self._failure = cause
        self._log.error("gang_failed", gang=self._gang_id, reason=reason, cause=cause)
        await self._stop_agents()
        os._exit(1)

    async def _stop_agents(self) -> None:
        heard = [agent for at, agent in enumerate(self._agents) if at not in self._unheard]
        try:
            async with asyncio.timeout(STOP_S):
                await asyncio.gather(
                    *(agent.stop.remote() for agent in heard), return_exceptions=True
                )
        except TimeoutError:
            self._log.warning("gang_stop_timed_out", gang=self._gang_id)  # the keepers go on

    def _channel(self, member: Member) -> RankChannel:
        return RankChannel(
            member.address,
            self._gang_id,
            gateway_id=f"watch-of-{member.rank_id}",
            limits=ChannelLimits(
                heartbeat_s=self._spec.channel.heartbeat_s,
                lost_after_s=self._spec.channel.lost_after_s,
            ),
        )

    def _log_paths(self, node: int, processes: int) -> tuple[str, ...]:
        """Of the engine processes of a node."""
        base = f"engine-{self._gang_id}-node{node}"
        names = [base] if processes == 1 else [f"{base}-{at}" for at in range(processes)]
        return tuple(str(Path(self._spec.log_dir) / f"{name}.log") for name in names)


def _busy(channel: RankChannel) -> bool:
    if channel.state is not ChannelState.OPEN:
        return False
    return channel.load is None or channel.load.running + channel.load.waiting > 0


def _holds_kv(channel: RankChannel) -> bool:
    load = channel.load
    return channel.state is ChannelState.OPEN and load is not None and load.kv_usage > 0


async def _phases(agent: ActorHandle) -> tuple[str, ...] | None:
    """What the node's processes are doing, or None if it does not say."""
    try:
        async with asyncio.timeout(WATCH_S):
            phases: tuple[str, ...] = await agent.phases.remote()
            return phases
    except (TimeoutError, RayError):
        return None


async def _must_not_end(node: NodeFacts, agent: ActorHandle) -> None:
    ended = await agent.ended.remote()
    raise EngineStartError(f"node {node.host}: {ended.cause}", ended.cure)


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


def _log_path(spec: Spec, gang_id: str) -> Path:
    return Path(spec.log_dir) / f"gang-{gang_id}.log"
