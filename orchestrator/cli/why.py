"""`r1-serve why`: why a request went where it went, and what the second choice would have cost."""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import cast

from orchestrator.cli.operator_client import LOCAL_URL, Answer, Asked, add_asking, ask_each
from orchestrator.core import R1ServeError, SpecError


def add_why(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.description = (
        "Tells of one request, by the `id` of its answer: how admission, path and routing decided, "
        "among which ranks, by which terms of their cost, on what knowledge and how old, and what "
        "the second choice would have cost, which the router works out again. Each gateway is "
        "asked; what they remember is bounded (`why` of the spec) and holds no prompt."
    )
    parser.add_argument("request_id", metavar="REQUEST_ID")
    add_asking(parser, 10.0, "an answer")
    parser.set_defaults(run=_why, spec_error_code=2)


def _why(options: argparse.Namespace) -> int:
    request_id = options.request_id
    if not request_id or not all(each.isalnum() or each in "-_." for each in request_id):
        raise SpecError(
            f"{options.request_id!r} is no id of a request", "give the `id` of the answer"
        )
    urls = options.url or [LOCAL_URL]
    asked = ask_each(
        urls,
        "GET",
        f"/operator/why/{request_id}",
        options.key,
        options.timeout,
        enough=lambda answer: answer.status == 200,
    )
    found = next((answer for answer in asked.answers if answer.status == 200), None)
    if found is None:
        raise _unknown(request_id, asked)
    print(json.dumps(found.body, indent=2) if options.json else story(found.body))
    return 0


def _unknown(request_id: str, asked: Asked) -> R1ServeError:
    gone = [answer for answer in asked.answers if answer.status == 410]
    if gone and "sampled" in gone[0].message and not any(_forgot(answer) for answer in gone):
        return R1ServeError(
            f"request {request_id} is not among those that gateways remember",
            "set why.share to 1 in the spec to remember all",
        )
    if any(_forgot(answer) for answer in gone):
        return R1ServeError(
            f"request {request_id} was forgotten by gateway {gone[0].gateway}: there were others",
            "raise why.requests_max and why.rank_views_max in the spec, or replay its decision log",
        )
    said = f"{len(asked.answers)} of {asked.gateways} gateways"
    cure = "check the id, which is the `id` of the answer; a restarted gateway remembers nothing"
    if asked.missing:
        cure = f"give --url of each gateway: {asked.missing} did not answer at this one"
    return R1ServeError(f"request {request_id} is unknown to {said}", cure)


def _forgot(answer: Answer) -> bool:
    return answer.status == 410 and "forgotten" in answer.message


Tree = Mapping[str, object]


def story(body: Tree) -> str:
    """What people read."""
    klass = f", class {body['klass']}" if body["klass"] else ""
    lines = [
        f"request {body['request_id']} of {body['model']}{klass}, gateway {body['gateway']}",
        f"  {body['prompt_tokens']} prompt tokens, at most {body['max_tokens']} more; arrived "
        f"{_seconds(body['arrived_s_ago'])} ago",
        f"  first token {_seconds(body['ttft_s'])}, all {_seconds(body['total_s'])}; prefix hit "
        f"predicted {_or(body['predicted_hit_tokens'])}, counted {_or(body['actual_hit_tokens'])} "
        "tokens",
        "",
    ]
    for step in cast("Sequence[Tree]", body["steps"]):
        lines += _step(step)
    return "\n".join(lines)


def _step(step: Tree) -> list[str]:
    where = f" {step['rank_id']}" if step["rank_id"] else ""
    leg = f" ({step['leg']})" if step["leg"] else ""
    reason = f" [{step['reason']}]" if step["reason"] else ""
    at_s = cast("float", step["at_s"])
    lines = [f"{at_s * 1e3:>10.1f} ms  {step['what']}{leg}{where}{reason}  {step['text']}"]
    if step["what"] == "routing":
        lines += _routing(step)
    return lines


def _routing(step: Tree) -> list[str]:
    lines = []
    indent = " " * 15
    if step["second_rank_id"]:
        more_s = cast("float", step["second_cost_s"]) - cast("float", step["cost_s"])
        lines.append(
            f"{indent}cost {_seconds(step['cost_s'])}; the second choice, "
            f"{step['second_rank_id']}: {_seconds(step['second_cost_s'])}, "
            f"{more_s * 1e3:+.1f} ms"
        )
    elif step["cost_s"] is not None:
        lines.append(f"{indent}cost {_seconds(step['cost_s'])}; there was no second choice")
    if step["replayed"] is False:
        lines.append(f"{indent}NOT the same again: the router of today decides otherwise")
    candidates = cast("Sequence[Tree]", step["candidates"])
    if candidates:
        lines += [f"{indent}{line}" for line in _candidates(candidates)]
    if step["candidates_left_out"]:
        lines.append(f"{indent}and {step['candidates_left_out']} dearer ones")
    return lines


def _candidates(candidates: Sequence[Tree]) -> list[str]:
    terms = sorted({name for each in candidates for name in cast("Tree", each["terms"])})
    head = ["rank", "cost ms", *(f"{name}" for name in terms), "hit", "ours", "others", "heard", ""]
    rows = [head]
    for each in candidates:
        own = cast("Mapping[str, float]", each["terms"])
        rows.append(
            [
                str(each["rank_id"]),
                _ms(each["cost_s"]),
                *(_ms(own.get(name, 0.0)) for name in terms),
                str(each["hit_tokens"]),
                f"{each['in_flight_requests']}/{each['requests_max']}",
                str(each["others_requests"]),
                _seconds(each["reported_s_ago"]),
                str(each["note"]),
            ]
        )
    widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if at in (0, len(head) - 1) else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _ms(value: object) -> str:
    return "-" if value is None else f"{float(str(value)) * 1e3:.1f}"


def _seconds(value: object) -> str:
    if value is None:
        return "-"
    seconds = float(str(value))
    return f"{seconds * 1e3:.1f} ms" if abs(seconds) < 1 else f"{seconds:.1f} s"


def _or(value: object) -> str:
    return "-" if value is None else str(value)
