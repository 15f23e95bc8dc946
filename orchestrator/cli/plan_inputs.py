"""From the words of `r1-serve plan` to what is asked; every mistake is one SpecError."""

import argparse
import gzip
import io
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

from orchestrator.cli.figures_text import read_text
from orchestrator.core import SpecError
from orchestrator.perf import ARCHITECTURES, HARDWARE, EngineFamily, Gpu, Weight, read_factors
from orchestrator.placement import OF_CHOICE, Asked, Node, Objective, Reason, Slo
from orchestrator.spec import Fabric, load_inventory, parse_mapping
from orchestrator.workload import (
    PROFILES,
    Workload,
    changed,
    from_numbers,
    is_servegen,
    read_numbers,
    read_servegen,
    read_trace,
    split_numbers,
)

DEFAULT_MODEL = "DeepSeek-R1-0528"
CONTEXT_TOKENS = 131_072  # R1's advertised context
_SECONDS = {"s": 1.0, "ms": 1e-3}
_SLO_CURE = "give --slo ttft=2s,itl=50ms, or one of the two"


def asked_for(options: argparse.Namespace) -> Asked:
    """What the options ask for; raises SpecError."""
    gpu, nodes, fabric = _machines(options)
    model = ARCHITECTURES[_known("model", options.model, ARCHITECTURES)]
    weights = Weight(options.weights) if options.weights else _released(model.name)
    if options.price is not None and options.price < 0:
        raise SpecError(f"--price {options.price:g} is negative", "give US dollars a GPU-hour")
    return Asked(
        model=model,
        gpu=gpu,
        nodes=nodes,
        workload=read_workload(options.workload),
        slo=read_slo(options.slo),
        objective=Objective(options.objective),
        fabric=fabric,
        weights=weights,
        context_tokens=options.context or min(CONTEXT_TOKENS, model.context_tokens),
        price_per_hour=options.price,
        allowed=_allowed(options.allow),
        engine=EngineFamily(options.engine),
        factors=read_factors(read_text(options.factors)) if options.factors else None,
    )


def read_gpus(text: str) -> tuple[int | None, Gpu]:
    """The count, if there is one, and the GPU of "32xH200" or "H200"; raises SpecError."""
    found = re.fullmatch(r"(?:(\d+)\s*[xX×]\s*)?(\S+)", text.strip())
    if found is None:
        raise SpecError(f"--gpus {text}: not COUNTxGPU", "give for example --gpus 32xH200")
    count = None if found[1] is None else int(found[1])
    if count == 0:
        raise SpecError(f"--gpus {text}: no GPU at all", "give for example --gpus 32xH200")
    return count, HARDWARE[_known("GPU", found[2].upper(), HARDWARE)]


def read_slo(text: str | None) -> Slo:
    """The bounds of "ttft=2s,itl=50ms"; ITL and TPOT mean the same here; raises SpecError."""
    bounds: dict[str, float] = {}
    for part in text.split(",") if text else ():
        key, equals, value = (word.strip().lower() for word in part.partition("="))
        key = "itl" if key == "tpot" else key
        if not equals or key not in ("ttft", "itl"):
            raise SpecError(f"--slo {text}: {part.strip()!r} bounds no TTFT and no ITL", _SLO_CURE)
        found = re.fullmatch(r"([\d.]+)\s*(ms|s)", value)
        try:
            seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
        except ValueError:
            seconds = 0.0
        if seconds <= 0:
            raise SpecError(f"--slo {text}: {value!r} is no time in s or ms above 0", _SLO_CURE)
        if key in bounds:
            raise SpecError(f"--slo {text}: {key} is bounded twice", _SLO_CURE)
        bounds[key] = seconds
    return Slo(bounds.get("ttft"), bounds.get("itl"))


def read_workload(text: str) -> Workload:
    """The workload of a profile's name, a file, or numbers; numbers behind a name change it."""
    name, pairs = split_numbers(text)
    origin = f"--workload {text}"
    numbers = read_numbers(pairs, origin)
    if not name:
        return from_numbers(numbers, origin)
    if name in PROFILES:
        return changed(PROFILES[name], numbers, origin)
    path = Path(name)
    if not path.is_file():
        near = get_close_matches(name, PROFILES, 1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise SpecError(
            f"{origin}: no profile and no file is called {name}{hint}",
            f"give one of {', '.join(PROFILES)}, a trace file, or input=TOKENS,output=TOKENS",
        )
    return changed(_from_file(path), numbers, origin)


def _from_file(path: Path) -> Workload:
    """A trace, plain or gzip; ServeGen's files in a tar archive or as a folder's; or YAML."""
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        if tarfile.is_tarfile(io.BytesIO(raw)):
            return _from_archive(raw, path)
        text = raw.decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError, tarfile.TarError) as error:
        raise SpecError(
            f"cannot read {path}: {error}", "give a trace, plain or gzip, or a YAML file"
        ) from error
    if path.suffix in (".yaml", ".yml"):
        tree = parse_mapping(text, str(path), "give a mapping with `input` and `output`")
        return _from_yaml(tree, path)
    return read_trace(text.splitlines(), path.name)


def _from_yaml(tree: Mapping[str, object], path: Path) -> Workload:
    """`profile:` and numbers that change it, or numbers alone."""
    numbers = {key: value for key, value in tree.items() if key != "profile"}
    if "profile" not in tree:
        return from_numbers(read_numbers(numbers, str(path)), str(path))
    name = _known("profile", str(tree["profile"]), PROFILES)
    return changed(PROFILES[name], read_numbers(numbers, str(path)), str(path))


def _from_archive(raw: bytes, path: Path) -> Workload:
    files: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None:
                files[member.name] = content.read().decode("utf-8", "replace")
    if not is_servegen(list(files)):
        raise SpecError(f"{path} is an archive of something else", "give one of ServeGen's clients")
    return read_servegen(files, path.name)


def _machines(options: argparse.Namespace) -> tuple[Gpu, tuple[Node, ...], Fabric]:
    count, gpu = read_gpus(options.gpus) if options.gpus else (None, None)
    if options.inventory is None:
        if gpu is None or count is None:
            raise SpecError("no GPUs are given", "give --gpus COUNTxGPU, or --inventory FILE")
        return gpu, _usual_nodes(gpu, count), Fabric(options.fabric or Fabric.RDMA)
    inventory = load_inventory(options.inventory)
    kinds = Counter(_known("GPU", node.gpu.upper(), HARDWARE) for node in inventory.nodes)
    if gpu is None and len(kinds) > 1:
        raise SpecError(
            f"{options.inventory} has {', '.join(sorted(kinds))}: a plan is for one GPU type",
            f"choose with --gpus {max(sorted(kinds), key=lambda kind: kinds[kind])}",
        )
    gpu = gpu or HARDWARE[next(iter(kinds))]
    nodes = [
        Node(node.name, node.gpus, node.leaf, node.nvlink_domain, node.failure_domain)
        for node in inventory.nodes
        if node.gpu.upper() == gpu.name
    ]
    if not nodes:
        raise SpecError(
            f"{options.inventory} has no {gpu.name}", f"choose from {', '.join(sorted(kinds))}"
        )
    fabric = options.fabric or inventory.fabric or Fabric.RDMA
    if fabric not in list(Fabric):
        raise SpecError(
            f"{options.inventory}: fabric: unknown {fabric!r}", f"give one of {', '.join(Fabric)}"
        )
    return gpu, _first_gpus(nodes, count, options), Fabric(fabric)


def _first_gpus(
    nodes: list[Node], count: int | None, options: argparse.Namespace
) -> tuple[Node, ...]:
    """All nodes, or the first whole ones with `count` GPUs together."""
    if count is None:
        return tuple(nodes)
    chosen: list[Node] = []
    for node in nodes:
        if sum(n.gpus for n in chosen) >= count:
            break
        chosen.append(node)
    have = sum(node.gpus for node in chosen)
    if have != count:
        raise SpecError(
            f"--gpus {options.gpus}: whole nodes of {options.inventory} have {have} GPUs, not "
            f"{count}",
            f"give --gpus {have}x{options.gpus.lower().partition('x')[2].upper()}, or leave it out",
        )
    return tuple(chosen)


def _usual_nodes(gpu: Gpu, count: int) -> tuple[Node, ...]:
    """Nodes as the GPU usually comes, the last one perhaps not full."""
    sizes = [gpu.gpus_per_node] * (count // gpu.gpus_per_node)
    if rest := count % gpu.gpus_per_node:
        sizes.append(rest)
    in_domain = gpu.domain_gpus // gpu.gpus_per_node
    domains = [f"nvlink-{at // in_domain:03}" if in_domain > 1 else "" for at in range(len(sizes))]
    return tuple(
        Node(f"node-{at:04}", size, nvlink_domain=domain)
        for at, (size, domain) in enumerate(zip(sizes, domains, strict=True))
    )


def _released(model: str) -> Weight:
    """The format in which a model's weights are published."""
    return Weight.BF16 if "Distill" in model else Weight.FP8


def _allowed(words: list[str] | None) -> frozenset[Reason]:
    names = [name for word in words or () for name in word.split(",")]
    return frozenset(Reason(_known("reason", name, [r.value for r in OF_CHOICE])) for name in names)


def _known(what: str, name: str, known: Iterable[str]) -> str:
    """The name, which is among the known; raises SpecError with the nearest."""
    names = sorted(known)
    if name in names:
        return name
    near = get_close_matches(name, names, 1, cutoff=0.5) or [
        each for each in names if each.lower() == name.lower()
    ]
    hint = f", did you mean {near[0]}?" if near else ""
    raise SpecError(f"unknown {what} {name}{hint}", f"give one of {', '.join(names)}")
