"""What contradicts itself in how the fleet is looked at."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from orchestrator.spec.spec import Spec


def observing_contradictions(spec: Spec) -> Iterator[tuple[str, str]]:
    """What is wrong, and the cure."""
    every_s = spec.doctor.every_s
    if every_s is not None and every_s < EVERY_S_MIN:
        yield (
            f"doctor.every_s: {every_s:g} is below {EVERY_S_MIN:g}",
            "give the probes more time, or null to examine only when asked",
        )
    for key, share in (("why.share", spec.why.share), ("tracing.share", spec.tracing.share)):
        if not 0 <= share <= 1:
            yield f"{key}: {share:g} is not in 0..1", "give the share of requests"
    for key in ("requests_max", "rank_views_max"):
        if getattr(spec.why, key) < 1:
            yield f"why.{key}: is not positive", "give a positive number, or why.share 0"
    endpoint = spec.tracing.endpoint
    if endpoint is not None and urlsplit(endpoint).scheme not in ("http", "https"):
        yield (
            f"tracing.endpoint: {endpoint} is no URL of a collector",
            "give http://HOST:4318, or leave it out",
        )


EVERY_S_MIN = 10.0  # an examination takes seconds
