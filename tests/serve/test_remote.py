"""Workers elsewhere: over real HTTP, through networks that break at the worst moment, one result per job."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import socket
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import uvicorn
from PIL import Image

from kinema.core.errors import ConfigError, MediaError
from kinema.pipelines.durable.pace import Every
from kinema.pipelines.loading import load
from kinema.serve.app import create_app
from kinema.serve.folders import Folders
from kinema.serve.http_client import Address, HttpClient, Refused, Unreachable
from kinema.serve.jobs import JobError, JobProgress
from kinema.serve.media import MediaStore
from kinema.serve.queue import Queue
from kinema.serve.queue_leases import Lost
from kinema.serve.remote import RemoteDesk
from kinema.serve.results import Made
from kinema.serve.settings import ServeSettings
from kinema.serve.worker import Worker, WorkerOptions

TOKEN = "a-token-for-tests-only"
OPTIONS = WorkerOptions(name="far", lease=60.0, news=0.02, every=Every(steps=1))


@contextmanager
def served(data, model):
    """A server on a free port, in a thread; its URL."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    settings = ServeSettings(data=data, port=port, token=TOKEN, models=(model,), workers=0, warm=False)
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            threading.Event().wait(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def loaded(small):
    model = load(str(small), device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kinema.serve.worker.load", lambda *_, **__: model)
        yield model


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def url(data, small, loaded):
    with served(data, str(small)) as url:
        yield url


@pytest.fixture
def folders(data) -> Folders:
    return Folders(data)


@pytest.fixture
def queue(folders):
    with Queue(folders.queue) as queue:
        yield queue
        for job in queue.list(limit=100).jobs:
            queue.forfeit("remote far")
            queue.delete(job.id)


class Flaky(HttpClient):
    """A network that loses answers: each kind of call is made, and its first answer thrown away."""

    def __init__(self, url: str) -> None:
        super().__init__(url, TOKEN)
        self.lost: set[str] = set()
        self.calls: list[str] = []

    def ask(self, method, path, values=None):
        self.calls.append(path)
        return self._once(path, super().ask(method, path, values))

    def send(self, path, fields, file):
        self.calls.append(path)
        return self._once(path, super().send(path, fields, file))

    def pieces(self, path):
        self.calls.append(path)
        whole = list(super().pieces(path))
        if path not in self.lost:
            self.lost.add(path)
            yield whole[0][:5]
            raise Unreachable("the connection broke.")
        yield from whole

    def _once(self, path, answer):
        kind = path.rsplit("/", 1)[-1]
        if kind in ("result", "release", "fail") and kind not in self.lost:
            self.lost.add(kind)
            raise Unreachable("the answer was lost.")
        return answer


def desk(client: HttpClient, tmp_path, **options) -> RemoteDesk:
    return RemoteDesk(client, tmp_path / "far", {}, sleep=lambda _: None, **options)


@pytest.fixture
def shot(small) -> dict:
    return {"prompt": "a fox", "model": str(small), "seed": 3, "steps": 2, "frames": 5, "size": "64x64"}


def test_a_job_is_made_elsewhere_and_its_file_comes_back_once(url, queue, folders, shot, tmp_path):
    picture = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(picture, "PNG")
    sha256 = MediaStore(folders.media).receive([picture.getvalue()], most=10**6)
    id = queue.submit({**shot, "keyframes": [{"image": f"media:{sha256}", "frame": 0}]}).id
    client = Flaky(url)
    far = desk(client, tmp_path)
    Worker(far, OPTIONS).work(*far.lease("far", 60))
    job = queue.get(id)
    assert (job.state, job.attempt) == ("done", 1), job.error
    assert sum(path.endswith("/result") for path in client.calls) == 2  # the first answer was lost
    assert sum("/media/" in path for path in client.calls) == 2
    assert (job.result.frames, job.result.seed, job.result.width) == (5, 3, 64)
    made = (folders.results / job.result.file).read_bytes()
    assert f"media:{sha256}".encode() in made
    assert str(tmp_path).encode() not in made
    assert folders.thumbnail(id).stat().st_size
    assert list((tmp_path / "far" / "states").iterdir()) == []
    assert [path.name for path in (tmp_path / "far" / "media").iterdir()] == [sha256]


def test_the_bytes_are_those_of_a_local_worker(url, queue, folders, shot, tmp_path):
    from kinema.serve.desk import LocalDesk

    first, second = (queue.submit(shot).id for _ in range(2))
    Worker(LocalDesk(folders, queue, {}), OPTIONS).work(*queue.lease("near", 60))
    far = desk(HttpClient(url, TOKEN), tmp_path)
    Worker(far, OPTIONS).work(*far.lease("far", 60))
    files = [(folders.results / f"{id}.mp4").read_bytes() for id in (first, second)]
    assert files[0] == files[1]


def test_a_result_that_comes_too_late_is_not_taken(url, queue, folders, shot, tmp_path):
    id = queue.submit(shot).id
    far = desk(HttpClient(url, TOKEN), tmp_path)
    job, token = far.lease("far", 60)
    queue.forfeit("remote far")
    Worker(far, OPTIONS).work(job, token)
    assert (queue.get(id).state, queue.get(id).result) == ("queued", None)
    assert not list(folders.results.glob(f"{id}*"))


def test_beats_bring_back_what_is_asked(url, queue, shot, tmp_path):
    far = desk(HttpClient(url, TOKEN), tmp_path)
    id = queue.submit(shot).id
    job, token = far.lease("far", 60)
    progress = JobProgress(phase="denoise", step=1, steps=2, fraction=0.5, seconds_left=1.5)
    assert far.beat(id, token, progress, None) == "go"
    assert queue.get(id).progress == progress
    queue.cancel(id, keep=True)
    assert far.beat(id, token, progress, None) == "cancel_keep"
    queue.cancel(id, keep=False)
    assert far.beat(id, token, progress, None) == "cancel_drop"
    assert far.beat(id, "another", progress, None) == "lost"
    far.release(id, token)
    assert queue.get(id).state == "cancelled"
    assert far.beat(id, token, progress, None) == "lost"
    assert far.lease("far", 60) is None
    assert job.request == queue.get(id).request


def test_a_preview_arrives(url, queue, folders, shot, tmp_path):
    far = desk(HttpClient(url, TOKEN), tmp_path)
    id = queue.submit(shot).id
    _, token = far.lease("far", 60)
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "WEBP")
    assert far.beat(id, token, JobProgress(preview=1), picture.getvalue()) == "go"
    assert folders.preview(id).read_bytes() == picture.getvalue()


def test_a_failure_is_told_even_if_the_first_try_gets_lost(url, queue, shot, tmp_path):
    far = desk(Flaky(url), tmp_path)
    id = queue.submit(shot).id
    _, token = far.lease("far", 60)
    with pytest.raises(Lost):  # it counted the first time, and the lease is over
        far.fail(id, token, JobError(code="bad_request", message="no"), again=False)
    assert (queue.get(id).state, queue.get(id).error.message) == ("failed", "no")


def test_a_file_that_changed_on_its_way_is_refused(url, queue, folders, tmp_path):
    sha256 = hashlib.sha256(b"true").hexdigest()
    (folders.media / sha256).write_bytes(b"false")
    far = desk(HttpClient(url, TOKEN), tmp_path)
    with pytest.raises(MediaError, match="damaged"):
        far.media(sha256)
    with pytest.raises(MediaError, match="not on the server"):
        far.media("0" * 64)
    assert list((tmp_path / "far" / "media").iterdir()) == []
    (folders.media / sha256).unlink()


def test_frames_of_a_cancelled_job_are_asked_for_where_they_lie(url, queue, shot, tmp_path):
    """By its folder: a worker that was started again has another name."""
    far = desk(HttpClient(url, TOKEN), tmp_path / "one")
    id = queue.submit(shot).id
    _, token = far.lease("far 1", 60)
    far.beat(id, token, JobProgress(phase="denoise", step=1, steps=2, fraction=0.5), None)
    far.release(id, token)
    queue.cancel(id, keep=True)
    assert queue.lease("near", 60) is None
    assert desk(HttpClient(url, TOKEN), tmp_path / "two").lease("far 1", 60) is None
    job, _ = desk(HttpClient(url, TOKEN), tmp_path / "one").lease("far 2", 60)
    assert (job.id, job.state) == (id, "cancelling")


def test_a_folder_keeps_what_it_is_known_by(tmp_path):
    def known(folder) -> str:
        return RemoteDesk(HttpClient("http://nowhere", None), folder, {})._place

    first = known(tmp_path / "a")
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert known(tmp_path / "a") == first != known(tmp_path / "b")
    (tmp_path / "a" / "place").write_bytes(b"\xff")
    assert re.fullmatch("[0-9a-f]{32}", known(tmp_path / "a"))
    assert known(tmp_path / "a") != first
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"states", "media", "place"}


@pytest.mark.parametrize("place", [3, "", "far", "G" * 32])
def test_a_place_of_another_form_is_refused(url, place):
    with pytest.raises(Refused, match="place is not 32 hexadecimal digits"):
        HttpClient(url, TOKEN).ask("POST", "/api/workers/lease", {"worker": "far", "place": place})


@pytest.mark.parametrize("partial", [False, True])
def test_a_part_from_before_is_not_taken_for_what_was_sent_now(tmp_path, partial):
    class Away(HttpClient):
        tries = 0

        def send(self, path, fields, file):
            self.tries += 1
            raise Unreachable("away.") if self.tries == 1 else Lost("over.")

        def ask(self, method, path, values=None):
            return {"result": {"partial": True}}

    made = Made(
        file=tmp_path / "x.mp4", frames=5, fps="8", width=64, height=64, seed=3, partial=partial,
        thumbnail=b"", spritesheet=b"",
    )  # fmt: skip
    far = desk(Away("http://nowhere", None), tmp_path)
    if partial:
        far.finish("video_" + 26 * "0", "token", made)
    else:
        with pytest.raises(Lost):
            far.finish("video_" + 26 * "0", "token", made)


def test_a_server_that_is_away_is_asked_again_for_a_while(tmp_path):
    now, pauses = [0.0], []

    def sleep(seconds):
        pauses.append(seconds)
        now[0] += seconds

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}"
    far = RemoteDesk(HttpClient(nobody, None), tmp_path / "far", {}, sleep=sleep, clock=lambda: now[0])
    with pytest.raises(Unreachable, match="no answer"):
        far.media("0" * 64)
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert 250 < sum(pauses) <= 300


def test_what_is_old_here_is_removed_once_an_hour_while_there_is_nothing_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(HttpClient, "ask", lambda *_: None)
    now = [0.0]
    far = desk(HttpClient("http://nowhere", None), tmp_path, clock=lambda: now[0])
    states = tmp_path / "far" / "states"
    MediaStore(tmp_path / "far" / "media").receive([b"a picture"], most=100)
    used = MediaStore(tmp_path / "far" / "media").receive([b"another"], most=100)
    for name in ("left", "at work"):
        (states / name / "shot").mkdir(parents=True)
        (states / name / "shot" / "state").touch()
    long_ago = time.time() - 3 * 86400
    for path in (tmp_path / "far").rglob("*"):
        os.utime(path, (long_ago, long_ago))
    os.utime(states / "at work" / "shot" / "state")
    far.media(used)
    assert far.lease("far", 60) is None
    assert len(list(states.iterdir())) == 2  # the last look is not an hour ago
    now[0] += 3600.0
    assert far.lease("far", 60) is None
    assert [path.name for path in states.iterdir()] == ["at work"]
    assert [path.name for path in (tmp_path / "far" / "media").iterdir()] == [used]


def test_a_worker_without_the_model_leaves_the_job_to_others(small, loaded, tmp_path):
    model, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    shutil.copytree(small, model)
    shot = {"prompt": "a fox", "model": str(model), "seed": 3, "steps": 1, "frames": 1, "size": "64x64"}
    with served(tmp_path / "data", str(model)) as url, Queue(Folders(tmp_path / "data").queue) as queue:
        id = queue.submit(shot, kind="image").id
        far = desk(HttpClient(url, TOKEN), tmp_path)
        model.rename(elsewhere)
        Worker(far, OPTIONS).work(*far.lease("far", 60))
        job = queue.get(id)
        assert (job.state, job.attempt, job.error.code) == ("queued", 0, "no_worker")
        assert "waits for another worker" in job.error.message
        assert far.lease("far", 60) is None
        elsewhere.rename(model)
        Worker(far, OPTIONS).work(*far.lease("near", 60))
        assert (queue.get(id).state, queue.get(id).error) == ("done", None)


def test_a_worker_without_the_lora_leaves_the_job_to_others(url, queue, shot, tmp_path):
    id = queue.submit({**shot, "loras": [{"path": "style"}]}).id
    far = desk(HttpClient(url, TOKEN), tmp_path)
    Worker(far, OPTIONS).work(*far.lease("far", 60))
    job = queue.get(id)
    assert (job.state, job.error.param) == ("queued", "loras")
    assert "'style' is not here (it has none)" in job.error.message


@pytest.mark.parametrize("wrap", [lambda shot: shot, lambda shot: {"shots": [{"frames": 1}, shot]}])
def test_a_job_whose_model_the_server_has_no_more_reaches_no_worker(url, queue, shot, tmp_path, wrap):
    far = desk(HttpClient(url, TOKEN), tmp_path)
    old = queue.submit(wrap({**shot, "model": "embedded"})).id
    new = queue.submit(shot).id
    assert far.lease("far", 60)[0].id == new
    error = queue.get(old).error
    assert (queue.get(old).state, error.code) == ("failed", "unknown_model")
    assert "'embedded' is no model of this server any more" in error.message


def test_a_wrong_token_is_told_at_once(url):
    with pytest.raises(Refused, match="token"):
        HttpClient(url, "wrong").ask("GET", "/api/about")


@pytest.mark.parametrize("text", ["ftp://x", "http://", "http://u:p@x", "http://x:99999", "http://x?y"])
def test_what_is_no_address(text):
    with pytest.raises(ConfigError, match="no server"):
        Address.parse(text)


def test_addresses():
    assert Address.parse("studio") == Address(False, "studio", 8420, "")
    assert Address.parse("https://a.b/studio/") == Address(True, "a.b", 443, "/studio")
    assert Address.parse("http://[::1]:99") == Address(False, "::1", 99, "")
