"""What a starting vLLM is doing, as its log lines tell it."""

import re

# In the order of a start; progress bars come as lines of their own.
_PHASES = (
    (re.compile(r"Resolved architecture: "), "configuring"),
    (re.compile(r"Initializing a V1 LLM engine"), "starting workers"),
    (re.compile(r"world_size=\d+ rank=\d+ "), "joining ranks"),
    (re.compile(r"Starting to load model "), "loading weights"),
    (
        re.compile(r"Loading \S+ checkpoint shards: +\d+% Completed \| (?P<done>\d+/\d+)"),
        "loading weights",
    ),
    (re.compile(r"Loading weights took "), "weights loaded"),
    (re.compile(r"KV cache size: "), "KV cache allocated"),
    (re.compile(r"Start compiling|Dynamo bytecode transform|Compiling a graph"), "compiling"),
    (re.compile(r"Capturing CUDA graphs?.*?(?P<done>\d+/\d+)"), "capturing CUDA graphs"),
    (re.compile(r"init engine .* took "), "engine initialized"),
)


def phase_of(line: str) -> str | None:
    """The phase that begins or goes on with a log line, or None if the line tells of none."""
    for pattern, phase in _PHASES:
        if (found := pattern.search(line)) is not None:
            done = found.groupdict().get("done")
            return f"{phase} {done}" if done else phase
    return None
