"""Worker processes: killed ones come back and go on, stopped ones give their job back."""

from __future__ import annotations

import os
import signal
import time

import pytest

from kinema.serve.folders import Folders
from kinema.serve.queue import Queue
from kinema.serve.worker_process import WorkerProcess, WorkerSettings


@pytest.fixture
def folders(tmp_path) -> Folders:
    folders = Folders(tmp_path / "data")
    folders.make()
    return folders


def until(condition, seconds: float = 120.0) -> None:
    """Wait; the limit is for a test that hangs."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_killed_worker_comes_back_and_a_stopped_one_gives_its_job_back(folders, small):
    shot = {"prompt": "a fox", "model": str(small), "seed": 3, "steps": 400, "frames": 5, "size": "64x64"}
    with Queue(folders.queue) as queue:
        id = queue.submit(shot).id
        worker = WorkerProcess(queue, WorkerSettings(data=folders.root, checkpoint_every="1"), "one")
        worker.start()
        try:
            until(lambda: queue.get(id).progress.step > 2)
            first = worker.pid
            os.kill(first, signal.SIGKILL)
            until(lambda: queue.get(id).attempt == 2)
            assert worker.pid not in (None, first)
            assert worker.restarts == 1
            seen = queue.get(id).progress.step
            until(lambda: queue.get(id).progress.step > seen)
            assert queue.get(id).progress.phase == "denoise"
        finally:
            worker.stop()
        job = queue.get(id)
        assert (job.state, job.attempt, job.error) == ("queued", 2, None)
        assert (folders.state(id) / "state").is_dir()
        assert worker.pid is None


def test_a_worker_ends_with_its_server(folders):
    """Its input is a pipe from the server; a server that was killed closes it."""
    with Queue(folders.queue) as queue:
        worker = WorkerProcess(queue, WorkerSettings(data=folders.root), "one")
        worker._stopping.set()  # no thread starts it again
        process = worker._started()
        process.stdin.close()
        assert process.wait(120) == 0
