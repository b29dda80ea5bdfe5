"""Worker processes: killed ones come back and go on, stopped ones give their job back."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

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
    most = 1000  # steps of a shot, so that it is denoised for as long as anyone looks
    shot = {"prompt": "a fox", "model": str(small), "seed": 3, "steps": most, "frames": 5, "size": "64x64"}
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


def test_a_workers_lines_are_json_without_prompts_and_tokens(folders, capfd, monkeypatch):
    monkeypatch.setenv("KINEMA_TOKEN", "a-token-for-tests-only")
    shots = ({"model": "./nowhere"}, {"loras": [{"path": "a red fox"}]}, {"steps": "a red fox"})
    with Queue(folders.queue) as queue:
        ids = [queue.submit({"prompt": {"0": "a red fox"}, "model": "embedded", **shot}).id for shot in shots]
        worker = WorkerProcess(queue, WorkerSettings(data=folders.root), "one")
        worker.start()
        try:
            until(lambda: all(queue.get(id).state == "failed" for id in ids))
            environment = Path(f"/proc/{worker.pid}/environ")
            if environment.exists():
                assert b"KINEMA_TOKEN" not in environment.read_bytes()
        finally:
            worker.stop()
        codes = [queue.get(id).error.code for id in ids]
    text = capfd.readouterr().err
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["worker"] for line in lines} == {"one"}
    assert [line["job"] for line in lines if line["event"] == "taken"] == ids
    assert [line["code"] for line in lines if "code" in line] == codes == 2 * ["bad_model"] + ["bad_request"]
    assert "red fox" not in text
    assert "a-token" not in text


def test_a_worker_ends_with_its_server(folders):
    """Its input is a pipe from the server; a server that was killed closes it."""
    with Queue(folders.queue) as queue:
        worker = WorkerProcess(queue, WorkerSettings(data=folders.root), "one")
        worker._stopping.set()  # no thread starts it again
        process = worker._started()
        process.stdin.close()
        assert process.wait(120) == 0
