"""Whether a prefill and a decode pool can hand KV to each other, by what their engines are told."""

import json
from collections.abc import Sequence

# Flags of vLLM's that the KV's bytes, or the layers that have any, follow from. Both pools share
# the model, its type and the block size already: the spec has these once.
_OF_KV = (
    "--attention-backend",
    "--attention-config",
    "--hf-overrides",
    "--kv-cache-dtype",
    "--kv-cache-dtype-skip-layers",
    "--quantization",
    "--revision",
    "--speculative-config",  # the layer that drafts has KV too
)


def pairing_fault(prefill: Sequence[str], decode: Sequence[str]) -> str | None:
    """Which setting of the two pools' engine args differs that must not, or None."""
    told = (settings(prefill), settings(decode))
    for flag in _OF_KV:
        here, there = (settings.get(flag) for settings in told)
        if here != there:
            said = [value if value is not None else "nothing" for value in (here, there)]
            return f"{flag} says {said[0]} to prefill and {said[1]} to decode engines"
    return None


def settings(args: Sequence[str]) -> dict[str, str]:
    """The last value of each long flag, with hyphens in its name; JSON in one spelling."""
    found: dict[str, str] = {}
    for at, arg in enumerate(args):
        if not arg.startswith("--"):
            continue
        name, equals, value = arg.partition("=")
        if not equals:
            value = args[at + 1] if at + 1 < len(args) and args[at + 1][:2] != "--" else ""
        found[name.replace("_", "-")] = _normal(value)
    return found


def _normal(value: str) -> str:
    try:
        return json.dumps(json.loads(value), sort_keys=True)
    except ValueError:
        return value
