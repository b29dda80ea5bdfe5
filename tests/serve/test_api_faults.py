"""What must not bring a server down or stop a part of it: disks, bugs, clients that send much, or twice."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from live import SHOT, client, error_of, limits

from kinema.cli import serve as cli
from kinema.core.errors import ConfigError, KinemaError, MediaError
from kinema.serve import bodies, studio
from kinema.serve.bodies import MOST_VALUES
from kinema.serve.errors import ApiError
from kinema.serve.events import Watcher
from kinema.serve.folders import Folders
from kinema.serve.media import localized
from kinema.serve.queue import Queue
from kinema.serve.results import sweep
from kinema.serve.run import DrainingServer, listen, serve
from kinema.serve.settings import ServeSettings
from kinema.serve.worker_process import WorkerProcess, WorkerSettings
from kinema.story.storyboard import MAX_SHOTS, from_mapping

PICTURE = "data:image/png;base64," + 4000 * "A"


def test_words_of_strangers_are_no_counts_of_their_own(tmp_path):
    with client(tmp_path) as server:
        for method in ("EVIL1", "EVIL2", "EVIL3"):
            assert server.request(method, "/nothing").status_code == 404
        counts = server.get("/metrics").text
    assert "EVIL" not in counts
    assert 'kinema_http_requests_total{method="other",route="unknown",code="404"} 3' in counts


def test_what_is_parsed_as_a_whole_is_smaller_than_a_file(tmp_path):
    small = limits(json_bytes=2000, inline_bytes=3000, upload_bytes=100_000)
    job = "video_" + 26 * "0"
    with client(tmp_path, limits=small) as server:
        inline = {"prompt": "a", "input_reference": {"image_url": PICTURE}}
        assert error_of(server.post("/v1/videos", json=inline))["code"] == "too_large"
        assert error_of(server.post("/v1/videos", content=4000 * b"a"))["code"] == "too_large"
        beat = {"token": "t", "progress": {}, "preview": 3000 * "A"}
        assert error_of(server.post(f"/api/workers/{job}/beat", json=beat))["code"] == "too_large"
        form = {"input_reference": ("a.png", 4000 * b"a")}
        answer = server.post("/v1/videos", data={"prompt": "a"}, files=form)
        assert error_of(answer)["param"] == "input_reference"
        assert error_of(server.post("/api/media", content=4000 * b"a"))["code"] != "too_large"


def test_a_server_that_cannot_begin_says_so_in_a_line(tmp_path):
    (tmp_path / "queue.sqlite3").write_bytes(200 * b"no database ")
    with listen("127.0.0.1", 0) as listening, pytest.raises(ConfigError, match="damaged"):
        serve(ServeSettings(data=tmp_path, workers=0), listening)
    with listen("127.0.0.1", 0) as listening, pytest.raises(KinemaError, match="nowhere"):
        serve(ServeSettings(data=tmp_path / "new", workers=0, models=("./nowhere",)), listening)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be used: not a directory; choose another --data"):
        Folders(tmp_path / "file" / "data").make()


def test_a_full_disk_is_no_bug_and_leaves_no_part(tmp_path, monkeypatch):
    def full(self, piece):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with client(tmp_path) as server:
        monkeypatch.setattr(bodies._Target, "_take", full)
        for body in (b"a", 100_000 * b"a"):
            answer = server.post("/api/media", content=body)
            assert (answer.status_code, error_of(answer)["code"]) == (503, "storage")
        form = server.post("/api/media", files={"file": b"abc"})
        assert (form.status_code, error_of(form)["code"]) == (503, "storage")
        assert not list((tmp_path / "incoming").iterdir())


def test_files_of_forms_wait_in_the_data_folder(tmp_path, monkeypatch):
    places = []
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(DrainingServer, "run", lambda *_, **__: places.append(tempfile.gettempdir()))
    with listen("127.0.0.1", 0) as listening:
        serve(ServeSettings(data=tmp_path, workers=0), listening)
    assert places == [str(tmp_path / "incoming")]


def test_a_form_that_has_no_room_to_wait_in_is_no_bug(tmp_path, monkeypatch):
    with client(tmp_path) as server:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not there"))
        form = server.post("/api/media", files={"file": 2_000_000 * b"a"})
        assert (form.status_code, error_of(form)["code"]) == (503, "storage")
        form = server.post("/v1/videos", data={"prompt": "a"}, files={"input_reference": 2_000_000 * b"a"})
        assert (form.status_code, error_of(form)["code"]) == (503, "storage")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api/media", b"application/octet-stream"),
        ("/api/media", b"multipart/form-data; boundary=x"),
        ("/api/jobs", b"application/json"),
        ("/v1/videos", b"application/json"),
    ],
)
def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_bug(tmp_path, caplog, path, kind):
    parts = [{"type": "http.request", "body": b"--x", "more_body": True}, {"type": "http.disconnect"}]
    sent = []

    async def receive():
        return parts.pop(0)

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"127.0.0.1:8420"), (b"content-type", kind), (b"content-length", b"100")]
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
             "headers": headers, "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 8420), "scheme": "http",
             "root_path": "", "http_version": "1.1"}  # fmt: skip
    with client(tmp_path) as server, caplog.at_level("INFO", "kinema.serve"):
        server.portal.call(server.app, scope, receive, send)
        counts = server.get("/metrics").text
        assert not list((tmp_path / "incoming").iterdir())
    assert f'method="POST",route="{path}",code="499"}} 1' in counts
    assert not sent
    told = [record for record in caplog.records if getattr(record, "facts", {}).get("status") == 499]
    assert [record.levelname for record in told] == ["INFO"]
    assert "bug" not in [record.getMessage() for record in caplog.records]


def test_a_queue_that_cannot_be_read_is_no_bug(tmp_path, monkeypatch):
    with client(tmp_path) as server:
        queue = server.app.state.studio.queue
        id = queue.submit(SHOT).id

        def broken(id):
            raise MediaError("cannot use the queue: disk I/O error.")

        monkeypatch.setattr(queue, "get", broken)
        for path in (f"/api/jobs/{id}", f"/v1/videos/{id}"):
            answer = server.get(path)
            assert (answer.status_code, error_of(answer)["code"]) == (503, "storage")
            assert answer.headers["retry-after"] == "10"


@pytest.mark.parametrize("sign", [",", "[", "{"])
def test_a_body_of_very_many_values_is_refused_before_it_is_parsed(sign, monkeypatch):
    room = MOST_VALUES - len("{")
    text = '{"a": "%s"}'
    assert bodies.parse_object(text % (room * sign)) == {"a": room * sign}
    monkeypatch.setattr(bodies, "parse_json", lambda text: pytest.fail("parsed"))
    for body in (text % ((room + 1) * sign), (text % ((room + 1) * sign)).encode()):
        with pytest.raises(ApiError, match=r"more than 200000; send fewer values") as caught:
            bodies.parse_object(body)
        assert (caught.value.status, caught.value.code) == (400, "too_many_values")


def test_a_request_that_is_too_long_to_keep_is_told_so(tmp_path, monkeypatch):
    with client(tmp_path) as server:
        job = server.post("/api/jobs", json={"request": SHOT}).json()["jobs"][0]["id"]
        monkeypatch.setattr("kinema.serve.queue.LONGEST_REQUEST", 100)
        long = {**SHOT, "prompt": 100 * "a"}
        for answer in (
            server.post("/api/jobs", json={"request": long}),
            server.patch(f"/api/jobs/{job}", json={"request": long}),
            server.post("/v1/videos", json={"prompt": 100 * "a"}),
        ):
            assert (answer.status_code, error_of(answer)["code"]) == (413, "too_large")
            assert "a job keeps 100" in error_of(answer)["message"]


def test_uploads_that_were_cut_off_are_removed_at_the_start(tmp_path):
    folders = Folders(tmp_path)
    folders.make()
    (folders.incoming / "upload-0123").write_bytes(b"half")
    with Queue(folders.queue) as queue:
        assert sweep(queue, folders) == 1
    assert not list(folders.incoming.iterdir())


def test_a_file_that_cannot_be_removed_stops_no_events_and_keeps_no_others(tmp_path):
    told, gone = [], []

    async def stubborn(name):
        gone.append(name)
        raise PermissionError(errno.EPERM, "not permitted")

    async def follow(queue):
        watcher = Watcher(queue, 4, told.append, stubborn)
        await watcher.start()
        for job in (deleted := queue.submit_all([SHOT] * 3)):
            queue.delete(job.id)
        until = time.monotonic() + 60
        last = queue.submit(SHOT)
        while last.id not in {job.id for job in told} and time.monotonic() < until:
            await asyncio.sleep(0.05)
        last = queue.mark(last.id, title="after the failure")
        while last.title not in {job.title for job in told} and time.monotonic() < until:
            await asyncio.sleep(0.05)
        await watcher.stop()
        assert sorted(gone) == sorted(job.id for job in deleted)

    with Queue(tmp_path / "queue.sqlite3") as queue:
        asyncio.run(follow(queue))
    assert told[-1].title == "after the failure"


def test_a_call_sent_again_while_the_first_is_looked_at_makes_one_job(tmp_path):
    with client(tmp_path) as server:
        held, begun, come = server.app.state.studio, threading.Event(), []
        turns, until = held.one_at_a_time, time.monotonic() + 60

        @contextlib.asynccontextmanager
        async def counted(key):
            come.append(key)
            async with turns(key):
                yield

        async def slowly(asked):
            begun.set()
            while len(come) < 2 and time.monotonic() < until:  # until the second one is there
                await asyncio.sleep(0.01)
            return {"is_image": False, "seconds": 1.0}

        held.one_at_a_time, held.plan_once = counted, slowly

        def create(**headers):
            return server.post("/v1/videos", json={"prompt": "a"}, headers=headers).json()["id"]

        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(create)
            begun.wait(10)
            again = threads.submit(create, **{"x-stainless-retry-count": "1"})
            assert first.result() == again.result()
        assert len(come) == 2
        assert len(server.get("/api/jobs").json()["jobs"]) == 1
        assert create() != first.result()  # two calls that are no retries stay two


def test_others_are_answered_while_a_long_request_is_read(tmp_path, monkeypatch):
    begun, looked, over = threading.Event(), threading.Event(), threading.Event()

    def slowly(values, settings, exists):
        begun.set()
        if not looked.wait(60):
            over.set()
        raise ConfigError("prompt: read to its end.")

    monkeypatch.setattr(studio, "read_asked", slowly)
    with client(tmp_path) as server, ThreadPoolExecutor(1) as threads:
        for path, body in (("/api/plan", {"request": SHOT}), ("/v1/videos", {"prompt": "a"})):
            begun.clear()
            looked.clear()
            long = threads.submit(server.post, path, json=body)
            assert begun.wait(60)
            assert server.get("/healthz").status_code == 200
            assert not over.is_set()  # nobody waited for the long one to give up
            looked.set()
            assert "read to its end" in error_of(long.result())["message"]


def test_without_a_package_of_the_server_the_command_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "python_multipart", None)
    with pytest.raises(ConfigError, match=r'python-multipart is not .*pip install -c .* "\.\[server\]"'):
        cli.serve(data=tmp_path, port=0, workers=0)


def test_a_prompt_that_looks_like_an_upload_stays_a_prompt(tmp_path):
    prompt = f"media:{64 * '0'} in the rain"
    story, names = localized({"prompt": prompt}, lambda sha256: tmp_path / sha256, {})
    assert story.to_mapping()["prompt"] == prompt
    assert not names


def test_too_many_shots_are_refused_before_any_is_read():
    with pytest.raises(ConfigError, match=f"shots has {MAX_SHOTS + 1} entries; the most is {MAX_SHOTS}"):
        from_mapping({"shots": [17] * (MAX_SHOTS + 1)})


def test_a_worker_that_cannot_be_started_is_tried_again(tmp_path, monkeypatch):
    tries = []

    def started(self):
        tries.append(1)
        if len(tries) == 1:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    monkeypatch.setattr(WorkerProcess, "_started", started)
    with Queue(tmp_path / "queue.sqlite3") as queue:
        worker = WorkerProcess(queue, WorkerSettings(data=tmp_path))
        worker.start()
        until = time.monotonic() + 60
        while worker.pid is None and time.monotonic() < until:
            time.sleep(0.05)
        assert worker.pid is not None
        worker.stop(1.0)
    assert len(tries) == 2
