"""HTTP: the DeepSeek API over the ranks of a fleet."""

from orchestrator.gateway.app import build_app
from orchestrator.gateway.direct import DirectProtocol
from orchestrator.gateway.host import Host
from orchestrator.gateway.journal import UsageFound, read_usage
from orchestrator.gateway.keys import key_line, new_key, read_keys
from orchestrator.gateway.measures import Times
from orchestrator.gateway.models import Models, load_tokenizers
from orchestrator.gateway.network import Channel, Events, Member, Network
from orchestrator.gateway.passage import Passage
from orchestrator.gateway.passthrough import Passthrough
from orchestrator.gateway.process import settle
from orchestrator.gateway.proxy import ProxyLimits
from orchestrator.gateway.service import TICK_S, Service
from orchestrator.gateway.spending import Spending, work_s
from orchestrator.gateway.supervisor import Supervisor
from orchestrator.gateway.tenants import Tenants

__all__ = [
    "TICK_S",
    "Channel",
    "DirectProtocol",
    "Events",
    "Host",
    "Member",
    "Models",
    "Network",
    "Passage",
    "Passthrough",
    "ProxyLimits",
    "Service",
    "Spending",
    "Supervisor",
    "Tenants",
    "Times",
    "UsageFound",
    "build_app",
    "key_line",
    "load_tokenizers",
    "new_key",
    "read_keys",
    "read_usage",
    "settle",
    "work_s",
]
