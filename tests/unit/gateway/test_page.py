"""The page's files over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from orchestrator.gateway.page import page_routes


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(Starlette(routes=page_routes())) as client:
        yield client


def test_the_page_is_at_the_root_and_its_parts_below_page(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "DeepThink" in page.text
    script = client.get("/page/chat.js")
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert client.get("/page/chat.css").headers["content-type"] == "text/css; charset=utf-8"
    assert client.head("/").headers["content-length"] == str(len(page.content))


def test_every_link_of_the_page_is_relative_and_leads_to_a_file(client: TestClient) -> None:
    page = client.get("/").text
    links = [part.split('"')[0] for sign in ('href="', 'src="') for part in page.split(sign)[1:]]
    files = [link for link in links if not link.startswith("#")]
    assert files
    for link in files:
        assert link.startswith("page/")
        assert client.get(f"/{link}").status_code == 200


def test_all_answers_carry_the_security_headers(client: TestClient) -> None:
    for path in ("/", "/page/chat.js", "/page/nothing.js"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "base-uri 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_a_file_that_did_not_change_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/page/chat.js")
    assert first.headers["cache-control"] == "no-cache"
    again = client.get("/page/chat.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    weak = client.get("/page/chat.js", headers={"if-none-match": f'"x", W/{first.headers["etag"]}'})
    assert weak.status_code == 304
    other = client.get("/page/chat.js", headers={"if-none-match": '"x"'})
    assert other.content == first.content


@pytest.mark.parametrize(
    "path",
    [
        "/page/../page.py",
        "/page/%2e%2e/page.py",
        "/page/..%2fpage.py",
        "/page/%2e%2e%2f%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/page//etc/passwd",
        "/page/",
        "/page/vendor/.pins",
        "/page/vendor",
    ],
)
def test_nothing_but_the_pages_files_can_be_read(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_a_library_that_was_not_built_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("a page")
    (tmp_path / ".pins").write_text("hidden")
    (tmp_path / "notes.py").write_text("not a part of the page")
    client = TestClient(Starlette(routes=page_routes(tmp_path)))
    assert client.get("/").text == "a page"
    assert client.get("/page/vendor/katex/katex.min.js").status_code == 404
    assert client.get("/page/.pins").status_code == 404
    assert client.get("/page/notes.py").status_code == 404


def test_the_page_works_below_a_path_prefix() -> None:
    client = TestClient(Starlette(routes=[Mount("/r1", routes=page_routes())]))
    assert client.get("/r1/page/chat.js").status_code == 200
    assert str(client.get("/r1").url).endswith("/r1/")  # relative links need the slash
