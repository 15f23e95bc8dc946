"""Streams while the fleet changes: a drain, a rolling upgrade, a scale-down, the death of a gang.

    python -m tests.live.drills --runs 20               # fake engines
    python -m tests.live.drills --runs 2 --engine vllm  # real vLLM with r1-nano

Clients stream all the time. Every stream that ran during a drill must end, and be to the byte what
an undisturbed one was.
"""

import argparse
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from orchestrator.engines.tiny_checkpoint import (
    CheckpointKind,
    write_tiny_checkpoint,
    write_tokenizer,
)
from orchestrator.spec import EngineKind, parse_spec
from tests.live.local_stack import LocalStack, local_stack, until
from tests.live.traffic import PAUSE_S, Tally, Told, Traffic

PAGE = Path("docs/drills-streams.md")
WHOLE_S = 240.0  # until the fleet is whole again
UNDER_WAY_S = 1.0  # that streams run before something happens to them
CLIENTS = 10
SPEC = """
models:
  - path: {path}
    name: DeepSeek-R1
    max_model_len: 2048
    engine: {engine}
    pools:
      - {{role: prefill, replicas: {prefill}}}
      - {{role: decode, replicas: {decode}}}
gateway: {{host: 127.0.0.1}}
api: {{honor_sampling: true}}
fleet: {{health_period_s: 1, start_attempts: 1, stuck_after_s: 60, drain_wait_s: 2, drain_s: 120}}
local: {{nodes: {nodes}, gpus_per_node: 1}}
"""
FAKE = "{{kind: fake, device: cpu, fake_step_s: {step_s}}}"
VLLM = (
    "{{kind: vllm, device: cpu, dtype: float32, start_timeout_s: 300, args: [--enforce-eager, "
    "--kv-cache-memory-bytes, '67108864', --max-num-seqs, '{seqs}']}}"
)


@dataclass(frozen=True)
class Setting:
    """What the drills run on."""

    kind: EngineKind
    prefill: int
    decode: int
    nodes: int
    questions: tuple[str, ...]
    pause_s: float  # of a client between two streams
    sampling: Mapping[str, object] = field(default_factory=lambda: {"temperature": 0})

    def spec(self, path: Path, *, variant: int = 0, decode: int | None = None) -> str:
        """The spec; another `variant` has engines that must be started anew."""
        if self.kind is EngineKind.FAKE:
            engine = FAKE.format(step_s=0.1 + variant / 1_000)
        else:
            engine = VLLM.format(seqs=16 + variant)
        return SPEC.format(
            path=path,
            engine=engine,
            prefill=self.prefill,
            decode=self.decode if decode is None else decode,
            nodes=self.nodes,
        )

    @property
    def whole(self) -> dict[str, int]:
        """The ranks of the fleet when nothing is amiss."""
        return {"prefill": self.prefill, "decode": self.decode}


# One node is free, so that an upgrade starts the new gang first in one pool, and not in the other.
SETTINGS = {
    EngineKind.FAKE: Setting(
        EngineKind.FAKE,
        prefill=1,
        decode=3,
        nodes=5,
        pause_s=PAUSE_S,
        questions=tuple(
            f"Client {n} asks: what was the weather like in the last hundred years? " * 4
            for n in range(CLIENTS)
        ),
    ),
    EngineKind.VLLM: Setting(
        EngineKind.VLLM,
        prefill=1,
        decode=2,
        nodes=4,
        pause_s=1.0,  # streams without a pause take the cores that new gangs start on
        questions=(
            "Tom has 29 apples and gets 35 more. How many apples does Tom have now?",
            "What is 17 + 25?",
            "What is 48 + 36?",
        ),
    ),
}


def setting_of(kind: EngineKind, drill: str) -> Setting:
    """What a drill runs on. An upgrade starts every gang anew, while the others serve: on two cores
    vLLM has one decode gang, and clients who pause for longer.
    """
    setting = SETTINGS[kind]
    if kind is EngineKind.VLLM and drill == "upgrade":
        return replace(setting, decode=1, nodes=3, pause_s=4.0)
    return setting


class Fleet:
    """A running stack, and an operator at it."""

    def __init__(self, setting: Setting, stack: LocalStack, checkpoint: Path) -> None:
        self.setting = setting
        self.stack = stack
        self._checkpoint = checkpoint
        self._variant = 0
        self._undisturbed: dict[str, Told] = {}

    def traffic(self) -> Traffic:
        """Clients who know what undisturbed streams of their questions are: learnt once."""
        setting = self.setting
        found = Traffic(
            self.stack.url, setting.questions, setting.sampling, setting.pause_s, self._undisturbed
        )
        if not self._undisturbed:
            found.learn()
        return found

    def await_whole(self) -> None:
        """Until every gang serves, at whichever gateway answers."""
        until(lambda: self.stack.ranks() == self.setting.whole, WHOLE_S)

    def decode_gangs(self) -> list[str]:
        """Their ids."""
        from orchestrator.runtime.drain import gangs

        return [gang.gang_id for gang in gangs() if gang.pool.endswith("-decode")]

    def apply(self, *, anew: bool = False, decode: int | None = None) -> None:
        """Applies a spec, with engines that must be started anew or another number of gangs."""
        self._variant += anew
        self.apply_text(self.spec(decode))

    def spec(self, decode: int | None = None) -> str:
        """What runs, or that with another number of decode gangs."""
        return self.setting.spec(self._checkpoint, variant=self._variant % 2, decode=decode)

    def apply_text(self, text: str) -> None:
        """Applies any spec."""
        from orchestrator.runtime.upgrade import upgrade

        upgrade(parse_spec(text), say=lambda line: print(f"    {line}", flush=True))


def drain(fleet: Fleet, run: int) -> None:
    """An operator drains a decode gang, which Serve then replaces."""
    from orchestrator.runtime import drain as operator

    gangs = fleet.decode_gangs()
    drained = operator.drain(gangs[run % len(gangs)])
    operator.await_gone(drained.gang_ids, WHOLE_S)


def upgrade(fleet: Fleet, run: int) -> None:
    """A changed spec replaces every gang and every gateway."""
    fleet.apply(anew=True)


def scale_down(fleet: Fleet, run: int) -> None:
    """The decode pool loses a gang, and gets it again."""
    fleet.apply(decode=fleet.setting.decode - 1)
    fleet.apply()


def kill(fleet: Fleet, run: int) -> None:
    """The engine process of a decode gang is killed."""
    pids = fleet.stack.engine_pids("decode")
    victim = pids[run % len(pids)]
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in fleet.stack.engine_pids("decode"), WHOLE_S)
    until(lambda: len(fleet.stack.engine_pids("decode")) >= fleet.setting.decode, WHOLE_S)


Drill = Callable[[Fleet, int], None]
DRILLS: Mapping[str, Drill] = {
    "drain": drain,
    "kill": kill,
    "scale-down": scale_down,
    "upgrade": upgrade,
}


@contextmanager
def fleet_of(setting: Setting, folder: Path) -> Iterator[Fleet]:
    """A stack in the folder, with this process as a driver of its cluster."""
    checkpoint = folder / "checkpoint"
    if setting.kind is EngineKind.FAKE:
        write_tokenizer(checkpoint)
    else:
        write_tiny_checkpoint(checkpoint, CheckpointKind.NANO)
    spec = folder / "spec.yaml"
    spec.write_text(setting.spec(checkpoint))
    with local_stack(folder, "--spec", str(spec), start_s=600.0) as stack:
        from orchestrator.runtime.attach import attached  # imports Ray

        address = re.search(r"Ray address\s+(\S+)", stack.said)
        assert address is not None
        with attached(address[1]):
            yield Fleet(setting, stack, checkpoint)


def run_drill(name: str, fleet: Fleet, runs: int) -> Iterator[tuple[int, Tally]]:
    """The drill again and again under streams that never cease, until one is not as it should be;
    after each, how often it ran, and what became of all streams.
    """
    traffic = fleet.traffic()
    traffic.start()
    total = Tally()
    for ran in range(1, runs + 1):
        time.sleep(UNDER_WAY_S)
        began_at = time.monotonic()
        DRILLS[name](fleet, ran - 1)
        fleet.await_whole()
        ended_at = time.monotonic()
        if ran < runs:
            traffic.settle(ended_at)
        else:
            traffic.stop()  # waits for the same streams, and begins no others
        tally = traffic.tally(began_at, ended_at)
        total.add(tally)
        print(
            f"  {name} {ran}/{runs}: {ended_at - began_at:.1f} s, {tally.streams} streams, "
            f"{len(tally.broken)} broken, {len(tally.different)} different, "
            f"longest pause {tally.pause_s:.1f} s",
            *tally.broken[:3],
            *tally.different[:3],
            flush=True,
        )
        yield ran, total
        if tally.broken or tally.different:
            break  # the rest would say the same
    traffic.stop()


@dataclass(frozen=True)
class Result:
    """One line of the page."""

    engine: str
    drill: str
    runs: int
    streams: int
    broken: int
    different: int
    pause_s: float


def of_drill(name: str, fleet: Fleet, runs: int, keeps: Callable[[Result], None] | None) -> Result:
    """What the drill came to. Kept after each run: what ran is not lost if the rest does not."""
    result = Result(fleet.setting.kind, name, 0, 0, 0, 0, 0.0)
    for ran, tally in run_drill(name, fleet, runs):
        broken, different = len(tally.broken), len(tally.different)
        pause_s = round(tally.pause_s, 1)
        result = Result(result.engine, name, ran, tally.streams, broken, different, pause_s)
        if keeps is not None:
            keeps(result)
    return result


def main(argv: list[str] | None = None) -> int:
    """Runs what is asked for, keeps the results; 1 if a stream was broken or different."""
    parser = argparse.ArgumentParser(prog="python -m tests.live.drills", description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--engine", type=EngineKind, choices=list(EngineKind), default="fake")
    parser.add_argument("--keep", action="store_true", help="the results, and write the page")
    parser.add_argument("--drill", action="append", choices=list(DRILLS), help="default: all")
    options = parser.parse_args(argv)
    failed = False
    drills = options.drill or list(DRILLS)
    for setting, names in groupby(drills, lambda name: setting_of(options.engine, name)):
        with (
            tempfile.TemporaryDirectory(prefix="drills-") as folder,
            fleet_of(setting, Path(folder)) as fleet,
        ):
            for name in names:
                result = of_drill(name, fleet, options.runs, keep if options.keep else None)
                print(result, flush=True)
                failed = failed or bool(result.broken or result.different) or not result.streams
    return 1 if failed else 0


def keep(result: Result) -> None:
    """Puts it on the page, in the place of an earlier one of its kind."""
    kept = kept_on(PAGE.read_text()) if PAGE.exists() else []
    place = (result.engine, result.drill)
    kept = [one for one in kept if (one.engine, one.drill) != place] + [result]
    order = {name: at for at, name in enumerate(DRILLS)}
    kept.sort(key=lambda one: (one.engine, order[one.drill]))
    PAGE.write_text(page(kept))


def kept_on(text: str) -> list[Result]:
    """The results that a page shows."""
    results = []
    for line in text.splitlines():
        engine, *cells = (cell.strip().replace(",", "") for cell in line.strip("|").split("|"))
        if engine in set(EngineKind):
            drill, runs, streams, broken, different, pause = cells
            counts = (int(runs), int(streams), int(broken), int(different))
            results.append(Result(engine, drill, *counts, float(pause.removesuffix(" s"))))
    return results


def page(results: list[Result]) -> str:
    """The page of all results."""
    rows = [
        f"| {one.engine} | {one.drill} | {one.runs} | {one.streams:,} | {one.broken} "
        f"| {one.different} | {one.pause_s:.1f} s |"
        for one in results
    ]
    return INTRODUCTION + "\n".join(rows) + "\n"


INTRODUCTION = """# Drills

Written by `make drills-streams`, which runs them; do not edit by hand.

Clients stream all the time while something happens to the fleet, on the real Serve stack with real
processes: ten that never pause with fake engines, three that pause for a second between two streams
with vLLM and r1-nano. Every stream that ran at any time during a run is counted. *Broken*: it did
not end as a stream does. *Different*: its text, its finish or its usage was not, to the byte, that
of an undisturbed stream of the same question. The pause is the longest between two pieces of any
stream. The fleet is a prefill gang and three decode gangs with fake engines, two with vLLM; for its
upgrades, which start all of them on the cores that serve, one, and clients pause for four seconds.

* **drain**: an operator drains a decode gang; what does not end within 2 s is moved; Serve starts
  its successor.
* **upgrade**: a changed spec replaces every gang of both pools, one after another, and both
  gateways.
* **scale-down**: the decode pool loses a gang, and gets it again.
* **kill**: the engine process of a decode gang is killed with SIGKILL.

The pauses are those of two shared cores that also start the new gangs; they say nothing of GPUs.

| engine | drill | runs | streams | broken | different | longest pause |
|---|---|---|---|---|---|---|
"""


if __name__ == "__main__":
    sys.exit(main())
