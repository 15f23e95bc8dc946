"""What `python -m loadtest` does: reads options, looks ahead, runs, writes."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import gevent
import msgspec

from loadtest.capacity import Limits as SearchLimits
from loadtest.capacity import Search
from loadtest.distributed import WorkerPlayers, add_worker
from loadtest.drive import Driver
from loadtest.load import Load, LoadSpec, read_load
from loadtest.local import LocalPlayer
from loadtest.options import add_find_capacity, add_run
from loadtest.play import Player
from loadtest.preflight import check_target, overhead_tokens, probe, resolved
from loadtest.result import VERSION, Result, Slo
from loadtest.scrape import Scraper
from loadtest.shapes import Shape, made
from loadtest.target import Target, target_of
from orchestrator.core import R1ServeError, SpecError

_WINDOW_LEAST_S = 10.0
_WINDOWS = 30


def main(argv: Sequence[str]) -> int:
    """One command; its exit code."""
    options = _parser().parse_args(argv)
    try:
        code: int = options.do(options, list(argv))
    except R1ServeError as error:
        sys.stderr.write(f"loadtest: {error.cause}\n")
        if error.cure:
            sys.stderr.write(f"      do: {error.cure}\n")
        return 2 if isinstance(error, SpecError) else 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtest")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="send a load and measure")
    add_run(run)
    run.set_defaults(do=_run)
    find = commands.add_parser("find-capacity", help="the highest load that keeps its bounds")
    add_find_capacity(find)
    find.set_defaults(do=_find_capacity)
    add_worker(commands.add_parser("worker"))
    return parser


def _run(options: argparse.Namespace, argv: list[str]) -> int:
    load, target = _ready(options)
    shape, count = _shape(options, load)
    window_s = options.window_s or max(_WINDOW_LEAST_S, shape.end_s / _WINDOWS)
    if options.settle_s >= shape.end_s:
        raise SpecError(
            f"--settle-s {options.settle_s:g} is as long as the load itself, {shape.end_s:.4g} s",
            "settle for less, or load for longer",
        )
    spans = shape.spans(window_s, options.settle_s)
    driver = _driver(options, argv, load, target)
    return _driven(options, driver, lambda: driver.run(shape, spans, count))


def _find_capacity(options: argparse.Namespace, argv: list[str]) -> int:
    if options.ttft_s is None and options.itl_s is None and options.e2e_s is None:
        raise SpecError(
            "nothing is asked of the answers, so that any load keeps it",
            "give --ttft-s, --itl-s or --e2e-s",
        )
    load, target = _ready(options)
    alone = probe(target, load.prompter(), load.typical, options.timeout_s)
    given = {
        "window_s_min": options.window_s,
        "within": options.within,
        "windows_max": options.windows_most,
    }
    limits = SearchLimits(**{name: value for name, value in given.items() if value is not None})
    search = Search(_slo(options), options.start_rate or load.own_per_s, limits)
    driver = _driver(options, argv, load, target)
    code = _driven(options, driver, lambda: driver.find_capacity(search, alone.e2e_s))
    return code if driver.result.capacity is not None else 1


# --- before the load -----------------------------------------------------------------------------


def _ready(options: argparse.Namespace) -> tuple[Load, Target]:
    """Everything that can be wrong is found here."""
    salt = options.salt if options.salt is not None else f"{time.time_ns():x}"
    spec = LoadSpec(
        workload="" if options.trace else options.workload or "chat",
        trace=options.trace or "",
        limit=options.limit,
        gap_cv=options.gap_cv,
        seed=options.seed,
        salt=salt,
        model=options.model,
    )
    load = read_load(spec)
    _writable(options.out)
    target = resolved(
        target_of(options.url, key_of(options), options.ca, insecure=options.insecure)
    )
    check_target(target, options.model)
    overhead = overhead_tokens(target, load.prompter(), options.timeout_s)
    return replace(load, spec=msgspec.structs.replace(spec, overhead_tokens=overhead)), target


def key_of(options: argparse.Namespace) -> str:
    """The API key, from a file or the environment; empty without either."""
    if options.key_env:
        key = os.environ.get(options.key_env, "")
        if not key:
            raise SpecError(f"--key-env {options.key_env}: it is not set", "export it")
        return key.strip()
    if options.key_file is None:
        return ""
    try:
        key = Path(options.key_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"--key-file {options.key_file}: {error}", "name a readable file") from None
    if not key:
        raise SpecError(f"--key-file {options.key_file} is empty", "put the API key into it")
    return key


def _writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "result.json.part").write_bytes(b"")
        (out / "result.json.part").unlink()
    except OSError as error:
        raise SpecError(f"--out {out}: {error.strerror}", "name a folder to write to") from None


def _slo(options: argparse.Namespace) -> Slo:
    return Slo(options.ttft_s, options.itl_s, options.e2e_s, options.share)


def _shape(options: argparse.Namespace, load: Load) -> tuple[Shape, int | None]:
    """The shape, and how many requests of a trace there are in it."""
    own_per_s = load.own_per_s
    if options.factor is not None and load.trace is None:
        raise SpecError("--factor is of a trace's rate, and there is no trace", "give --rate")
    rate = options.rate or (None if own_per_s is None else own_per_s * (options.factor or 1.0))
    if rate is None:
        raise SpecError("no rate is given", "give --rate, in requests per second")
    duration_s = options.duration_s
    count = None
    if load.trace is not None and duration_s is None:
        count = len(load.trace.requests)
        duration_s = count / rate
    duration_s = duration_s or 60.0
    low = options.low_rate or rate / 5
    return made(options.shape, low, rate, duration_s), count


# --- the run -------------------------------------------------------------------------------------


def _driver(options: argparse.Namespace, argv: list[str], load: Load, target: Target) -> Driver:
    result = Result(
        version=VERSION,
        began_at=datetime.now(UTC).isoformat(timespec="seconds"),
        url=options.url,
        model=options.model,
        workload=load.name,
        command=["python", "-m", "loadtest", *argv],
        seed=options.seed,
        workers=options.workers,
        slo=_slo(options),
        windows=[],
    )
    player: Player
    if options.workers > 1:
        player = WorkerPlayers(options, load.spec, target, options.workers)
    else:
        player = LocalPlayer(target, load)
    scraper = None
    if options.metrics_url:
        metrics = resolved(
            target_of(options.metrics_url, "", options.ca, insecure=options.insecure)
        )
        scraper = Scraper(metrics, player.now)
    return Driver(player, load, result, options.timeout_s, scraper, _say)


def _driven(options: argparse.Namespace, driver: Driver, do: Callable[[], None]) -> int:
    """Runs it to its end or to the signal that stops it; writes what there is."""
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, driver.stop)
    try:
        do()
    finally:
        driver.player.close()
        if driver.scraper is not None:
            driver.scraper.close()
        write(driver.result, options.out / "result.json")
    if driver.scraper is not None and driver.scraper.failed:
        _say(f"{driver.scraper.failed} scrapes of --metrics-url failed")
    _say(f"written: {options.out / 'result.json'}")
    return 130 if driver.stopped else 0


def write(result: Result, path: Path) -> None:
    """Replaces the file as a whole."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1))
    part.replace(path)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
