"""`r1-serve up`: all of r1-serve on this machine, kept so that nothing stays behind."""

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from orchestrator.core import SpecError
from orchestrator.core.arguments import count
from orchestrator.spec import (
    EngineKind,
    SourceKind,
    Spec,
    load_spec,
    local_spec,
    parse_plan,
    read_text,
    simulated,
    source_of,
)

STATE = Path(".r1-serve")  # what `up` makes: checkpoints; below the current folder


def add_up(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.description = (
        "Starts a local Ray cluster of simulated nodes with fake GPUs and serves on it: HAProxy, "
        "gateways, a prefill and a decode pool. Without --spec the engine is vLLM on the CPU with "
        "r1-nano, a tiny model of R1's architecture that thinks about small sums."
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--spec", type=Path, metavar="FILE", help="what to serve; YAML")
    what.add_argument(
        "--plan", type=Path, metavar="FILE", help="values of `r1-serve plan`: its pools and gangs"
    )
    parser.add_argument(
        "--engine", type=EngineKind, choices=list(EngineKind), help="without --spec"
    )
    parser.add_argument("--nodes", type=count, metavar="N", help="simulated nodes (default 3)")
    parser.add_argument("--port", type=_port, metavar="PORT", help="of the API (default 8000)")
    parser.add_argument("--log-dir", metavar="DIR", help="default logs/")
    parser.add_argument("--began-at", type=float, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)  # given to the process that is kept
    parser.set_defaults(run=_up)


def _up(options: argparse.Namespace) -> int:
    if options.folder is None:
        return _keep(options)
    spec = _up_spec(options)
    from orchestrator.runtime.local import run_local  # imports Ray: only for what can be read

    out = sys.stdout
    Path(spec.log_dir).mkdir(parents=True, exist_ok=True)
    # Ray reports on its workers at length; what matters of it comes as our own errors.
    with (
        Path(spec.log_dir, "ray.log").open("a", encoding="utf-8") as ray_log,
        contextlib.redirect_stdout(ray_log),
        contextlib.redirect_stderr(ray_log),
    ):
        run_local(
            spec,
            Path(options.folder),
            lambda line: print(line, file=out, flush=True),
            options.began_at,
        )
    return 0


def _keep(options: argparse.Namespace) -> int:
    """Runs this command again below a keeper, so that whatever happens no process stays behind."""
    from orchestrator.runtime import namespaces
    from orchestrator.runtime.keeper import Keeper

    # Made and removed here, where nobody writes into it any more; short, for socket paths.
    _remove_stale_folders()
    folder = tempfile.mkdtemp(prefix=f"r1-{os.getpid()}-", dir="/tmp")
    began_at = options.began_at or time.time()
    command = [sys.executable, "-m", "orchestrator.cli", "up"]
    command += ["--folder", folder, "--began-at", str(began_at)]
    for flag in ("--spec", "--plan", "--engine", "--nodes", "--port", "--log-dir"):
        if (value := getattr(options, flag[2:].replace("-", "_"))) is not None:
            command += (flag, str(value))
    try:
        return Keeper(command, grace_s=30.0, watch_stdin=False).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        namespaces.remove(os.getpid())


def _remove_stale_folders() -> None:
    """Those of runs that were killed with their keeper."""
    for folder in Path("/tmp").glob("r1-*-*"):
        owner = folder.name.split("-")[1]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _up_spec(options: argparse.Namespace) -> Spec:
    if options.spec is not None:
        if options.engine is not None:
            raise SpecError("--engine beside --spec", "set engine.kind in the spec")
        spec = load_spec(options.spec)
    elif options.plan is not None:
        spec = _planned(options.plan, options.engine)
    else:
        kind = options.engine or EngineKind.VLLM
        path = _tiny_checkpoint(weights=kind is EngineKind.VLLM)
        spec = local_spec(kind, options.nodes or 3, str(path))
    if options.nodes is not None:
        spec = replace(spec, local=replace(spec.local, nodes=options.nodes))
    if options.port is not None:
        spec = replace(spec, gateway=replace(spec.gateway, port=options.port))
    log_dir = Path(options.log_dir or spec.log_dir).absolute()
    return with_absolute_paths(replace(spec, log_dir=str(log_dir)))


def with_absolute_paths(spec: Spec) -> Spec:
    """The same checkpoints and keys, named so that every process finds them."""
    models = tuple(replace(m, path=_absolute(m.path)) for m in spec.models)
    api = replace(
        spec.api,
        keys_path=_from_anywhere(spec.api.keys_path),
        tenants_path=_from_anywhere(spec.api.tenants_path),
    )
    usage = replace(spec.usage, dir=_from_anywhere(spec.usage.dir))
    return replace(spec, models=models, api=api, usage=usage)


def _from_anywhere(path: str | None) -> str | None:
    return path and str(Path(path).absolute())


def _absolute(path: str) -> str:
    """Folders from here on seen from anywhere; other places of checkpoints as they are."""
    here = source_of(path).kind is SourceKind.FOLDER
    return str(Path(path).absolute()) if here else path


def _planned(path: Path, kind: EngineKind | None) -> Spec:
    """The plan's pools, gangs and nodes with engines that need no GPU."""
    spec = parse_plan(read_text(path, "plan"), str(path))
    if kind is None:
        raise SpecError(
            f"{path} is a plan for GPUs, and `up` has simulated nodes",
            "give --engine fake, which runs its pools, gangs and nodes with fake engines",
        )
    checkpoint = _tiny_checkpoint(weights=kind is EngineKind.VLLM)
    return simulated(spec, kind, str(checkpoint))


def _tiny_checkpoint(*, weights: bool) -> Path:
    """The default model's folder, made if it is not there; only the tokenizer without `weights`."""
    from orchestrator.engines import tiny_checkpoint

    if not weights:
        out = STATE / "tokenizer"
        if not (out / "tokenizer.json").exists():
            tiny_checkpoint.write_tokenizer(out)
        return out
    out = STATE / "r1-nano"
    if not (out / "config.json").exists():
        tiny_checkpoint.write_tiny_checkpoint(out, tiny_checkpoint.CheckpointKind.NANO)
    return out


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no TCP port: give one from 1 to 65535")
    return int(text)
