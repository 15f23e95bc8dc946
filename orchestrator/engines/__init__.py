"""Engines, and the token channel that gateways reach them by. Importing it loads no model code."""

from orchestrator.engines.channel import (
    ChannelLimits,
    ChannelServer,
    ChannelState,
    RankChannel,
    TokenSink,
)
from orchestrator.engines.engine import (
    End,
    Engine,
    EngineInfo,
    EngineLoad,
    Finish,
    Grammar,
    GrammarKind,
    KvEventSource,
    KvPair,
    KvParams,
    KvSource,
    Listener,
    Sampling,
    Submit,
    TokenLogprob,
)
from orchestrator.engines.fake_engine import Author, FakeEngine
from orchestrator.engines.fake_script import FakeEngineSpec, FakeScript
from orchestrator.engines.link import EngineLink

__all__ = [
    "Author",
    "ChannelLimits",
    "ChannelServer",
    "ChannelState",
    "End",
    "Engine",
    "EngineInfo",
    "EngineLink",
    "EngineLoad",
    "FakeEngine",
    "FakeEngineSpec",
    "FakeScript",
    "Finish",
    "Grammar",
    "GrammarKind",
    "KvEventSource",
    "KvPair",
    "KvParams",
    "KvSource",
    "Listener",
    "RankChannel",
    "Sampling",
    "Submit",
    "TokenLogprob",
    "TokenSink",
]
