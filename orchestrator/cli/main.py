"""`r1-serve`: reads arguments, hands over to a command, turns errors into one message."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from orchestrator import __version__
from orchestrator.cli.accuracy import add_accuracy
from orchestrator.cli.apply import add_apply
from orchestrator.cli.bench_routing import add_bench
from orchestrator.cli.dashboards import add_dashboards
from orchestrator.cli.doctor import add_doctor
from orchestrator.cli.drain import add_drain
from orchestrator.cli.drill import add_drill
from orchestrator.cli.fetch import add_fetch
from orchestrator.cli.fit import add_fit
from orchestrator.cli.gateway import add_gateway
from orchestrator.cli.maintain import add_maintain
from orchestrator.cli.plan import add_plan
from orchestrator.cli.replay import add_replay
from orchestrator.cli.simulate import add_simulate
from orchestrator.cli.telemetry import add_telemetry
from orchestrator.cli.up import add_up
from orchestrator.cli.usage import add_usage
from orchestrator.cli.why import add_why
from orchestrator.core import R1ServeError, SpecError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0 if it did what it should, 1 if not, 2 if the arguments make no sense.

    For commands that only compute, wrong input files are such arguments: `spec_error_code`.
    """
    options = _parser().parse_args(argv)
    try:
        code: int = options.run(options)
    except R1ServeError as error:
        print(f"r1-serve: {error.cause}", file=sys.stderr)
        if error.cure:
            print(f"      do: {error.cure}", file=sys.stderr)
        return options.spec_error_code if isinstance(error, SpecError) else 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="r1-serve", description="Serves DeepSeek-R1 from your own GPU nodes."
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(spec_error_code=1)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_up(commands.add_parser("up", help="run all of it on this machine, without a GPU"))
    add_apply(commands.add_parser("apply", help="apply a changed spec to what runs"))
    add_drain(commands.add_parser("drain", help="end a gang, or what is on a node, in peace"))
    add_maintain(
        commands.add_parser("maintain", help="drain nodes before Kubernetes takes them away")
    )
    add_plan(
        commands.add_parser("plan", help="the layout for your GPUs: why, how fast, at what cost")
    )
    add_simulate(
        commands.add_parser("simulate", help="what would happen: a trace through a plan's fleet")
    )
    add_replay(commands.add_parser("replay", help="decide again what a log says was decided"))
    add_drill(commands.add_parser("drill", help="break something on purpose, and see who noticed"))
    add_doctor(commands.add_parser("doctor", help="prove that what is configured is really on"))
    add_why(commands.add_parser("why", help="why a request went where it went"))
    add_accuracy(commands.add_parser("accuracy", help="how far predictions are from measurements"))
    add_fit(commands.add_parser("fit", help="move the predictions' factors to measurements"))
    _add_checkpoint(
        commands.add_parser("checkpoint", help="write a tiny checkpoint of R1's architecture")
    )
    add_fetch(commands.add_parser("fetch", help="download a checkpoint before it is needed"))
    add_gateway(commands.add_parser("gateway", help="route to engines that run already"))
    add_dashboards(commands.add_parser("dashboards", help="the boards, for a Grafana"))
    add_telemetry(
        commands.add_parser("telemetry", help="one host's metrics at one port, and the boards")
    )
    _add_key(commands.add_parser("key", help="make an API key"))
    add_usage(commands.add_parser("usage", help="what tenants have used, by day and model"))
    add_bench(commands.add_parser("bench", help="measure one part, without an engine"))
    return parser


# --- checkpoint ----------------------------------------------------------------------------------


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes a checkpoint of DeepSeek-R1's exact architecture, small enough for a laptop, with "
        "R1's own tokenizer; or one of a distill's. The same kind and seed give the same bytes."
    )
    parser.add_argument("out", type=Path, help="the folder to write; replaced if it exists")
    parser.add_argument(
        "--kind",
        default="nano",
        choices=("nano", "random", "scripted", "tool", "qwen2", "llama"),
        help="trained weights, which think about small sums; random ones; ones that recite a "
        "thought and an answer, or a thought and a tool call; or random ones of the architecture "
        "of the Qwen or the Llama distills",
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
    parser.add_argument("tenant", help="whose key it is; may have several")
    parser.add_argument("--file", type=Path, required=True, metavar="FILE", help="made if missing")
    parser.set_defaults(run=_key)


def _key(options: argparse.Namespace) -> int:
    from orchestrator.gateway import key_line, new_key  # imports the HTTP side

    key = new_key()
    line = key_line(options.tenant, key)
    try:
        with options.file.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        options.file.chmod(0o600)
    except OSError as error:
        raise SpecError(f"cannot write {options.file}: {error.strerror}", "name another") from error
    print(key)
    return 0
