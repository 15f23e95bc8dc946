"""Names of what the rooms talk about, each a type of its own: none is passed for another."""

from typing import NewType

RequestId = NewType("RequestId", str)  # one completion call, unique for ever (UUIDv4)
RankId = NewType("RankId", str)  # one routable rank: "<gang id>/<dp rank>"
GangId = NewType("GangId", str)  # one life of one gang; a restarted gang has a new one
NodeId = NewType("NodeId", str)  # one host of the cluster
