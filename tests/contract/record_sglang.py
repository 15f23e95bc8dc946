"""Writes down SGLang's flags, from its own parser: run it with SGLang's packages on the path."""

import argparse
import json

from tests.contract.test_sglang_plans import RECORDED


def main() -> None:
    """Writes the file: each flag with whether it takes a value, and which if they are listed."""
    import sglang  # type: ignore[import-not-found]  # not a dependency
    from sglang.srt.server_args import ServerArgs  # type: ignore[import-not-found]

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    flags: dict[str, list[object]] = {}
    for action in parser._actions:
        entry: list[object] = [0 if action.nargs == 0 else 1]
        if action.choices:
            entry.append(sorted(map(str, action.choices)))
        flags |= {name: entry for name in action.option_strings if name.startswith("--")}
    tree = {"version": sglang.__version__, "flags": dict(sorted(flags.items()))}
    text = json.dumps(tree, separators=(",", ":")).replace(',"--', ',\n"--')
    RECORDED.write_text(text + "\n")


if __name__ == "__main__":
    main()
