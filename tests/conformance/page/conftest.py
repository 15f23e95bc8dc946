"""A Chromium before the chat page.

`page_url` and `engine_running` are all that the tests know of the server.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, Response, sync_playwright

from tests.conformance.conftest import Server, running
from tests.conformance.page.proxy import proxy_app, serve
from tests.conformance.server import Settings

ROOT = Path(__file__).resolve().parents[3]
WAIT_MS = 10_000


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A gateway whose engines write a hundred tokens a second, for people to see it happen."""
    if not (ROOT / "orchestrator/gateway/page/vendor").is_dir():
        pytest.fail("the page's libraries are missing: run deploy/page/build.sh")
    with running(Settings(step_s=0.01), tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def page_url(gateway: Server) -> str:
    """Where the page is; ends in a slash."""
    return f"{gateway.url}/"


@pytest.fixture
def engine_running(gateway: Server) -> Callable[[], int]:
    """How many completions the engines are making now."""
    return gateway.engine_running


@pytest.fixture(scope="module")
def prefixed_url(page_url: str) -> Iterator[str]:
    """The same page behind a proxy that adds a path prefix."""
    with serve(proxy_app(page_url)) as url:
        yield f"{url}r1/"


@pytest.fixture(scope="module")
def browser(page_url: str) -> Iterator[Browser]:
    """Chromium; closed before the server is, so that no connection is left."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        # The sandbox refuses to run as root, which tests in containers do.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(
        viewport={"width": 1100, "height": 800}, color_scheme="light", reduced_motion="reduce"
    )
    context.set_default_timeout(WAIT_MS)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, page_url: str) -> Iterator[Page]:
    """The page, open. Afterwards: it asked its own server only, and broke no rule of its own."""
    page = context.new_page()
    asked: list[str] = []
    wrong: list[str] = []

    def on_request(request: Request) -> None:
        asked.append(request.url)

    def on_response(response: Response) -> None:
        if "/page/" in response.url and response.status >= 400 and "/vendor/" not in response.url:
            wrong.append(response.url)

    page.on("request", on_request)
    page.on("response", on_response)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "console",
        lambda message: wrong.append(message.text) if "Content Security" in message.text else None,
    )
    page.goto(page_url)
    yield page
    assert {urlsplit(url).hostname for url in asked} == {urlsplit(page_url).hostname}
    assert wrong == []
