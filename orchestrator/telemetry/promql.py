"""What a PromQL query reads: the names of its series, and the labels that it looks at."""

import re
from dataclasses import dataclass

_KEYWORDS = frozenset(
    (
        *("by", "without", "on", "ignoring", "group_left", "group_right", "offset", "bool"),
        *("and", "or", "unless", "atan2", "inf", "nan"),
    )
)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_RANGE = re.compile(r"\[[^\]]*\]")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)?\s*\{([^}]*)\}")
_MATCHER = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)")
_WORD = re.compile(r"(?<![\w:.])([a-zA-Z_:][a-zA-Z0-9_:]*)(\s*\()?")
_DURATION = re.compile(r"(?<![\w:])\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?:ms|[smhdwy])?(?![\w:])")


@dataclass(frozen=True, slots=True)
class Read:
    """What a query reads. `labels` are those that it matches, groups or joins by."""

    series: frozenset[str]
    labels: frozenset[str]


def reads(query: str) -> Read:
    """Of a query that Prometheus can parse; `label_replace` and its like count as no labels."""
    bare = _STRING.sub('""', query)
    labels = {
        label.strip() for group in _GROUPING.findall(bare) for label in group.split(",") if label
    }
    for _, inside in _SELECTOR.findall(bare):
        labels.update(_MATCHER.findall(inside))
    bare = _RANGE.sub(" ", _GROUPING.sub(" ", bare))
    bare = re.sub(r"\{[^}]*\}", " ", bare)
    bare = _DURATION.sub(" ", bare)
    words = {word for word, called in _WORD.findall(bare) if not called and word not in _KEYWORDS}
    return Read(frozenset(words), frozenset(labels) - {"le"})
