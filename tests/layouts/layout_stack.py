"""Layouts of deploy/local, several side by side in one stack of namespaced nodes."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.spec import KvHandoff
from tests.live.local_stack import (
    Completion,
    LocalStack,
    command,
    local_stack,
    need_namespaces,
    stream,
)

ONE_RANK = "unified"  # the single process that every other layout is compared with
START_S = 900.0  # some ten processes that load vLLM, on two cores
BUSY_S = 120.0
GREEDY = {"temperature": 0.0, "max_tokens": 32}
QUESTIONS = (
    "What happens to a thought when the machine that thinks it is switched off?",
    "Hi",
    "数学题：1+1=？",
    "List three rivers, then say which of them is the longest and why that is hard to tell.",
)
# Under these names one stack serves several, whose prompts are each other's: the distills share a
# template.
NAMES = (
    "DeepSeek-R1-Distill-Qwen-1.5B",
    "DeepSeek-R1-Distill-Qwen-7B",
    "DeepSeek-R1-Distill-Llama-8B",
    "DeepSeek-R1-Distill-Qwen-14B",
)


@dataclass(frozen=True)
class LayoutStack:
    """A running stack, and under which name it serves each layout."""

    stack: LocalStack
    names: Mapping[str, str]

    def greedy(self, layout: str) -> list[Completion]:
        """The outputs of all questions, asked at once so that every rank has something to do."""
        client = self.stack.client()

        def ask(question: str) -> Completion:
            return stream(client, question, sampling=GREEDY, model=self.names[layout])

        with ThreadPoolExecutor(len(QUESTIONS)) as pool:
            outputs = list(pool.map(ask, QUESTIONS))
        assert all(output.output_tokens == GREEDY["max_tokens"] for output in outputs)
        return outputs

    def log(self, event: str, kind: str = "gang") -> list[dict[str, object]]:
        """The lines of one event in the logs of gangs, or in another kind of log, as they came."""
        lines = [
            json.loads(line)
            for path in sorted(self.stack.log_dir.glob(f"{kind}-*"))
            for line in path.read_text().splitlines()
        ]
        found = [line for line in lines if line["event"] == event]
        return sorted(found, key=lambda line: str(line["time"]))

    def hosts(self, layout: str) -> list[str]:
        """The addresses that the layout's gangs run on."""
        started = [line for line in self.log("gang_starting") if self._of(layout, line["gang"])]
        found: set[str] = set()
        for line in started:
            assert isinstance(line["hosts"], list)
            found |= set(line["hosts"])
        return sorted(found)

    def chosen(self, layout: str) -> set[str]:
        """The ranks that requests of the layout were sent to."""
        said = (str(line.get("decision")) for line in self.log("routing", "decisions"))
        return {rank for rank in said if "/" in rank and self._of(layout, rank)}

    def ready(self, layout: str, role: str = "unified") -> list[dict[str, object]]:
        """What the log says of each rank of a role that has become ready, oldest first."""
        begin = f"{self.names[layout]}-{role}-"
        return [line for line in self.log("rank_ready") if str(line["gang"]).startswith(begin)]

    def _of(self, layout: str, gang: object) -> bool:
        return str(gang).startswith(f"{self.names[layout]}-")


@contextmanager
def layout_stack(
    folder: Path,
    layouts: Sequence[str],
    nodes: int,
    gpus_per_node: int,
    weights: str = "random",
    kv: KvHandoff = KvHandoff.PULL,
    fleet: Mapping[str, float] | None = None,
) -> Iterator[LayoutStack]:
    """Serves them until the block ends, all from the same seeded weights."""
    need_namespaces()
    checkpoint = folder / f"tiny-{weights}"
    made = command("checkpoint", str(checkpoint), "--kind", weights)
    subprocess.run(made, check=True, timeout=120)
    names = dict(zip(layouts, NAMES, strict=False))
    models = []
    for layout, name in names.items():
        example = yaml.safe_load(Path(f"deploy/local/{layout}.yaml").read_text())
        [model] = example["models"]
        model |= {"name": name, "path": str(checkpoint)}
        model["engine"]["start_timeout_s"] = START_S
        models.append(model)
    example["models"] = models
    example["local"] = {"nodes": nodes, "gpus_per_node": gpus_per_node, "namespaces": True}
    example["gateway"]["host"] = "0.0.0.0"
    # While all of them load vLLM, an agent may not get to answer.
    example["fleet"] |= {"cut_off_after_s": BUSY_S} | dict(fleet or {})
    # A gang's successor takes minutes here.
    example["handoff"] = {"kv": kv.value, "resume_wait_s": START_S}
    spec = folder / "layouts.yaml"
    spec.write_text(yaml.safe_dump(example))
    with local_stack(folder, "--spec", str(spec), start_s=START_S) as stack:
        yield LayoutStack(stack, names)


def check_greedy(stack: LayoutStack, layout: str) -> None:
    """The outputs are those of one process, which differ from question to question."""
    expected = stack.greedy(ONE_RANK)
    assert len({output.reasoning for output in expected}) == len(expected)
    assert stack.greedy(layout) == expected


def metric(rank: dict[str, object], name: str, **labels: str) -> float:
    """What vLLM counts in a rank that is ready, over all labels but those named; 0 if nothing."""
    text = httpx.get(f"http://{rank['metrics']}/metrics", timeout=10).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"vllm:{name}" and labels.items() <= sample.labels.items()
    )
