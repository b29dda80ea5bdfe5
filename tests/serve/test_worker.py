"""Workers killed, cancelled, drained and late: accepted jobs end once, with the bytes of an uncut render."""

from __future__ import annotations

import io
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinema.core.contracts import Progress
from kinema.core.errors import BusyError, MediaError, ResourceError
from kinema.core.failpoints import SERVER_POINTS
from kinema.io.locks import Lock
from kinema.io.record import read_record
from kinema.io.video_read import open_video
from kinema.pipelines.durable.pace import Every
from kinema.pipelines.loading import load
from kinema.serve import worker as module
from kinema.serve.beats import Beats
from kinema.serve.desk import LocalDesk
from kinema.serve.folders import Folders
from kinema.serve.jobs import Job, JobProgress
from kinema.serve.media import MediaStore
from kinema.serve.queue import Queue
from kinema.serve.results import sweep
from kinema.serve.worker import Worker, WorkerOptions
from serve import forks

JOB = Job(id="video_x", kind="video", request={}, state="running", position=1.0, created=0.0)
OPTIONS = WorkerOptions(name="w", lease=60.0, news=0.02, every=Every(steps=1))


@pytest.fixture(scope="module")
def model(small):
    """In memory, so that no worker reads it again."""
    model = load(str(small), device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kinema.serve.worker.load", lambda *_, **__: model)
        patch.setattr("kinema.pipelines.run.load_vae", lambda *_, **__: model.vae)
        patch.setattr("kinema.serve.partial.load_decoder", lambda *_, **__: model.vae)
        yield model


@pytest.fixture
def folders(tmp_path) -> Folders:
    folders = Folders(tmp_path / "data")
    folders.make()
    return folders


@pytest.fixture
def queue(folders):
    with Queue(folders.queue) as queue:
        yield queue


@pytest.fixture
def shot(small, model) -> dict:
    return {"prompt": "a fox", "model": str(small), "seed": 3, "steps": 3, "frames": 5, "size": "64x64"}


def work(folders: Folders, **options) -> None:
    """What is there to do, as a worker does it."""
    with Queue(folders.queue) as queue:
        worker = Worker(LocalDesk(folders, queue, {}), WorkerOptions(**{**fields(), **options}))
        while (found := queue.lease("w", 60)) is not None:
            worker.work(*found)


def fields() -> dict:
    return {name: getattr(OPTIONS, name) for name in OPTIONS.__dataclass_fields__}


@pytest.fixture(scope="module")
def whole(small, model, tmp_path_factory) -> bytes:
    """The bytes of a job that nothing has cut off."""
    folders = Folders(tmp_path_factory.mktemp("whole"))
    folders.make()
    shot = {"prompt": "a fox", "model": str(small), "seed": 3, "steps": 3, "frames": 5, "size": "64x64"}
    with Queue(folders.queue) as queue:
        id = queue.submit(shot).id
        work(folders)
        assert queue.get(id).state == "done", queue.get(id).error
    return (folders.results / f"{id}.mp4").read_bytes()


def test_a_job_gives_its_file_and_pictures(folders, queue, shot, whole):
    id = queue.submit(shot).id
    work(folders)
    job = queue.get(id)
    assert (job.state, job.progress.fraction, job.attempt) == ("done", 1.0, 1)
    assert (job.result.frames, job.result.width, job.result.height, job.result.seed) == (5, 64, 64, 3)
    assert (folders.results / job.result.file).read_bytes() == whole
    assert job.result.bytes == len(whole)
    assert Image.open(folders.thumbnail(id)).format == "WEBP"
    sheet = Image.open(folders.spritesheet(id))
    assert (sheet.format, sheet.size) == ("JPEG", (256, 128))
    assert [path.name for path in folders.states.iterdir()] == []
    assert len(list(folders.results.iterdir())) == 3


@pytest.mark.parametrize(
    "point", [*(p for p in SERVER_POINTS if p != "media.written"), "step.synced:2", "frame.half:3"]
)
def test_killed_at_every_point_the_next_worker_gives_the_same_bytes_once(point, folders, queue, shot, whole):
    id = queue.submit(shot).id
    queue.close()
    assert forks.run(lambda: work(folders), point=point) == -signal.SIGKILL
    with Queue(folders.queue) as queue:
        assert queue.forfeit("w") == (point != "result.committed")
    assert forks.run(lambda: work(folders)) == 0
    with Queue(folders.queue) as queue:
        job = queue.get(id)
        assert job.state == "done"
        assert (folders.results / job.result.file).read_bytes() == whole
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("kinema.serve.results.ABANDONED", -1.0)
            sweep(queue, folders)
    assert {path.name.split(".")[0] for path in folders.results.iterdir()} == {id}
    assert len(list(folders.results.iterdir())) == 3


def test_what_was_rendered_is_not_rendered_again(folders, queue, shot, whole, monkeypatch):
    id = queue.submit(shot).id
    queue.close()
    forks.run(lambda: work(folders), point="result.staged")
    monkeypatch.setattr(module, "write", lambda *a, **k: pytest.fail("rendered twice"))
    with Queue(folders.queue) as queue:
        queue.forfeit("w")
        work(folders)
        assert queue.get(id).state == "done"
    assert (folders.results / f"{id}.mp4").read_bytes() == whole


def test_a_worker_that_comes_too_late_replaces_nothing(folders, queue, shot, whole):
    """Its lease ends while it renders; another worker has finished the job by then."""
    id = queue.submit(shot).id
    job, token = queue.lease("slow", 60)
    queue.forfeit("slow")
    slow = Worker(LocalDesk(folders, queue, {}), OPTIONS)
    work(folders)
    before = (folders.results / f"{id}.mp4").stat()
    slow.work(job, token)
    assert (folders.results / f"{id}.mp4").stat() == before
    assert queue.get(id).attempt == 2
    assert len(list(folders.results.iterdir())) == 3


def stepping(monkeypatch, call) -> None:
    """Call `call(event)` at every event of a render, and wait until a beat has told of it."""
    real = module.Worker._listener

    def listener(self, order, meter, beats):
        inner = real(self, order, meter, beats)

        def listen(event: Progress) -> None:
            call(event)
            beats._signal = self._desk.beat(order.id, beats._token, meter.now, None)
            inner(event)

        return listen

    monkeypatch.setattr(module.Worker, "_listener", listener)


def test_cancelled_while_denoising_the_estimate_is_kept(folders, queue, shot, monkeypatch, whole):
    id = queue.submit(shot).id

    def cancel(event):
        if event.phase == "denoise" and event.step == 2:
            queue.cancel(id, keep=True)

    stepping(monkeypatch, cancel)
    work(folders)
    job = queue.get(id)
    assert (job.state, job.result.partial, job.result.frames) == ("cancelled", True, 5)
    made = open_video(folders.results / job.result.file)
    assert made.frames == 5
    record = read_record(folders.results / job.result.file)
    assert record.shot["seed"] == 3
    assert record.post == {"partial": 5}
    assert list(folders.states.iterdir()) == []


def test_cancelled_while_decoding_the_frames_are_kept(folders, queue, shot, monkeypatch):
    id = queue.submit({**shot, "frames": 9}).id

    def cancel(event):
        if event.phase == "decode" and event.step == 2:
            queue.cancel(id, keep=True)

    stepping(monkeypatch, cancel)
    work(folders)
    job = queue.get(id)
    assert job.state == "cancelled"
    assert job.result.partial
    assert 1 <= job.result.frames < 9


@pytest.mark.parametrize("when", ["text", "denoise"])
def test_cancelled_without_keeping_leaves_nothing(folders, queue, shot, monkeypatch, when):
    id = queue.submit(shot).id
    stepping(monkeypatch, lambda event: queue.cancel(id, keep=False) if event.phase == when else None)
    work(folders)
    assert (queue.get(id).state, queue.get(id).result) == ("cancelled", None)
    assert list(folders.states.iterdir()) + list(folders.results.iterdir()) == []


def test_cancelled_before_the_first_step_there_is_nothing_to_keep(folders, queue, shot, monkeypatch):
    id = queue.submit(shot).id
    stepping(monkeypatch, lambda event: queue.cancel(id, keep=True) if event.phase == "text" else None)
    work(folders)
    assert (queue.get(id).state, queue.get(id).result) == ("cancelled", None)


def test_deleted_while_it_renders_it_leaves_nothing(folders, queue, shot, monkeypatch):
    id = queue.submit(shot).id
    stepping(monkeypatch, lambda event: queue.delete(id) if event.phase == "denoise" else None)
    work(folders)
    assert not queue.knows(id)
    assert list(folders.states.iterdir()) + list(folders.results.iterdir()) == []


def test_a_drained_worker_gives_its_job_back_and_the_next_goes_on(folders, queue, shot, monkeypatch, whole):
    id = queue.submit(shot).id
    with monkeypatch.context() as patch:
        worker = Worker(LocalDesk(folders, queue, {}), OPTIONS)
        stepping(patch, lambda event: worker.stop() if event.phase == "denoise" and event.step == 2 else None)
        worker.work(*queue.lease("w", 60))
    assert queue.get(id).state == "queued"
    steps = []
    stepping(monkeypatch, lambda event: steps.append(event.step) if event.phase == "denoise" else None)
    work(folders)
    assert steps == [3]
    assert (folders.results / f"{id}.mp4").read_bytes() == whole


def test_an_interrupted_job_that_waits_is_cancelled_with_what_it_has(folders, queue, shot, monkeypatch):
    id = queue.submit(shot).id
    with monkeypatch.context() as patch:
        worker = Worker(LocalDesk(folders, queue, {}), OPTIONS)
        stepping(patch, lambda event: worker.stop() if event.phase == "denoise" else None)
        worker.work(*queue.lease("w", 60))
    assert queue.cancel(id, keep=True).state == "cancelling"
    work(folders)
    assert (queue.get(id).state, queue.get(id).result.partial) == ("cancelled", True)


def test_another_request_under_the_same_name_is_not_mixed_with_the_old_one(
    folders, queue, shot, monkeypatch, whole
):
    id = queue.submit({**shot, "seed": 4, "prompt": "a wolf"}).id
    with monkeypatch.context() as patch:
        worker = Worker(LocalDesk(folders, queue, {}), OPTIONS)
        stepping(patch, lambda event: worker.stop() if event.phase == "denoise" else None)
        worker.work(*queue.lease("w", 60))
    queue.edit(id, shot)
    work(folders)
    assert (folders.results / f"{id}.mp4").read_bytes() == whole


def test_a_seed_that_is_drawn_stays_the_same_after_a_kill(folders, queue, shot):
    id = queue.submit({name: value for name, value in shot.items() if name != "seed"}).id
    queue.close()
    forks.run(lambda: work(folders), point="step.synced:2")
    seen = (folders.state(id) / "request.json").read_bytes()
    with Queue(folders.queue) as queue:
        queue.forfeit("w")
        work(folders)
        assert f"[{queue.get(id).result.seed}]".encode() in seen


def test_what_the_user_got_wrong_fails_at_once(folders, queue, shot):
    ids = [
        queue.submit({**shot, "frames": 6}).id,
        queue.submit({**shot, "keyframes": [{"image": "/etc/passwd"}]}).id,
        queue.submit({**shot, "keyframes": [{"image": f"media:{'0' * 64}"}]}).id,
    ]
    work(folders)
    jobs = [queue.get(id) for id in ids]
    assert [job.state for job in jobs] == ["failed"] * 3
    assert [job.attempt for job in jobs] == [1] * 3
    assert [job.error.code for job in jobs] == ["bad_request", "bad_request", "bad_media"]
    assert jobs[1].error.param == "keyframes[0].image"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ResourceError("not enough memory; ask for less."), "out_of_memory"),
        (BusyError("b.mp4 is being written by process 7; wait for it."), "busy"),
        (ZeroDivisionError("x"), "internal"),
    ],
)
def test_our_own_bugs_a_full_memory_and_a_file_in_use_are_tried_once_more(
    folders, queue, shot, monkeypatch, error, code
):
    id = queue.submit(shot).id

    def broken(*args, **kwargs):
        raise error

    monkeypatch.setattr(module, "write", broken)
    work(folders)
    job = queue.get(id)
    assert (job.state, job.attempt, job.error.code) == ("failed", 2, code)
    assert "/" not in job.error.message


def test_a_full_disk_fails_with_its_state_and_goes_on_when_there_is_room(
    folders, queue, shot, monkeypatch, whole
):
    id = queue.submit(shot).id

    def full(*args, **kwargs):
        raise MediaError("cannot publish: No space left on device.")

    with monkeypatch.context() as patch:
        patch.setattr("kinema.serve.desk.publish", full)
        work(folders)
    assert (queue.get(id).state, queue.get(id).error.code) == ("failed", "disk_full")
    monkeypatch.setattr(module, "write", lambda *a, **k: pytest.fail("rendered twice"))
    queue.retry(id)
    work(folders)
    assert (folders.results / f"{id}.mp4").read_bytes() == whole


def test_a_still_is_a_picture(folders, queue, shot):
    id = queue.submit({**shot, "frames": 1}, kind="image").id
    work(folders)
    job = queue.get(id)
    assert (job.result.file, job.result.frames) == (f"{id}.png", 1)
    assert Image.open(folders.results / job.result.file).size == (64, 64)


def test_frames_that_are_drawn_one_by_one_are_shown(folders, queue, shot, monkeypatch):
    shown = []
    monkeypatch.setattr("kinema.serve.previews.EVERY", 0.0)
    monkeypatch.setattr("kinema.serve.previews.SHARE", 1e9)  # whatever one costs
    monkeypatch.setattr(Beats, "tell", lambda self, progress, picture=None: shown.append(picture))
    id = queue.submit({**shot, "mode": "frame_by_frame", "frames": 4}).id
    work(folders)
    assert queue.get(id).state == "done", queue.get(id).error
    pictures = [Image.open(io.BytesIO(picture)) for picture in shown if picture is not None]
    assert pictures
    assert all(picture.format == "WEBP" for picture in pictures)


def test_the_model_stays_in_memory_between_jobs(folders, queue, shot, monkeypatch, model):
    loads = []
    monkeypatch.setattr(module, "load", lambda *a, **k: loads.append(a) or model)
    for seed in (1, 2):
        queue.submit({**shot, "seed": seed})
    work(folders)
    assert len(loads) == 1


def test_media_are_read_by_their_hash_and_no_path_reaches_the_file(folders, queue, shot, tmp_path):
    picture = tmp_path / "still"
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(picture, "PNG")
    sha256 = MediaStore(folders.media).receive([picture.read_bytes()], most=10**6)
    id = queue.submit({**shot, "keyframes": [{"image": f"media:{sha256}", "frame": 0}]}).id
    work(folders)
    job = queue.get(id)
    assert job.state == "done", job.error
    data = (folders.results / job.result.file).read_bytes()
    assert f"media:{sha256}".encode() in data
    assert str(folders.root).encode() not in data


def test_a_clip_is_painted_inside_by_hashes(folders, queue, shot, tmp_path):
    still, mask = np.full((64, 64, 3), 200, np.uint8), np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    store, hashes = MediaStore(folders.media), []
    for name, pixels in (("still", still), ("mask", mask)):
        Image.fromarray(pixels).save(tmp_path / name, "PNG")
        hashes.append(store.receive([(tmp_path / name).read_bytes()], most=10**6))
    source = {"path": f"media:{hashes[0]}", "mask": f"media:{hashes[1]}"}
    id = queue.submit({**shot, "frames": 1, "source": source}, kind="image").id
    work(folders)
    job = queue.get(id)
    assert job.state == "done", job.error
    made = np.asarray(Image.open(folders.results / job.result.file))
    assert (made[:, :32] == 200).all()
    assert not (made[:, 32:] == 200).all(axis=-1).any()


class Counting:
    """A desk that counts beats, and fails at the first ones."""

    def __init__(self, failing: int = 0) -> None:
        self.beats, self.failing, self.enough = [], failing, threading.Event()

    def beat(self, id, token, progress, preview):
        self.beats.append((progress.step, preview))
        if len(self.beats) <= self.failing:
            raise MediaError("no network")
        if len(self.beats) >= 5:
            self.enough.set()
        return "go"


def test_work_that_hangs_is_let_go_once_and_news_count_as_life():
    now, told, over = [0.0], [], threading.Event()

    class Timed:
        def beat(self, *rest):
            told.append(now[0])
            now[0] += 4.0  # of a clock of its own: each beat takes four seconds
            return "go"

    times = {"lease": 0.03, "news": 0.001, "stall": 10.0}
    with Beats(Timed(), JOB, "t", **times, hung=over.set, clock=lambda: now[0]) as beats:
        beats.tell(JobProgress(step=1))
        assert over.wait(30)
        count = len(told)
        assert count >= 3
    assert len(told) == count  # no beat after it was let go


def test_the_lease_is_renewed_without_news_and_after_failures():
    desk = Counting(failing=2)
    with Beats(desk, JOB, "t", lease=0.03, news=0.01):
        assert desk.enough.wait(30)


def test_a_preview_is_told_once_and_not_lost_when_a_beat_is():
    desk = Counting(failing=1)
    beating = Beats(desk, JOB, "t", lease=0.03, news=0.01)
    beating.tell(JobProgress(step=1), b"webp")  # before the first beat
    with beating:
        assert desk.enough.wait(30)
    assert [preview for _, preview in desk.beats[:2]] == [b"webp", b"webp"]
    assert [preview for _, preview in desk.beats[2:]] == [None] * len(desk.beats[2:])


def test_a_second_worker_waits_for_the_step_of_one_that_lost_its_lease(folders, queue, shot, whole):
    """Two processes never write one state: the late one lets go at its next step."""
    id = queue.submit(shot).id
    queue.close()
    ready, go, met = os.pipe(), os.pipe(), os.pipe()

    def slow() -> None:
        with pytest.MonkeyPatch.context() as patch:

            def wait(event: Progress) -> None:
                if event.phase == "denoise" and event.step == 1:
                    os.write(ready[1], b"x")
                    os.read(go[0], 1)

            stepping(patch, wait)
            with Queue(folders.queue) as queue:
                Worker(LocalDesk(folders, queue, {}), OPTIONS).work(*queue.lease("slow", 60))

    pid = forks.start(slow)
    os.read(ready[0], 1)
    with Queue(folders.queue) as queue:
        queue.forfeit("slow")

    def late() -> None:
        rest = Worker._rest

        def told(self, seconds: float) -> None:
            os.write(met[1], b"x")
            rest(self, seconds)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Worker, "_rest", told)
            work(folders)

    quick = forks.start(late)
    os.close(met[1])
    assert os.read(met[0], 1) == b"x", "it did not wait"
    os.write(go[1], b"x")
    codes = [os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in (pid, quick)]
    assert codes == [0, 0]
    with Queue(folders.queue) as queue:
        assert (queue.get(id).state, queue.get(id).attempt) == ("done", 2)
    assert (folders.results / f"{id}.mp4").read_bytes() == whole


def test_results_of_nobody_are_swept(folders, queue, shot, monkeypatch):
    id = queue.submit(shot).id
    work(folders)
    stray = Path(folders.results / "video_00000000000000000000000000.mp4")
    dead, staged = folders.states / ".x.kinema.lock", folders.results / f".{id}.abc.mp4"
    for path in (stray, staged, dead):
        path.write_bytes(b"x")
    with Lock(folders.states / ".y.kinema.lock", "y"):
        assert sweep(queue, folders) == 1
        assert [path.name for path in folders.states.iterdir()] == [".y.kinema.lock"]
    assert not stray.exists()
    assert staged.exists()  # somebody may be about to publish it
    monkeypatch.setattr("kinema.serve.results.ABANDONED", -1.0)
    assert sweep(queue, folders) == 1
    assert len(list(folders.results.iterdir())) == 3
