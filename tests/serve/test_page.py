"""The page's own files as the server gives them."""

from __future__ import annotations

import pytest
from live import client

from kinema.serve.page import FOLDER


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with client(tmp_path_factory.mktemp("studio")) as found:
        yield found


def test_the_page_and_everything_it_names_is_served(server):
    page = server.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.content == (FOLDER / "index.html").read_bytes()
    for file in FOLDER.iterdir():
        answer = server.get(f"/{file.name}")
        assert (answer.status_code, answer.content) == (200, file.read_bytes())
        kind = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg", ".html": "text/html"}[
            file.suffix
        ]
        assert answer.headers["content-type"].startswith(kind)


def test_a_page_that_is_known_keeps_its_policy(server):
    whole = server.get("/")
    known = server.get("/", headers={"if-none-match": whole.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    assert "default-src 'self'" in whole.headers["content-security-policy"]
    assert known.headers["content-security-policy"] == whole.headers["content-security-policy"]


def test_nothing_but_the_page_is_served_beside_the_api(server):
    for path in ("/web/index.html", "/../page.py", "/page.py", "/index.html/", "/%2e%2e/page.py"):
        assert server.get(path).status_code == 404
