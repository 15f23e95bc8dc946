"""The boards of a fleet on this machine, in a browser."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.live.boards import boards_url, chromium, look, traffic
from tests.live.local_stack import local_stack, until

# What a fleet of fake engines that nobody overloads cannot show; each panel says why.
SILENT = {
    "SLO kept, last hour",
    "Error budget, times as fast as it may go",
    "Charged an hour",
    "Answers that are not what they should be",
    "KV transfer, bytes",
    "Preemptions and refusals of engines",
    "Tokens of a step",
    "Arithmetic used, of what there is",
    "Weights read, of the memory's bandwidth",
    "Skew between the GPUs of a gang",
    "Tokens for a joule",
    "Slowed down",
    "XID errors",
    "Memory errors",
    "Scaling: wanted and needed",
    "Scaling: reasons",
    "Pods that are not ready",
    "Restarts of containers",
    "Certificates, until they expire",
    "Oldest file of API keys",
    "Why requests were not admitted at once",
    "Most loaded rank, above the mean",
    "Limits of tenants that were met",
    "Thinking budgets",
    "Requests that lived through something",
}
SLOW_S = 120.0  # until a rate of each series is known, on a busy machine


@pytest.mark.live
@pytest.mark.timeout(600)
def test_every_panel_shows_data_or_says_why_not(tmp_path: Path) -> None:
    with (
        local_stack(tmp_path, "--engine", "fake") as stack,
        traffic(stack.url, 2) as wrong,
        chromium() as browser,
    ):
        url = boards_url(stack)
        until(lambda: _silent(browser, url) <= SILENT, SLOW_S)
        shown = look(browser, url, None)
    assert {each.panel for each in shown if each.said} <= SILENT
    for each in shown:
        assert not each.said or len(each.said) > len("No data. "), each
    assert wrong == []


def _silent(browser: Browser, url: str) -> set[str]:
    return {each.panel for each in look(browser, url, None) if each.said}
