"""Several expositions as one: each sample gets a label that says whose it is."""

from collections.abc import Iterable


def merged(texts: Iterable[tuple[str, bytes]]) -> bytes:
    """One Prometheus text of those of several processes, a family's samples together.

    `texts` are pairs of a process's name and its text; an empty name adds no label. Timestamps and
    values are passed on as they are; a family keeps the help of whoever comes first.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for process, text in texts:
        label = f'process="{process}"' if process else ""
        family = ""
        for line in text.decode(errors="replace").splitlines():
            if line.startswith("# "):
                family = _headed(line, family, heads, samples)
            elif line and not line.startswith("#"):
                samples.setdefault(family or _name(line), []).append(_labelled(line, label))
    lines: list[str] = []
    for family, of_family in samples.items():
        if of_family:
            lines += heads.get(family, [])
            lines += of_family
    return ("\n".join(lines) + "\n").encode() if lines else b""


def _headed(
    line: str, family: str, heads: dict[str, list[str]], samples: dict[str, list[str]]
) -> str:
    words = line.split(" ", 3)
    if len(words) < 3 or words[1] not in ("HELP", "TYPE"):
        return family
    name = words[2]
    known = heads.setdefault(name, [])
    if not any(each.startswith(f"# {words[1]} ") for each in known):
        known.append(line)
    samples.setdefault(name, [])
    return name


def _name(line: str) -> str:
    return line.partition("{")[0].partition(" ")[0]


def _labelled(line: str, label: str) -> str:
    if not label:
        return line
    name, brace, rest = line.partition("{")
    if brace:
        return f"{name}{{{label}{',' if not rest.startswith('}') else ''}{rest}"
    name, _, value = line.partition(" ")
    return f"{name}{{{label}}} {value}"
