"""HTTP: the DeepSeek API over the ranks of a fleet."""

from orchestrator.gateway.app import build_app
from orchestrator.gateway.direct import DirectProtocol
from orchestrator.gateway.keys import Keys, key_line, new_key, read_keys
from orchestrator.gateway.models import Models, load_tokenizers
from orchestrator.gateway.network import Member
from orchestrator.gateway.passthrough import Passthrough
from orchestrator.gateway.proxy import ProxyLimits
from orchestrator.gateway.supervisor import Supervisor

__all__ = [
    "DirectProtocol",
    "Keys",
    "Member",
    "Models",
    "Passthrough",
    "ProxyLimits",
    "Supervisor",
    "build_app",
    "key_line",
    "load_tokenizers",
    "new_key",
    "read_keys",
]
