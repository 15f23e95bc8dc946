"""Serve's request router of a pool, used only to be told which replicas the pool has.

No request ever goes through it: tokens flow over the token channel, which the members' addresses in
the replicas' metadata lead to. Serve pickles this module by value, so it keeps no state here.
"""

import msgspec
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from orchestrator.gateway import Member
from orchestrator.runtime import fleet_feed

MEMBERS = "members"  # key of the replica metadata


class FleetWatch(RequestRouter):  # type: ignore[misc]  # Ray is untyped here
    """Publishes each list of running replicas."""

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Called by Serve with every change, the first time with the list as it is."""
        super().update_replicas(replicas)
        members = [
            msgspec.convert(member, Member)
            for replica in replicas
            for member in replica.replica_metadata.get(MEMBERS, ())
        ]
        fleet_feed.publish(self._deployment_id.name, members)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Serve's calls to a pool, of which there are none, may go anywhere."""
        return [candidate_replicas]
