"""`r1-serve gateway`: a gateway alone, in front of engines that run already."""

import argparse
import asyncio
import signal
from contextlib import ExitStack, closing
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from orchestrator.core import PortInUseError, RankId, Role, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from orchestrator.telemetry import Log

    LogTo = Callable[[str], Log]
    Serving = Coroutine[None, None, None]


def add_gateway(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.description = (
        "Routes to engines with HTTP servers of their own, such as `vllm serve`, without Ray. "
        "Without --model, requests in the engines' own API are passed through; with it, clients "
        "see the DeepSeek API, and the engines get and return token ids."
    )
    parser.add_argument(
        "--engine-url", nargs="+", required=True, metavar="URL", help="http://HOST:PORT of each"
    )
    parser.add_argument("--model", type=Path, metavar="DIR", help="the folder of its tokenizer")
    parser.add_argument("--name", default="DeepSeek-R1-0528", help="of the catalogue; with --model")
    parser.add_argument("--host", default="127.0.0.1", help="to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="to listen on (default 8000)")
    parser.add_argument("--keys", metavar="FILE", help="hashed API keys; with --model")
    parser.add_argument("--tenants", metavar="FILE", help="limits of their tenants; with --keys")
    parser.add_argument("--usage-dir", metavar="DIR", help="of the usage journal; with --model")
    parser.add_argument("--log-dir", type=Path, default=Path("logs"), metavar="DIR")
    parser.set_defaults(run=_gateway)


def _gateway(options: argparse.Namespace) -> int:
    servers = [_server(url) for url in options.engine_url]
    if len(set(servers)) < len(servers):
        raise SpecError("an --engine-url stands there twice", "name each engine once")
    import uvloop  # not with the options: `r1-serve --help` is to be quick

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options, servers))
    return 0


def _server(url: str) -> str:
    """HOST:PORT of an engine's URL."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "http" or not parts.hostname or port is None or parts.path.strip("/"):
        raise SpecError(
            f"--engine-url {url} is not http://HOST:PORT", "give the engine's address, without /v1"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}"


async def _serve(options: argparse.Namespace, servers: list[str]) -> None:
    from orchestrator.engines.channel.sockets import bound_socket
    from orchestrator.gateway import settle
    from orchestrator.telemetry import open_log

    options.log_dir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:

        def log_to(name: str) -> "Log":
            return stack.enter_context(closing(open_log("gateway", options.log_dir / name)))

        try:
            sock = stack.enter_context(bound_socket(options.host, options.port))
        except OSError as error:
            raise PortInUseError(
                f"cannot listen on {options.host}:{options.port}: {error.strerror}",
                "stop what owns the port, or choose another with --port",
            ) from error
        if options.model is None:
            serving = _passthrough(servers, log_to, sock)
        else:
            serving = _deepseek(options, servers, log_to, sock)
        print(
            f"http://{options.host}:{options.port} in front of {len(servers)} engines", flush=True
        )
        settle()
        await serving


def _passthrough(servers: list[str], log_to: "LogTo", sock: socket) -> "Serving":
    from orchestrator.gateway import Passthrough, ProxyLimits
    from orchestrator.routing import DEFAULT_COSTS

    passthrough = Passthrough(servers, DEFAULT_COSTS, ProxyLimits(), log_to("gateway.log"))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, passthrough.stop)
    return passthrough.serve(sock)


def _deepseek(
    options: argparse.Namespace, servers: list[str], log_to: "LogTo", sock: socket
) -> "Serving":
    import uvicorn

    from orchestrator.gateway import (
        DirectProtocol,
        Member,
        Models,
        Tenants,
        build_app,
        load_tokenizers,
    )
    from orchestrator.spec import (
        CATALOGUE,
        ApiSpec,
        GatewaySpec,
        ModelSpec,
        PoolSpec,
        Spec,
        UsageSpec,
    )

    if options.name not in CATALOGUE:
        raise SpecError(
            f"--name {options.name} is not in the catalogue", f"name one of {', '.join(CATALOGUE)}"
        )
    model = ModelSpec(str(options.model), (PoolSpec(Role.UNIFIED),), options.name)
    if options.tenants is not None and options.keys is None:
        raise SpecError("--tenants: nobody can prove to be a tenant", "give --keys too")
    spec = Spec(
        (model,),
        api=ApiSpec(keys_path=options.keys, tenants_path=options.tenants),
        gateway=GatewaySpec(replicas=1),
        usage=UsageSpec(options.usage_dir),
        log_dir=str(options.log_dir),
    )
    tokenizers = load_tokenizers(spec)
    log = log_to("gateway.log")
    models = Models(spec, "gateway", tokenizers, log, log_to("decisions-gateway.jsonl"))
    members = [
        Member(RankId(server), Role.UNIFIED, f"http://{server}", server) for server in servers
    ]
    app = build_app(
        models,
        Tenants(spec, "gateway", models.metrics, log),
        on_start=lambda: models.update_pool(model.name, Role.UNIFIED, members),
    )
    config = uvicorn.Config(app, http=DirectProtocol, log_config=None, lifespan="on", ws="none")
    return uvicorn.Server(config).serve([sock])
