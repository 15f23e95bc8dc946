"""What a load test can be told: the same words for `python -m loadtest` and `r1-serve bench`."""

import argparse
from pathlib import Path

from orchestrator.core.arguments import count, fraction, not_negative, positive

SHAPES = ("soak", "ramp", "step", "spike", "day")


def add_target(add: argparse.ArgumentParser) -> None:
    """Where the load goes, and who asks."""
    group = add.add_argument_group("the server")
    one = group.add_argument
    one("--url", required=True, metavar="URL", help="as clients have it, such as https://host/v1")
    one("--model", default="deepseek-reasoner", metavar="NAME", help="default deepseek-reasoner")
    one("--key-file", type=Path, metavar="FILE", help="holds the API key")
    one("--key-env", metavar="NAME", help="the environment variable that holds the API key")
    one("--ca", type=Path, metavar="FILE", help="certificates to trust, PEM")
    one("--insecure", action="store_true", help="take any certificate")
    one(
        "--metrics-url",
        metavar="URL",
        help="of a gateway or of `r1-serve telemetry`: its figures "
        "over the same time go into the result",
    )


def add_load(add: argparse.ArgumentParser) -> None:
    """What is sent."""
    group = add.add_argument_group("the load")
    one = group.add_argument
    what = group.add_mutually_exclusive_group()
    what.add_argument(
        "--workload",
        metavar="WHAT",
        help="chat (default), reasoning, agent, batch or long-context, perhaps with numbers behind "
        "it (chat,rate=5), or numbers alone: input=4000,output=500,prefix_hit=0.5",
    )
    what.add_argument(
        "--trace", metavar="FILE", help="Mooncake's, CSV or ServeGen's; plain or gzip"
    )
    one("--limit", type=count, metavar="N", help="requests of the trace")
    one("--gap-cv", type=positive, metavar="X", help="burstiness of drawn arrivals: 1 is Poisson")
    one("--seed", type=int, default=0, help="of lengths and arrivals (default 0)")
    one(
        "--salt",
        metavar="TEXT",
        help="of the prompts' words; by default new in each run, so that "
        "no cache is warm from the last one",
    )


def add_bounds(add: argparse.ArgumentParser) -> None:
    """What is asked of the answers."""
    group = add.add_argument_group("what is asked of the answers")
    one = group.add_argument
    one("--ttft-s", type=positive, metavar="S", help="bound of the time to the first token")
    one("--itl-s", type=positive, metavar="S", help="bound of a stream's mean time for a token")
    one("--e2e-s", type=positive, metavar="S", help="bound of the time to the last token")
    one(
        "--share",
        type=fraction,
        default=0.99,
        metavar="X",
        help="of the requests that must keep them (default 0.99)",
    )
    one(
        "--timeout-s",
        type=positive,
        default=600.0,
        metavar="S",
        help="of one request, from when it is due (default 600)",
    )


def add_rest(add: argparse.ArgumentParser) -> None:
    """How it is done."""
    add.add_argument(
        "--workers",
        type=count,
        default=1,
        metavar="N",
        help="processes that send; more than one are Locust workers of this machine",
    )
    add.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where result.json is written"
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Of `run`."""
    parser.description = (
        "Sends requests at given rates, whatever has been answered, reads every stream to its end, "
        "and writes what was measured to OUT/result.json."
    )
    add_target(parser)
    add_load(parser)
    one = parser.add_argument
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument(
        "--rate",
        type=positive,
        metavar="R",
        help="requests per second; of two rates of a shape, the higher",
    )
    rate.add_argument("--factor", type=positive, metavar="X", help="of the trace's own rate")
    one("--shape", choices=SHAPES, default="soak", help="of the rate over time (default soak)")
    one(
        "--low-rate",
        type=positive,
        metavar="R",
        help="where a ramp or steps begin, beside a spike, at night (default a fifth)",
    )
    one("--duration-s", type=positive, metavar="S", help="default 60; of a trace, all of it")
    one(
        "--window-s",
        type=positive,
        metavar="S",
        help="of one measurement (default a thirtieth of the time, at least 10 s)",
    )
    one(
        "--settle-s",
        type=not_negative,
        default=0.0,
        metavar="S",
        help="at the start that is not measured (default 0)",
    )
    add_bounds(parser)
    add_rest(parser)


def add_find_capacity(parser: argparse.ArgumentParser) -> None:
    """Of `find-capacity`."""
    parser.description = (
        "Searches for the highest load at which enough requests keep their bounds, and writes it "
        "with its interval, and all that was measured on the way, to OUT/result.json."
    )
    add_target(parser)
    add_load(parser)
    one = parser.add_argument
    one("--start-rate", type=positive, metavar="R", help="where to begin, in requests per second")
    one("--window-s", type=positive, metavar="S", help="the least of one measurement (default 10)")
    one(
        "--within",
        type=fraction,
        metavar="X",
        help="half the interval's width at which it is enough (default 0.045)",
    )
    one("--windows-most", type=count, metavar="N", help="measurements (default 40)")
    add_bounds(parser)
    add_rest(parser)
