"""What a job keeps when it is stopped: its result from before another try, and frames where they lie."""

from __future__ import annotations

import sqlite3

import pytest

from kinema.serve.jobs import JobError, JobProgress, Result
from kinema.serve.queue import Queue
from kinema.serve.queue_leases import HERE, UNKEPT_FOR
from kinema.serve.queue_schema import MIGRATIONS

PART = Result(
    file="x.mp4", frames=5, fps="8", width=64, height=64, bytes=9, seed=1, seconds_taken=0.0, partial=True
)
RESULT = Result(file="x.mp4", frames=17, fps="8", width=64, height=64, bytes=9, seed=1, seconds_taken=0.0)
LACKS = JobError(code="bad_model", message="model 'x' is not here", param="model")


class Clock:
    """Hands that only a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path, clock):
    with Queue(tmp_path / "queue.sqlite3", clock=clock, pulse=clock) as queue:
        yield queue


def at(fraction: float) -> JobProgress:
    return JobProgress(phase="denoise", step=1, steps=2, fraction=fraction)


def cancelled_with_a_part(queue) -> str:
    job = queue.submit({"prompt": "a"})
    _, token = queue.lease("w", 10)
    queue.cancel(job.id)
    assert queue.finish(job.id, token, PART).result.frames == 5
    return job.id


@pytest.mark.parametrize("end", ["cancelled while it waits", "cancelled without a part", "failed", "poison"])
def test_what_was_kept_is_there_again_when_another_try_makes_nothing(queue, end):
    id = cancelled_with_a_part(queue)
    part = queue.get(id).result
    for _ in range(2):  # and after the next one
        assert queue.retry(id).result is None
        if end == "cancelled while it waits":
            queue.cancel(id)
        elif end == "poison":
            for _ in range(3):
                queue.lease("w", 10)
                queue.forfeit("w")
        else:
            _, token = queue.lease("w", 10)
            if end == "failed":
                queue.fail(id, token, JobError(code="internal", message="no"))
            else:
                queue.cancel(id, keep=False)
                queue.release(id, token)
        ended = queue.get(id)
        assert (ended.state, ended.result) == ("failed" if end in ("failed", "poison") else "cancelled", part)


def test_what_was_kept_gives_way_to_what_is_made_anew(queue):
    id = cancelled_with_a_part(queue)
    queue.retry(id)
    _, token = queue.lease("w", 10)
    assert queue.finish(id, token, RESULT).result.frames == 17
    id = cancelled_with_a_part(queue)
    queue.retry(id)
    queue.edit(id, {"prompt": "another"})  # what was kept is of the prompt before
    assert queue.cancel(id).result is None


def begun(queue, place: str, fraction: float = 0.5) -> str:
    """A job that a worker of that place began, and that was then given back and cancelled."""
    job = queue.submit({"prompt": "a"})
    _, token = queue.lease(f"worker of {place}", 10, place)
    queue.beat(job.id, token, at(fraction))
    queue.release(job.id, token)
    assert queue.cancel(job.id).state == "cancelling"
    return job.id


@pytest.mark.parametrize(("place", "others"), [(HERE, ["far"]), ("far", [HERE, "farther"])])
def test_frames_are_kept_by_a_worker_of_the_place_where_they_lie(queue, place, others):
    id = begun(queue, place)
    assert [queue.lease("w", 10, other) for other in others] == [None] * len(others)
    assert queue.lease("another name", 10, place)[0].id == id


def test_one_that_has_not_begun_may_be_ended_by_anybody(queue):
    id = begun(queue, "far", 0.0)
    job, token = queue.lease("w", 10)
    assert (job.id, queue.release(id, token).state) == (id, "cancelled")


def test_a_worker_that_refuses_a_job_does_not_hold_its_frames(queue):
    job = queue.submit({"prompt": "a"})
    _, token = queue.lease("w", 10)
    queue.beat(job.id, token, at(0.5))
    queue.release(job.id, token)
    _, token = queue.lease("far", 10, "far")
    queue.beat(job.id, token, at(0.0))
    queue.refuse(job.id, token, LACKS)
    queue.cancel(job.id)
    assert queue.lease("far", 10, "far") is None
    assert queue.lease("w", 10)[0].id == job.id


def test_after_a_day_nobody_waits_for_a_place_any_more(queue, clock):
    id = begun(queue, "far")
    clock.now += UNKEPT_FOR - 1
    assert queue.lease("w", 10) is None
    clock.now += 2
    assert queue.lease("w", 10)[0].id == id


def test_a_worker_that_is_lost_while_it_keeps_frames_is_waited_for_from_then_on(queue, clock):
    id = begun(queue, "far")
    clock.now += UNKEPT_FOR - 1
    queue.lease("far", 10, "far")
    clock.now += 11
    assert queue.sweep() == 1
    assert queue.lease("w", 10) is None
    assert queue.cancel(id, keep=False).state == "cancelled"  # the way out


def test_a_job_that_an_earlier_version_was_about_to_keep_is_anybodys(tmp_path):
    path = tmp_path / "q"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kinema.serve.queue_store.MIGRATIONS", MIGRATIONS[:2])
        Queue(path).close()
    with sqlite3.connect(path) as db:
        said = "'video_old', 'video', '{}', 'cancelling', 1, 0, '', 1, 2"
        names = "id, kind, request, state, position, created, owner, revision, attempt"
        db.execute(f"INSERT INTO jobs ({names}) VALUES ({said})")
    with Queue(path) as queue:
        job, token = queue.lease("w", 10, "far")
        assert (job.id, job.seconds) == ("video_old", None)
        assert queue.finish(job.id, token, PART).result.partial
        assert queue.retry(job.id).result is None
        assert queue.cancel(job.id).result.partial
