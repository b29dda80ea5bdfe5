"""Attacks: other pages, other names, no token, paths, sizes, and URLs that lead inside."""

from __future__ import annotations

import io
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from live import HOST, SHOT, TOKEN, client, error_of, limits
from PIL import Image

from kinema.core.errors import ConfigError
from kinema.serve import fetch
from kinema.serve.access import Access
from kinema.serve.errors import ApiError, error_body, without_paths
from kinema.serve.settings import ServeSettings

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
SECRET = "root:x:0:0"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with client(tmp_path_factory.mktemp("open")) as found:
        yield found


@pytest.fixture(scope="module")
def closed(tmp_path_factory):
    """A server that is open to the network, with a token."""
    with client(tmp_path_factory.mktemp("closed"), host="0.0.0.0", token=TOKEN) as found:
        yield found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "host",
    ["evil.test", "127.0.0.1.evil.test:8420", "localhost.evil.test", "127.0.0.1:9999", "127.0.0.1@evil.test",
     "10.0.0.1:8420", "localhost:8420:1", "", "[::1", "localhost#.evil.test"],
)  # fmt: skip
def test_other_names_are_refused_on_every_method(server, method, host):
    for path in ("/api/jobs", "/", "/healthz", "/v1/videos"):
        answer = server.request(method, path, headers={"host": host})
        assert answer.status_code == 403, (path, answer.text)


@pytest.mark.parametrize(
    "host", [HOST, "localhost:8420", "LOCALHOST:8420", "[::1]:8420", "127.0.0.1", "localhost."]
)
def test_our_own_names_are_served(server, host):
    assert server.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["null", "http://evil.test", "http://127.0.0.1:1", "https://127.0.0.1.evil.test"]
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_other_pages_change_nothing(server, method, origin):
    answer = server.request(method, "/api/jobs", headers={"origin": origin}, json={"request": SHOT})
    assert (answer.status_code, error_of(answer)["code"]) == (403, "foreign_page")
    site = {"sec-fetch-site": "cross-site", "content-type": "text/plain"}
    assert server.request(method, "/api/jobs", headers=site, content=b"{}").status_code == 403


def test_other_pages_read_nothing_and_links_to_the_page_work(server):
    foreign = {"sec-fetch-site": "cross-site"}
    assert server.get("/api/jobs", headers=foreign).status_code == 403
    link = {**foreign, "sec-fetch-mode": "navigate"}
    assert server.get("/api/jobs", headers=link).status_code == 403
    assert server.get("/", headers=link).status_code in (200, 404)
    answer = server.get("/api/jobs", headers={"origin": "http://evil.test"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = server.options("/api/jobs", headers={"origin": "http://evil.test"})
    assert preflight.status_code >= 400


def test_our_own_page_is_served(server):
    own = {"origin": f"http://{HOST}", "sec-fetch-site": "same-origin"}
    assert server.post("/api/jobs", json={"request": SHOT}, headers=own).status_code == 201


def routes(server) -> list[tuple[str, str]]:
    """Every route of the document, with ids filled in."""
    paths = server.app.openapi()["paths"]
    filled = {"{id}": "video_" + "0" * 26, "{n}": "0", "{sha256}": "0" * 64, "{model}": "embedded"}
    found = []
    for path, methods in paths.items():
        for name, value in filled.items():
            path = path.replace(name, value)
        found += [(method.upper(), path) for method in methods]
    return [*found, ("GET", "/openapi.json"), ("GET", "/nothing"), ("GET", "/docs")]


def test_every_route_wants_the_token(closed):
    seen = routes(closed)
    assert len(seen) > 30
    for method, path in seen:
        if path == "/healthz":
            continue
        for headers in ({}, {"authorization": "Bearer wrong-token-of-length"}, {"authorization": TOKEN},
                        {"cookie": f"kinema_8420={TOKEN}"}, {"authorization": f"Basic {TOKEN}"}):  # fmt: skip
            answer = closed.request(method, path, headers=headers)
            assert answer.status_code == 401, (method, path, headers)
            assert error_of(answer)["type"] == "authentication_error" if method != "HEAD" else True
    assert closed.get("/healthz").status_code == 200


def test_the_token_lets_in_as_a_header_and_as_a_cookie(closed):
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert closed.get("/api/about", headers=bearer).json()["token_needed"] is True
    entered = closed.get(f"/?token={TOKEN}", follow_redirects=False)
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    closed.cookies.clear()
    assert closed.get("/api/jobs", headers={"cookie": cookie.split(";")[0]}).status_code == 200
    for path, headers in (("/?token=wrong", {}), ("/api/about", {"authorization": "Bearer wrong"})):
        assert "set-cookie" not in closed.get(path, headers=headers, follow_redirects=False).headers
    for site in ({"sec-fetch-site": "same-origin"}, {}):  # over plain HTTP in a network browsers leave it out
        by_page = closed.get("/api/about", headers=bearer | site)
        assert by_page.headers["set-cookie"] == cookie
        closed.cookies.clear()


def test_a_cookie_is_not_enough_for_another_page(closed):
    cookie = closed.get(f"/?token={TOKEN}", follow_redirects=False).headers["set-cookie"].split(";")[0]
    closed.cookies.clear()
    headers = {"cookie": cookie, "origin": "http://evil.test"}
    assert closed.post("/api/jobs", json={"request": SHOT}, headers=headers).status_code == 403


def test_the_network_needs_a_token_that_is_long(tmp_path):
    with pytest.raises(ConfigError, match="token"):
        ServeSettings(data=tmp_path, host="0.0.0.0")
    with pytest.raises(ConfigError, match="token"):
        ServeSettings(data=tmp_path, host="0.0.0.0", token="short")
    for host in ("localhost", "127.0.0.1", "127.8.8.8", "::1"):
        assert ServeSettings(data=tmp_path, host=host).token is None


def test_an_open_server_is_called_by_its_addresses_and_given_names(tmp_path):
    settings = ServeSettings(data=tmp_path, host="0.0.0.0", token=TOKEN, hosts=("studio.test",))
    access = Access(settings, frozenset({"/healthz"}))
    for host in ("10.1.2.3:8420", "[fe80::1]:8420", "studio.test", "studio.test:8420", socket.gethostname()):
        access.check("GET", "/healthz", {"host": host})
    with pytest.raises(ApiError):
        access.check("GET", "/healthz", {"host": "rebound.evil.test:8420"})


@pytest.mark.parametrize(
    "path",
    [
        "/api/jobs/..%2f..%2f..%2fetc%2fpasswd/video",
        "/api/media/..%2f..%2fetc%2fpasswd",
        "/..%2f..%2fetc/passwd",
        "/api/media/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/..;/..;/etc/passwd",
        "//etc/passwd",
        "/api/jobs/video_%00/video",
        "/%252e%252e%252fetc%252fpasswd",
        "/static/../../../etc/passwd",
        "/web/app.py",
        "/app.py",
        "/api/media/" + "0" * 64,
    ],
)
def test_no_path_leads_out_of_our_folders(server, path):
    answer = server.get(path)
    assert answer.status_code == 404, answer.text
    assert SECRET not in answer.text


@pytest.mark.parametrize(
    "name",
    ["../x", "..\\x", "/abs/x", "C:\\x", "x\0y", "n" * 300, "CON", "-rf", "a\nb", "‮gnp.x", "x.html", "$(id)"],
)
def test_names_of_uploads_are_never_used(server, name):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(buffer, "PNG")
    root = server.app.state.studio.folders.root
    before = {
        path for path in root.parent.rglob("*") if "media" not in path.parts and "sqlite" not in path.name
    }
    answer = server.post("/api/media", files={"file": (name, buffer.getvalue(), "text/html")})
    assert answer.status_code in (201, 400), answer.text
    after = {
        path for path in root.parent.rglob("*") if "media" not in path.parts and "sqlite" not in path.name
    }
    assert after == before
    if answer.status_code == 201:
        back = server.get("/api/media/" + answer.json()["ref"][6:])
        assert (back.headers["content-type"], back.content) == ("image/png", buffer.getvalue())


@pytest.mark.parametrize(
    "content",
    [b"ffconcat version 1.0\nfile /etc/passwd\n", b"#EXTM3U\nfile:///etc/passwd\n", b"<svg onload=alert(1)>",
     b"<html><script>alert(1)</script>", b"PK\3\4zip", b"\x89PNG\r\n\x1a\nrubbish", b"GIF89a", b"x"],
)  # fmt: skip
def test_what_is_no_picture_clip_or_sound_is_not_kept(server, content):
    held = list(server.app.state.studio.folders.media.iterdir())
    for path in ("/api/media", "/api/restore"):
        answer = server.post(path, content=content, headers={"content-type": "application/octet-stream"})
        assert answer.status_code == 422, answer.text
        error_of(answer)
        assert str(server.app.state.studio.folders.root) not in answer.text
    assert list(server.app.state.studio.folders.media.iterdir()) == held
    assert not list(server.app.state.studio.folders.incoming.iterdir())


def test_a_small_file_of_a_huge_picture_is_refused(server):
    buffer = io.BytesIO()
    Image.new("1", (13_300, 13_300)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 100_000
    answer = server.post("/api/media", content=buffer.getvalue())
    assert (answer.status_code, error_of(answer)["code"]) == (422, "invalid_media")


def test_every_answer_has_the_headers_of_safety(server):
    for path in ("/api/about", "/nothing", "/api/jobs/x", "/metrics", "/healthz"):
        headers = server.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"


def test_a_prompt_never_becomes_markup(server):
    prompt = "<img src=x onerror=alert(1)>"
    name = server.post("/api/jobs", json={"request": {**SHOT, "prompt": prompt}, "title": prompt}).json()[
        "jobs"
    ][0]["id"]
    for path in (f"/api/jobs/{name}", "/api/jobs", f"/api/jobs/{name}/text?as=cli", f"/v1/videos/{name}"):
        kind = server.get(path).headers["content-type"]
        assert kind.startswith(("application/json", "text/plain")), (path, kind)


def test_bodies_above_the_limit_are_refused_by_header_and_by_count(tmp_path):
    with client(tmp_path, limits(json_bytes=1000, upload_bytes=2000)) as small:
        big = b'{"request": "' + b"a" * 5000 + b'"}'
        announced = small.post("/api/jobs", content=big, headers={"content-type": "application/json"})
        assert (announced.status_code, error_of(announced)["code"]) == (413, "too_large")

        def pieces():
            for _ in range(100):
                yield b"a" * 100

        counted = small.post("/api/jobs", content=pieces(), headers={"content-type": "application/json"})
        assert (counted.status_code, error_of(counted)["code"]) == (413, "too_large")
        uploads = small.post("/api/media", content=b"\x89PNG" * (1 << 19))
        assert uploads.status_code == 413
        assert not list(small.app.state.studio.folders.incoming.iterdir())


@pytest.mark.parametrize("header", ["host", "content-length", "authorization"])
def test_headers_that_stand_twice_are_refused(server, header):
    value = {"host": HOST, "content-length": "0", "authorization": "Bearer x"}[header]
    twice = [("host", HOST)] * (header != "host") + [(header, value), (header, value)]
    assert server.get("/api/about", headers=twice).status_code == 400


def test_what_a_client_sends_never_becomes_a_header(server):
    for text in ("a\r\nset-cookie: x=1", "a\nb", "req_1"):
        answer = server.get(
            "/api/jobs/" + text.replace("\r", "%0d").replace("\n", "%0a"), headers={"x-request-id": "mine"}
        )
        assert "set-cookie" not in answer.headers
        assert answer.headers["x-request-id"] != "mine"
    wrong = server.post("/api/jobs", json={"request": SHOT}, headers={"idempotency-key": "a b"})
    assert (wrong.status_code, error_of(wrong)["param"]) == (400, "Idempotency-Key")


def test_paths_of_this_machine_never_leave():
    message = (
        "cannot read '/srv/kinema/media/0123': bad; C:\\data\\kinema\\x.png too, not a/b or media:12 or 3/4"
    )
    told = without_paths(message)
    assert "/srv" not in told
    assert "data\\" not in told
    assert "a/b or media:12 or 3/4" in told
    assert b"/srv" not in error_body(500, message, code="x")


# URLs


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd12::1",
        "ff02::1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:db8::1",
        "not an address",
        "",
    ],
)
def test_addresses_inside_are_not_public(address):
    assert not fetch.is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "2606:4700::1111"])
def test_addresses_outside_are(address):
    assert fetch.is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_in_ipv6_clothes_is_judged_the_same(address):
    assert fetch.is_public(f"::ffff:{address}") <= fetch.is_public(str(address))


class Answer:
    def __init__(self, status: int, location: str = "", body: bytes = b"") -> None:
        self.status, self._location, self._body = status, location, io.BytesIO(body)

    def getheader(self, name: str) -> str:
        return self._location

    def read1(self, size: int) -> bytes:
        return self._body.read(size)


class Web:
    """Hosts with addresses and answers; what was connected to is kept."""

    def __init__(self, names: dict[str, list[str]], pages: dict[str, Answer]) -> None:
        self.names, self.pages, self.reached = names, pages, []

    def resolve(self, host: str, port: int) -> list[str]:
        if host not in self.names:
            raise OSError("unknown name")
        return self.names[host]

    def connect(self, address: str, port: int, host: str, seconds: float):
        self.reached.append((address, host))
        web = self

        class Connection:
            def request(self, method, path, headers):
                self.page = web.pages[f"{host}{path}"]
                assert not {"cookie", "authorization"} & {name.lower() for name in headers}

            def getresponse(self):
                return self.page

            def close(self):
                pass

        return Connection()

    def get(self, url: str) -> bytes:
        return fetch.get(url, self.resolve, self.connect)


def web(**pages: Answer) -> Web:
    names = {
        "ok.test": ["93.184.216.34"],
        "inside.test": ["127.0.0.1"],
        "both.test": ["93.184.216.34", "10.0.0.1"],
        "mapped.test": ["::ffff:169.254.169.254"],
        "127.0.0.1": ["127.0.0.1"],
        "169.254.169.254": ["169.254.169.254"],
        "::1": ["::1"],
        "2130706433": ["127.0.0.1"],
        "localhost": ["127.0.0.1"],
    }
    return Web(
        names, {"ok.test/a": Answer(200, body=b"picture"), **{f"ok.test/{k}": v for k, v in pages.items()}}
    )


def test_a_public_file_is_fetched_from_the_address_that_was_looked_at():
    found = web()
    assert found.get("https://ok.test/a") == b"picture"
    assert found.reached == [("93.184.216.34", "ok.test")]


@pytest.mark.parametrize(
    "url",
    ["http://ok.test/a", "https://inside.test/a", "https://both.test/a", "https://mapped.test/", "https://127.0.0.1/",
     "https://[::1]/", "https://2130706433/", "https://localhost/", "https://u:p@ok.test/a", "https://ok.test@127.0.0.1/",
     "file:///etc/passwd", "gopher://ok.test/a", "ftp://ok.test/a", "https://", "https://ok.test:99999/a", "https://[x/",
     "https://unknown.test/a", "https://169.254.169.254/latest/meta-data", "//ok.test/a", ""],
)  # fmt: skip
def test_urls_that_lead_inside_reach_nobody(url):
    found = web()
    with pytest.raises(fetch.Refused):
        found.get(url)
    assert found.reached == []


@pytest.mark.parametrize(
    "place",
    ["https://127.0.0.1/", "http://ok.test/a", "https://169.254.169.254/", "https://mapped.test/", "file:///etc/passwd",
     "//inside.test/", "https://both.test/"],
)  # fmt: skip
def test_a_redirect_inside_is_not_followed(place):
    found = web(r=Answer(302, place))
    with pytest.raises(fetch.Refused):
        found.get("https://ok.test/r")
    assert found.reached == [("93.184.216.34", "ok.test")]


def test_a_redirect_outside_is_followed_so_often_and_no_more():
    assert web(r=Answer(302, "/a")).get("https://ok.test/r") == b"picture"
    with pytest.raises(fetch.Refused):
        web(r=Answer(302, "/r")).get("https://ok.test/r")


def test_a_large_file_behind_a_url_is_given_up(monkeypatch):
    monkeypatch.setattr(fetch, "MOST_BYTES", 100)
    with pytest.raises(fetch.Refused, match="larger"):
        web(big=Answer(200, body=b"x" * 101)).get("https://ok.test/big")


def test_errors_of_fetching_do_not_tell_what_was_met():
    told = set()
    for url in ("https://127.0.0.1/", "https://unknown.test/a", "https://mapped.test/"):
        with pytest.raises(fetch.Refused) as caught:
            web().get(url)
        told.add(str(caught.value))
    assert len(told) == 1


def test_urls_are_off_unless_allowed(server):
    body = {"prompt": "a", "input_reference": {"image_url": "https://ok.test/a"}}
    answer = server.post("/v1/videos", json=body)
    assert (answer.status_code, error_of(answer)["code"]) == (400, "urls_not_allowed")
