"""How often r1-nano is right on problems it was never trained on: `python -m deploy.nano.accuracy`.

The real engine draws its answers, greedily, on the checkpoint that `make up` serves. Right means
that the thought comes to an end, and that the whole answer is the expected one.
"""

import argparse
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

from tokenizers import Tokenizer

from deploy.nano.task import SMALL, Problem, as_json, problem
from orchestrator.engines.nano_checkpoint import NANO_WEIGHTS
from orchestrator.engines.tiny_checkpoint import CheckpointKind, write_tiny_checkpoint

WANTED = 0.95
THOUGHT_MAX = 200  # tokens of a whole answer, thought included


def main() -> int:
    """Prints a line for each kind of problem; 1 if fewer than `WANTED` of all are right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=NANO_WEIGHTS)
    parser.add_argument("--each", type=int, default=100, help="problems of each kind")
    parser.add_argument("--wrong", action="store_true", help="show the wrong ones")
    options = parser.parse_args()
    chance = Random("judged")
    asked = [
        problem(chance, kind, SMALL, judged=True)
        for kind in SMALL.shares
        for _ in range(options.each)
    ]
    asked = [as_json(one) if at % 10 == 0 else one for at, one in enumerate(asked)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r1-nano"
        write_tiny_checkpoint(path, CheckpointKind.NANO, weights=options.weights)
        answers = _answers(path, asked)
    right: Counter[str] = Counter()
    for one, answer in zip(asked, answers, strict=True):
        if answer == _wanted(one):
            right[one.kind] += 1
        elif options.wrong:
            print(f"{one.question!r}\n  {answer!r}")
    kinds = Counter(one.kind for one in asked)
    for kind, count in kinds.items():
        print(f"{kind:10} {right[kind]:5} of {count}: {right[kind] / count:.1%}")
    share = right.total() / len(asked)
    print(
        f"{'all':10} {right.total():5} of {len(asked)}: {share:.1%}, none of them seen in training"
    )
    return 0 if share >= WANTED else 1


def _wanted(asked: Problem) -> str:
    return f"</think>\n\n{asked.answer}"


def _answers(path: Path, asked: list[Problem]) -> list[str]:
    """From the end of the thought on; empty if it has none."""
    os.environ |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    engine = LLM(
        str(path),
        dtype="float32",
        enforce_eager=True,
        kv_cache_memory_bytes=256 << 20,
        max_model_len=512,
        max_num_seqs=128,
        attention_backend="CPU_MLA",
    )
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    prompts = []
    for one in asked:
        text = f"<｜begin▁of▁sentence｜><｜User｜>{one.question}<｜Assistant｜><think>\n"
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        prompts.append(TokensPrompt(prompt_token_ids=ids))
    sampling = SamplingParams(
        temperature=0, max_tokens=THOUGHT_MAX, stop_token_ids=[1], detokenize=False
    )
    answers = []
    for output in engine.generate(prompts, sampling, use_tqdm=False):
        ids = [token for token in output.outputs[0].token_ids if token != 1]
        text = tokenizer.decode(ids, skip_special_tokens=False)
        _, mark, answer = text.partition("</think>")
        answers.append(mark + answer)
    return answers


if __name__ == "__main__":
    sys.exit(main())
