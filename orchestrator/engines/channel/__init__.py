"""The token channel between a gateway replica and an engine process.

One TCP connection carries all requests of that pair: per engine step one message with the new
tokens of every request, bounded credit, cancellation, heartbeats, exactly one end per request.
`gateway_side` and `engine_side` decide and do no I/O; `client` and `server` are their hosts.
"""

from orchestrator.engines.channel.client import ChannelState, RankChannel
from orchestrator.engines.channel.gateway_side import TokenSink
from orchestrator.engines.channel.limits import ChannelLimits
from orchestrator.engines.channel.server import ChannelServer

__all__ = ["ChannelLimits", "ChannelServer", "ChannelState", "RankChannel", "TokenSink"]
