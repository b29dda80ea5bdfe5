"""Clients that are slow, silent or many: each is let go in time, and others are answered meanwhile."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import uvicorn
from live import limits

from kinema.serve.app import create_app
from kinema.serve.connections import Connection
from kinema.serve.errors import ApiError
from kinema.serve.intake import Body, Intake
from kinema.serve.run import configured, listen
from kinema.serve.settings import Limits, ServeSettings

GET = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
POST = b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


class Server:
    """uvicorn as `kinema serve` sets it up, in a thread."""

    def __init__(self, data, most: Limits) -> None:
        settings = ServeSettings(data=data, workers=0, warm=False, limits=most)
        self.app = create_app(settings)
        self._uvicorn = uvicorn.Server(configured(self.app, settings))
        self._listening = listen("127.0.0.1", 0)
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._uvicorn.run, kwargs={"sockets": [self._listening]})
        self._thread.start()

    def open(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def stop(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join()
        self._listening.close()


@contextmanager
def running(data, **changes) -> Iterator[Server]:
    server = Server(data, limits(**changes))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def hasty(tmp_path_factory) -> Iterator[Server]:
    """It waits for no body."""
    with running(tmp_path_factory.mktemp("hasty"), header_seconds=600.0, body_seconds=0.3) as found:
        yield found


class Deadlines:
    """The time for headers, which is over when a test says so."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._last: Connection | None = None

    def begin(self, connection: Connection) -> None:
        """In place of `Connection._set_deadline`."""
        self._last = connection
        connection._deadline = connection.loop.create_task(self._wait(connection))

    async def _wait(self, connection: Connection) -> None:
        while not self._over.is_set():
            await asyncio.sleep(0.01)
        connection._too_late()

    def pass_by(self) -> None:
        """Once the server has some bytes of the last connection's next request, or of what should be one."""
        until = time.monotonic() + 60
        while not (self._last and self._last._said_something and self._last._deadline):
            assert time.monotonic() < until
            time.sleep(0.01)
        self._over.set()


@pytest.fixture
def deadlines(monkeypatch) -> Deadlines:
    found = Deadlines()
    monkeypatch.setattr(Connection, "_set_deadline", lambda connection: found.begin(connection))
    return found


def until_closed(client: socket.socket, drip: bytes = b"") -> bytes:
    """What comes until the server closes, while bytes drip in."""
    found = b""
    client.settimeout(0.05 if drip else 20)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            piece = client.recv(1 << 16)
        except TimeoutError:
            with suppress(ConnectionError):  # it is closed, and what it said before is read below
                client.sendall(drip)
            continue
        except ConnectionError:
            return found
        if not piece:
            return found
        found += piece
    raise AssertionError("the connection stays open")


def answered(client: socket.socket, request: bytes) -> tuple[int, bytes]:
    """Status and body of an answer with a length."""
    client.sendall(request)
    return parsed(client.makefile("rb"))


def parsed(stream) -> tuple[int, bytes]:
    status, length = int(stream.readline().split()[1]), 0
    while (line := stream.readline().strip().lower()) != b"":
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return status, stream.read(length)


def error_in(answer: bytes) -> tuple[int, str]:
    """Status and code of an answer that ends a connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def test_headers_that_drip_in_are_not_waited_for(hasty, deadlines):
    with hasty.open() as client:
        client.sendall(GET[:20])
        deadlines.pass_by()
        assert error_in(until_closed(client, drip=b"a")) == (408, "timeout")


def test_a_connection_that_says_nothing_is_closed_without_a_word(tmp_path):
    with running(tmp_path, header_seconds=0.2) as server, server.open() as client:
        assert until_closed(client) == b""


def test_headers_after_an_answer_have_no_more_time(hasty, deadlines):
    with hasty.open() as client:
        assert answered(client, GET)[0] == 200
        client.sendall(b"GET /healthz HTT")
        deadlines.pass_by()
        assert error_in(until_closed(client, drip=b"a")) == (408, "timeout")


def test_a_body_that_drips_in_is_given_up(hasty):
    with hasty.open() as client:
        client.sendall(POST % (b"/api/jobs", 1000) + b"{")
        assert error_in(until_closed(client, drip=b" ")) == (408, "too_slow")


def test_a_body_that_goes_on_after_its_answer_does_not_keep_the_connection(hasty, deadlines):
    with hasty.open() as client:
        assert answered(client, POST % (b"/nothing", 1000))[0] == 404
        client.sendall(b" ")
        deadlines.pass_by()
        assert until_closed(client, drip=b" ") == b""


def test_what_is_no_http_is_told_as_any_error(hasty):
    with hasty.open() as client:
        client.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert error_in(until_closed(client)) == (400, "invalid_request")


def test_parts_that_come_in_time_are_one_request_and_the_connection_stays(tmp_path):
    with running(tmp_path) as server, server.open() as client:
        for _ in range(2):
            client.sendall(GET[:30])
            time.sleep(0.02)
            assert answered(client, GET[30:])[0] == 200
        client.sendall(POST % (b"/api/curve", 28) + b'{"text": "t", ')
        time.sleep(0.02)
        assert answered(client, b'"frames": 3 } ')[0] == 200
        client.sendall(GET + GET)  # one after the other, sent together
        stream = client.makefile("rb")
        assert [parsed(stream)[0] for _ in range(2)] == [200, 200]


def test_whoever_waits_longest_makes_room(tmp_path):
    with running(tmp_path, connections=2) as server, server.open() as first:
        assert answered(first, GET)[0] == 200
        with server.open() as second:
            assert answered(second, GET)[0] == 200
            assert answered(first, GET)[0] == 200  # now the second has waited longest
            with server.open() as third:
                assert answered(third, GET)[0] == 200
                assert until_closed(second) == b""
                assert answered(first, GET)[0] == 200


def test_where_all_are_answered_a_further_one_is_told_to_come_back(tmp_path):
    events = GET.replace(b"/healthz", b"/api/events")
    with running(tmp_path, connections=2) as server, server.open() as first, server.open() as second:
        for client in (first, second):
            client.sendall(events)
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")
        with server.open() as third:
            answer = until_closed(third)
            assert error_in(answer) == (503, "busy")
            assert b"retry-after" in answer
        first.close()
        until = time.monotonic() + 60
        status = 503
        while status == 503 and time.monotonic() < until:  # until it has seen that the first one left
            with server.open() as third:
                status = answered(third, GET)[0]
        assert status == 200


def test_uploads_on_their_way_are_counted(tmp_path):
    with running(tmp_path, incoming_bytes=1000) as server:
        raw = POST.replace(b"application/json", b"application/octet-stream")
        with server.open() as first:
            first.sendall(raw % (b"/api/media", 900) + 800 * b"a")
            status = 0
            until = time.monotonic() + 60
            while status != 429 and time.monotonic() < until:  # until the server has read the first one
                with server.open() as second:
                    put = raw.replace(b"POST", b"PUT") % (b"/api/media", 300)
                    status = answered(second, put)[0]  # 405 as long as there is room
            assert status == 429
        with server.open() as third:  # the first one has left, and what it took is free
            third.sendall(raw % (b"/nothing", 2))
            assert answered(third, b"{}")[0] == 404


def parts(*sizes: int):
    left = list(sizes)

    async def receive():
        size = left.pop(0)
        return {"type": "http.request", "body": size * b"a", "more_body": bool(left)}

    return receive


def read(body: Body) -> int:
    async def whole() -> int:
        count = 0
        while True:
            message = await body()
            count += len(message["body"])
            if not message["more_body"]:
                return count

    return asyncio.run(whole())


def test_time_that_a_client_takes_is_counted_and_no_other():
    now = 0.0

    async def receive():
        nonlocal now
        now += 1.0  # a second for each part
        return {"type": "http.request", "body": 500 * b"a", "more_body": now < 20}

    slow = limits(body_seconds=5.0, slowest=1000)
    with pytest.raises(ApiError) as caught:  # the part after n seconds: 5 + n / 2 - n is 0 at 10
        read(Body(receive, Intake(slow, lambda: now), 10**6, "disk"))
    assert (caught.value.status, caught.value.code) == (408, "too_slow")
    assert now == 10
    assert "after 5000 bytes" in caught.value.message
    now = 0.0
    assert (
        read(Body(receive, Intake(limits(body_seconds=5.0, slowest=500), lambda: now), 10**6, "disk"))
        == 10_000
    )


def test_after_a_body_is_complete_any_time_may_pass():
    async def receive():
        return {"type": "http.disconnect"}

    body = Body(parts(3), Intake(limits(body_seconds=0.0001)), 10, "memory")

    async def later():
        assert not (await body())["more_body"]
        body._receive = receive
        await asyncio.sleep(0.01)
        return await body()

    assert asyncio.run(later())["type"] == "http.disconnect"


@pytest.mark.parametrize(("where", "name"), [("disk", "incoming_bytes"), ("memory", "held_bytes")])
def test_all_bodies_together_have_a_limit_and_what_is_answered_is_free(where, name):
    intake = Intake(limits(**{name: 10}))
    first, second = (Body(parts(4, 2), intake, 100, where) for _ in range(2))
    assert read(first) == 6
    with pytest.raises(ApiError) as caught:
        read(second)
    assert (caught.value.status, caught.value.headers["retry-after"]) == (429, "10")
    second.close()
    assert intake.held[where] == 6
    with pytest.raises(ApiError) as caught:
        Body(parts(), intake, 100, where).check_announced("5")
    assert caught.value.status == 429
    first.close()
    first.close()
    assert intake.held == {"disk": 0, "memory": 0}
    assert read(Body(parts(4, 4, 2), intake, 10, where)) == 10
