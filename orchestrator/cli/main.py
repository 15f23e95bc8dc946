"""`r1-serve`: reads arguments, hands over to a command, turns errors into one message."""

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator import __version__
from orchestrator.cli.bench_routing import add_bench
from orchestrator.core import R1ServeError, SpecError
from orchestrator.gateway import key_line, new_key
from orchestrator.spec import EngineKind, Spec, load_spec, local_spec

STATE = Path(".r1-serve")  # what `up` makes: checkpoints; below the current folder


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0 if it did what it should, 1 if not, 2 if the arguments make no sense."""
    options = _parser().parse_args(argv)
    try:
        code: int = options.run(options)
    except R1ServeError as error:
        print(f"r1-serve: {error.cause}", file=sys.stderr)
        if error.cure:
            print(f"      do: {error.cure}", file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="r1-serve", description="Serves DeepSeek-R1 from your own GPU nodes."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_up(commands.add_parser("up", help="run all of it on this machine, without a GPU"))
    _add_checkpoint(
        commands.add_parser("checkpoint", help="write a tiny checkpoint of R1's architecture")
    )
    _add_key(commands.add_parser("key", help="make an API key"))
    add_bench(commands.add_parser("bench", help="measure one part, without an engine"))
    return parser


# --- up ------------------------------------------------------------------------------------------


def _add_up(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Starts a local Ray cluster of simulated nodes with fake GPUs and serves on it: HAProxy, "
        "gateways, a prefill and a decode pool. Without --spec the engine is vLLM on the CPU with "
        "a tiny checkpoint of R1's architecture that recites a fixed text."
    )
    parser.add_argument("--spec", type=Path, metavar="FILE", help="what to serve; YAML")
    parser.add_argument(
        "--engine", type=EngineKind, choices=list(EngineKind), help="without --spec"
    )
    parser.add_argument("--nodes", type=_count, metavar="N", help="simulated nodes (default 3)")
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
    from orchestrator.runtime.keeper import Keeper

    # Made and removed here, where nobody writes into it any more; short, for socket paths.
    folder = tempfile.mkdtemp(prefix="r1-", dir="/tmp")
    began_at = options.began_at or time.time()
    command = [sys.executable, "-m", "orchestrator.cli", "up"]
    command += ["--folder", folder, "--began-at", str(began_at)]
    for flag in ("--spec", "--engine", "--nodes", "--port", "--log-dir"):
        if (value := getattr(options, flag[2:].replace("-", "_"))) is not None:
            command += (flag, str(value))
    try:
        return Keeper(command, grace_s=30.0, watch_stdin=False).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _up_spec(options: argparse.Namespace) -> Spec:
    if options.spec is not None:
        if options.engine is not None:
            raise SpecError("--engine beside --spec", "set engine.kind in the spec")
        spec = load_spec(options.spec)
    else:
        kind = options.engine or EngineKind.VLLM
        path = _tiny_checkpoint(weights=kind is EngineKind.VLLM)
        spec = local_spec(kind, options.nodes or 3, str(path))
    if options.nodes is not None:
        spec = replace(spec, local=replace(spec.local, nodes=options.nodes))
    if options.port is not None:
        spec = replace(spec, gateway=replace(spec.gateway, port=options.port))
    log_dir = Path(options.log_dir or spec.log_dir).absolute()
    models = tuple(replace(m, path=str(Path(m.path).absolute())) for m in spec.models)
    keys_path = spec.api.keys_path and str(Path(spec.api.keys_path).absolute())
    api = replace(spec.api, keys_path=keys_path)
    return replace(spec, log_dir=str(log_dir), models=models, api=api)


def _tiny_checkpoint(*, weights: bool) -> Path:
    """The default model's folder, made if it is not there; only the tokenizer without `weights`."""
    from orchestrator.engines import tiny_checkpoint

    if not weights:
        out = STATE / "tokenizer"
        if not (out / "tokenizer.json").exists():
            tiny_checkpoint.write_tokenizer(out)
        return out
    out = STATE / "tiny-scripted"
    if not (out / "config.json").exists():
        tiny_checkpoint.write_tiny_checkpoint(out, tiny_checkpoint.CheckpointKind.SCRIPTED)
    return out


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no TCP port: give one from 1 to 65535")
    return int(text)


# --- checkpoint ----------------------------------------------------------------------------------


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes a checkpoint of DeepSeek-R1's exact architecture, small enough for a laptop, with "
        "R1's own tokenizer. The same seed gives the same bytes."
    )
    parser.add_argument("out", type=Path, help="the folder to write; replaced if it exists")
    parser.add_argument(
        "--kind",
        default="scripted",
        choices=("random", "scripted", "tool"),
        help="random weights; weights that recite a thought and an answer; or a tool call",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=_checkpoint)


def _checkpoint(options: argparse.Namespace) -> int:
    from orchestrator.engines.tiny_checkpoint import CheckpointKind, write_tiny_checkpoint

    report = write_tiny_checkpoint(options.out, CheckpointKind(options.kind), options.seed)
    print(
        f"{report.path}: {report.kind}, {report.params / 1e6:.1f} M parameters, "
        f"{report.weights_bytes / 2**20:.0f} MiB, sha256 {report.weights_sha256[:16]}"
    )
    return 0


# --- key -----------------------------------------------------------------------------------------


def _add_key(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Makes an API key, adds its hash to a file that `api.keys_path` of the spec names, and "
        "prints the key, which nobody can print again. Running gateways take it up within seconds."
    )
    parser.add_argument("account", help="whose key it is; may have several")
    parser.add_argument("--file", type=Path, required=True, metavar="FILE", help="made if missing")
    parser.set_defaults(run=_key)


def _key(options: argparse.Namespace) -> int:
    key = new_key()
    line = key_line(options.account, key)
    try:
        with options.file.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        options.file.chmod(0o600)
    except OSError as error:
        raise SpecError(f"cannot write {options.file}: {error.strerror}", "name another") from error
    print(key)
    return 0
