"""The queue against a model of it, and what a model does not show: files, keys, processes, pages, speed."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from kinema.core.errors import ConfigError, MediaError
from kinema.serve.jobs import (
    ID,
    STATES,
    Conflict,
    Job,
    JobError,
    JobProgress,
    NotFound,
    QueueFull,
    Result,
    TooLarge,
)
from kinema.serve.queue import LONGEST_REQUEST, Queue
from kinema.serve.queue_leases import HERE, MOST_REFUSALS, Lost
from kinema.serve.queue_schema import MIGRATIONS
from serve.queue_model import Model, Refused

RESULT = Result(file="x.mp4", frames=17, fps="8", width=64, height=64, bytes=9, seed=1, seconds_taken=0.0)
PART = Result(
    file="x.mp4", frames=5, fps="8", width=64, height=64, bytes=9, seed=1, seconds_taken=0.0, partial=True
)


class Clock:
    """Hands that only a test moves."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

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


class Machine(RuleBasedStateMachine):
    """Everything that anyone may do, in any order; tokens are kept for ever, so that stale ones are tried."""

    ids = Bundle("ids")
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock, self.model = Clock(0.0), Model()
        self.queue = Queue(Path(self.folder.name) / "q", clock=self.clock, pulse=self.clock)
        self.revision = 0

    def teardown(self) -> None:
        self.queue.close()
        self.folder.cleanup()

    def both(self, real, model) -> None:
        """The same call to both; where the model refuses, the queue does."""
        try:
            model()
        except Refused:
            with pytest.raises((Conflict, NotFound)):
                real()
        else:
            real()

    @rule(target=ids, n=st.integers(0, 9))
    def submit(self, n):
        job = self.queue.submit({"prompt": str(n)}, owner="me")
        self.model.add(job.id, {"prompt": str(n)})
        return job.id

    @rule(
        target=leases,
        seconds=st.sampled_from([5.0, 20.0]),
        worker=st.sampled_from(["w", "w 2"]),
        place=st.sampled_from([HERE, "remote 1"]),
    )
    def lease(self, seconds, worker, place):
        expected = self.model.next(worker, place)
        found = self.queue.lease(worker, seconds, place)
        if found is None:
            assert expected is None
            return ("video_none", "none", seconds)
        job, token = found
        if self.model.jobs[expected].state == "cancelling":  # which of several is not said
            assert job.state == "cancelling"
            assert self.model.jobs[job.id].holder in (None, place)
        else:
            assert job.id == expected
        self.model.lent(job.id, token, seconds, worker, place)
        return (job.id, token, seconds)

    @rule(lease=leases, fraction=st.sampled_from([0.0, 0.3, 0.6]))
    def beat(self, lease, fraction):
        id, token, seconds = lease
        assert self.queue.beat(id, token, at(fraction)) == self.model.beat(id, token, fraction, seconds)

    @rule(lease=leases, partial=st.booleans())
    def finish(self, lease, partial):
        id, token, _ = lease
        before = self.model.jobs.get(id)
        finished = before is not None and before.result and before.lease is None
        published = []
        result = PART if partial else RESULT

        def real():
            self.queue.finish(id, token, result, publish=lambda: published.append(1))

        try:
            self.model.finish(id, token, partial)
        except Refused:
            try:
                real()
            except Conflict:
                pass
            else:
                assert finished, "told again, and only then nothing happens"
            assert not published
        else:
            real()
            assert len(published) == (id in self.model.jobs)

    @rule(lease=leases, again=st.booleans())
    def fail(self, lease, again):
        id, token, _ = lease
        error = JobError(code="internal", message="no")
        self.both(
            lambda: self.queue.fail(id, token, error, again=again), lambda: self.model.fail(id, token, again)
        )

    @rule(lease=leases)
    def release(self, lease):
        self.both(lambda: self.queue.release(*lease[:2]), lambda: self.model.release(*lease[:2]))

    @rule(lease=leases)
    def refuse(self, lease):
        error = JobError(code="bad_model", message="no")
        self.both(lambda: self.queue.refuse(*lease[:2], error), lambda: self.model.refuse(*lease[:2]))

    @rule(seconds=st.sampled_from([1.0, 6.0, 30.0]))
    def wait(self, seconds):
        self.clock.now += seconds
        self.model.now += seconds

    @rule()
    def sweep(self):
        self.queue.sweep()
        self.model.sweep()

    @rule(id=ids, keep=st.booleans())
    def cancel(self, id, keep):
        self.both(lambda: self.queue.cancel(id, keep=keep), lambda: self.model.cancel(id, keep))

    @rule(id=ids)
    def retry(self, id):
        self.both(lambda: self.queue.retry(id), lambda: self.model.retry(id))

    @rule(id=ids, n=st.integers(10, 19))
    def edit(self, id, n):
        request = {"prompt": str(n)}
        self.both(lambda: self.queue.edit(id, request), lambda: self.model.edit(id, request))

    @rule(id=ids, before=st.none() | ids)
    def move(self, id, before):
        self.both(lambda: self.queue.move(id, before), lambda: self.model.move(id, before))

    @rule(id=ids)
    def delete(self, id):
        self.both(lambda: self.queue.delete(id), lambda: self.model.delete(id))

    @rule(target=ids, id=ids)
    def clone(self, id):
        if id not in self.model.jobs:
            with pytest.raises(NotFound):
                self.queue.clone(id)
            return id
        job = self.queue.clone(id)
        assert (job.parent.id, job.parent.how) == (id, "clone")
        self.model.add(job.id, self.model.jobs[id].request)
        return job.id

    @rule()
    def open_again(self):
        self.queue.close()
        self.queue = Queue(self.queue.path, clock=self.clock, pulse=self.clock)

    @invariant()
    def agree(self):
        jobs = self.queue.list(limit=1000, order="asc").jobs
        assert {job.id: (job.state, job.attempt, job.request, job.result is not None) for job in jobs} == {
            e.id: (e.state, e.attempt, e.request, e.result) for e in self.model.jobs.values()
        }
        waiting = sorted((job for job in jobs if job.state == "queued"), key=lambda job: job.position)
        assert [job.id for job in waiting] == self.model.waiting()
        assert self.queue.counts() == {s: sum(job.state == s for job in jobs) for s in STATES}

    @invariant()
    def changes_tell_all(self):
        """Who follows the changes knows what who lists knows."""
        everything = self.queue.changes(0)
        assert {job.id for job in everything.jobs} == set(self.model.jobs)
        assert {id for _, id in everything.gone} == self.model.gone
        new = self.queue.changes(self.revision)
        assert all(job.revision > self.revision for job in new.jobs)
        old = [job for job in everything.jobs if job not in new.jobs]
        assert all(job.revision <= self.revision for job in old)
        self.revision = new.revision


Machine.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestMachine = Machine.TestCase


# Taking in


def test_a_job_as_json_and_back(queue):
    job = queue.submit({"prompt": "é\ud800", "seed": 2**70}, kind="image", owner="me", title="ü")
    assert ID.fullmatch(job.id)
    assert Job.from_json({**job.to_json(), "unknown": 1}) == job == queue.get(job.id)
    assert job.request["seed"] == 2**70


def test_what_is_not_json_is_refused_and_leaves_nothing(queue):
    with pytest.raises(ValueError):
        queue.submit({"guidance": float("nan")})
    with pytest.raises(ConfigError, match="surrogate"):
        queue.submit({}, title="\ud800")
    with pytest.raises(ConfigError, match="200"):
        queue.mark(queue.submit({}).id, title="x" * 201)
    assert queue.counts()["queued"] == 1


def test_a_key_gives_the_same_job_for_a_day(queue, clock):
    first = queue.submit({"prompt": "a"}, owner="me", key="k")
    assert queue.submit({"prompt": "a"}, owner="me", key="k").id == first.id
    with pytest.raises(Conflict, match="key"):
        queue.submit({"prompt": "b"}, owner="me", key="k")
    assert queue.submit({"prompt": "b"}, owner="you", key="k").id != first.id
    clock.now += 86401
    assert queue.submit({"prompt": "b"}, owner="me", key="k").id != first.id


def test_the_digest_decides_what_the_same_request_is(queue):
    first = queue.submit({"seed": 1}, key="k", digest="asked")
    assert queue.submit({"seed": 2}, key="k", digest="asked").id == first.id  # the server drew another seed


def test_a_key_of_several_jobs_gives_them_all(queue):
    jobs = queue.submit_all([{"seed": 1}, {"seed": 2}], key="k")
    assert queue.submit_all([{"seed": 1}, {"seed": 2}], key="k") == jobs
    queue.delete(jobs[0].id)
    assert queue.submit_all([{"seed": 1}, {"seed": 2}], key="k") == jobs[1:]
    queue.delete(jobs[1].id)
    anew = queue.submit_all([{"seed": 1}, {"seed": 2}], key="k")
    assert len(anew) == 2
    assert not {job.id for job in anew} & {job.id for job in jobs}


def test_a_request_that_is_longer_than_what_a_job_keeps_is_refused(queue):
    room = LONGEST_REQUEST - len('{"prompt":""}')
    job = queue.submit({"prompt": room * "x"})
    for call in (queue.submit, lambda request: queue.edit(job.id, request)):
        with pytest.raises(TooLarge, match="1000001 characters as JSON, and a job keeps 1000000"):
            call({"prompt": (room + 1) * "x"})
    assert len(queue.get(job.id).request["prompt"]) == room
    assert queue.counts()["queued"] == 1


def test_the_length_that_was_planned_stays_with_the_request(queue):
    job = queue.submit({"prompt": "a"}, seconds=2.5)
    assert (queue.get(job.id).seconds, queue.clone(job.id).seconds) == (2.5, 2.5)
    assert queue.change(job.id, title="a title").seconds == 2.5
    assert queue.change(job.id, request={"prompt": "b"}, seconds=4.0).seconds == 4.0
    assert queue.edit(job.id, {"prompt": "c"}).seconds is None


def test_no_more_may_wait_than_were_said(queue):
    queue.submit({}, most=1)
    with pytest.raises(QueueFull, match="1 jobs"):
        queue.submit({}, most=1)
    queue.lease("w", 10)
    queue.submit({}, most=1)


def test_keys_race_to_one_job(queue):
    found, gate = [], threading.Barrier(8)

    def submit():
        gate.wait()
        found.append(queue.submit({"a": 1}, key="k").id)

    threads = [threading.Thread(target=submit) for _ in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(found) == 8
    assert len(set(found)) == 1


# Looking


def test_pages_end_where_the_jobs_end(queue):
    ids = [queue.submit({}, owner="ab"[n % 2]).id for n in range(7)]
    for order, expected in (("asc", ids), ("desc", ids[::-1])):
        found, after = [], None
        while True:
            page = queue.list(after=after, limit=3, order=order)
            found += [job.id for job in page.jobs]
            if not page.has_more:
                break
            after = found[-1]
        assert found == expected
    assert [job.id for job in queue.list(owner="a", order="asc").jobs] == ids[::2]
    assert queue.list(states=["done"]).jobs == ()
    with pytest.raises(NotFound):
        queue.list(after="video_x")


def test_changes_come_in_parts_and_none_is_left_out(queue):
    ids = [queue.submit({}).id for _ in range(10)]
    queue.delete(ids[3])
    seen, gone, since = [], [], 0
    while True:
        new = queue.changes(since, limit=3)
        seen += [job.id for job in new.jobs]
        gone += [id for _, id in new.gone]
        since = new.revision
        if not new.more:
            break
    assert (seen, gone) == ([id for id in ids if id != ids[3]], [ids[3]])
    assert since == queue.revision()


# Leases


def test_a_set_back_or_advanced_date_ends_no_lease(tmp_path, clock):
    pulse = Clock(5.0)
    with Queue(tmp_path / "q", clock=clock, pulse=pulse) as queue:
        queue.submit({})
        job, token = queue.lease("w", 10)
        for jump in (86400.0, -2 * 86400.0):
            clock.now += jump
            assert queue.sweep() == 0
            assert queue.beat(job.id, token, at(0.1)) == "go"


def test_a_lease_from_before_the_machine_started_again_has_ended(tmp_path, clock):
    pulse = Clock(90000.0)
    with Queue(tmp_path / "q", clock=clock, pulse=pulse) as queue:
        queue.submit({})
        _, token = queue.lease("w", 10)
        pulse.now = 3.0  # the clock begins anew
        job, again = queue.lease("w", 10)
        assert token != again
        assert queue.beat(job.id, token, at(0.1)) == "lost"


def test_coming_further_outlasts_any_number_of_kills(queue):
    job = queue.submit({})
    for n in range(1, 50):
        _, token = queue.lease("w", 10)
        queue.beat(job.id, token, at(n / 50))
        assert queue.forfeit("w") == 1
        assert queue.get(job.id).state == "queued"
    for _ in range(2):
        queue.lease("w", 10)
        queue.forfeit("w")
    assert (queue.get(job.id).state, queue.get(job.id).error.code) == ("failed", "poison")


LACKS = JobError(code="bad_model", message="model 'x' is not here", param="model")


def refused(queue, worker: str) -> Job:
    job, token = queue.lease(worker, 10)
    return queue.refuse(job.id, token, LACKS)


def test_a_job_that_a_worker_lacks_the_means_for_waits_for_another(queue):
    first, second = queue.submit({"prompt": "1"}), queue.submit({"prompt": "2"})
    job = refused(queue, "a")
    assert (job.id, job.state, job.attempt) == (first.id, "queued", 0)
    assert job.error == JobError(
        code="no_worker", message="it waits for another worker: model 'x' is not here", param="model"
    )
    assert queue.lease("a", 10)[0].id == second.id
    assert queue.lease("a", 10) is None
    taken, token = queue.lease("a 2", 10)  # a name that the first one's begins
    assert taken.id == first.id
    error = JobError(code="internal", message="a bug")
    assert queue.fail(taken.id, token, error, again=True).state == "queued"  # this was its first attempt
    _, token = queue.lease("a 2", 10)
    assert queue.fail(taken.id, token, error, again=True).state == "failed"


def test_a_job_waits_a_day_for_a_worker_that_has_what_it_needs(queue, clock):
    job = queue.submit({})
    refused(queue, "a")
    clock.now += 86_000
    queue.sweep()
    assert queue.get(job.id).state == "queued"
    refused(queue, "b")  # from now
    clock.now += 86_000
    queue.sweep()
    assert queue.get(job.id).state == "queued"
    clock.now += 500
    queue.sweep()
    ended = queue.get(job.id)
    assert (ended.state, ended.error.code) == ("failed", "no_worker")
    assert queue.retry(job.id).state == "queued"
    assert queue.lease("a", 10)[0].id == job.id  # asked for again, everybody is asked again
    clock.now += 100_000
    queue.sweep()
    assert queue.get(job.id).state == "queued"


def test_so_many_workers_are_asked_and_no_more(queue):
    job = queue.submit({})
    for n in range(MOST_REFUSALS - 1):
        assert refused(queue, f"w{n}").state == "queued"
    ended = refused(queue, "the last one")
    assert (ended.id, ended.state, ended.error) == (job.id, "failed", LACKS)


def test_a_queue_of_an_earlier_version_is_carried_on(tmp_path):
    path = tmp_path / "q"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kinema.serve.queue_store.MIGRATIONS", MIGRATIONS[:1])
        Queue(path).close()
    with sqlite3.connect(path) as db:
        said = "'video_old', 'video', '{}', 'queued', 1, 0, '', 1"
        db.execute(
            f"INSERT INTO jobs (id, kind, request, state, position, created, owner, revision) VALUES ({said})"
        )
    with Queue(path) as queue:
        assert queue.counts()["queued"] == 1
        assert refused(queue, "a").id == "video_old"
        assert queue.lease("b", 10)[0].id == "video_old"


def test_only_the_dead_worker_loses_its_jobs(queue):
    queue.submit({})
    queue.submit({})
    queue.lease("dead", 10)
    alive, token = queue.lease("alive", 10)
    assert queue.forfeit("dead") == 1
    assert queue.beat(alive.id, token, at(0)) == "go"


def test_the_time_taken_is_that_of_all_attempts_without_the_waits(queue, clock):
    job = queue.submit({})
    _, token = queue.lease("w", 10)
    clock.now += 4
    queue.beat(job.id, token, at(0.2))
    queue.release(job.id, token)
    clock.now += 1000
    _, token = queue.lease("w", 10)
    clock.now += 3
    done = queue.finish(job.id, token, RESULT)
    assert done.result.seconds_taken == 7
    assert done.progress.fraction == 1.0


def test_a_lease_that_is_over_publishes_nothing(queue, clock):
    job = queue.submit({})
    _, stale = queue.lease("slow", 10)
    clock.now += 11
    _, token = queue.lease("quick", 10)
    with pytest.raises(Lost):
        queue.finish(job.id, stale, RESULT, publish=lambda: pytest.fail("published"))
    for call in (queue.release, lambda *a: queue.fail(*a, JobError(code="x", message="y")), queue.holds):
        with pytest.raises(Lost):
            call(job.id, stale)
    assert queue.finish(job.id, token, RESULT).state == "done"


def test_publishing_that_fails_leaves_the_job_with_its_worker(queue):
    job = queue.submit({})
    _, token = queue.lease("w", 10)

    def full():
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="space"):
        queue.finish(job.id, token, RESULT, publish=full)
    assert queue.beat(job.id, token, at(0.5)) == "go"


def test_places_between_two_jobs_never_run_out(queue):
    first, last, *others = (queue.submit({"n": n}).id for n in range(4))
    for turn in range(200):
        queue.move(others[turn % 2], before=last)
    waiting = sorted(queue.list().jobs, key=lambda job: job.position)
    assert [job.id for job in waiting] == [first, others[0], others[1], last]


LEASER = """
import sys
from kinema.serve.queue import Queue
queue = Queue(sys.argv[1])
print("ready", flush=True); sys.stdin.readline()
while (found := queue.lease("w", 60)) is not None:
    print(found[0].id, flush=True)
"""


def test_two_processes_never_lease_one_job(tmp_path):
    path = tmp_path / "q"
    with Queue(path) as queue:
        ids = {job.id for job in queue.submit_all([{"n": n} for n in range(60)])}
    run = [sys.executable, "-c", LEASER, str(path)]
    processes = [
        subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    leased = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sorted(leased[0] + leased[1]) == sorted(ids)


# Files


def test_a_damaged_file_is_refused_in_a_line(tmp_path):
    path = tmp_path / "q"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(ConfigError, match=r"damaged.*move it away") as told:
        Queue(path)
    assert "\n" not in str(told.value)


def test_damage_inside_is_found_when_it_is_opened(tmp_path):
    path = tmp_path / "q"
    with Queue(path) as queue:
        queue.submit_all([{"prompt": "x" * 500} for _ in range(200)])
        with queue._write() as db:
            db.execute("SELECT 1")
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8192] = b"\xff" * 8192
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="damaged"):
        Queue(path)


def test_the_file_of_a_newer_version_or_of_others_is_left_alone(tmp_path):
    newer, other = tmp_path / "newer", tmp_path / "other"
    Queue(newer).close()
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigError, match=r"newer kinema .version 99"):
        Queue(newer)
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE theirs (x)")
    with pytest.raises(ConfigError, match="something else"):
        Queue(other)
    with pytest.raises(MediaError, match="cannot open"):
        Queue(tmp_path / "missing" / "q")


def test_a_first_opening_that_was_cut_off_is_begun_again(tmp_path):
    path = tmp_path / "q"
    path.touch()  # the file was made, and nothing written
    with Queue(path) as queue:
        assert queue.submit({}).state == "queued"


def test_nobody_else_may_read_the_queue(tmp_path, queue):
    queue.submit({})
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


def only(queue) -> sqlite3.Connection:
    """The one connection of a queue that one thread uses."""
    (db,) = queue._idle
    return db


@pytest.fixture
def opened(monkeypatch):
    """The connections that were opened from now on."""
    found, connect = [], sqlite3.connect

    def counted(*args, **kwargs):
        found.append(connect(*args, **kwargs))
        return found[-1]

    monkeypatch.setattr(sqlite3, "connect", counted)
    return found


def test_threads_that_come_and_go_leave_no_connections_behind(opened, queue):
    for _ in range(40):  # as beats do, one for each job
        thread = threading.Thread(target=queue.submit, args=({},))
        thread.start()
        thread.join()
    assert queue.counts()["queued"] == 40
    assert len(opened) == 1


def test_two_that_look_at_once_have_a_connection_each_until_the_queue_is_closed(opened, queue):
    with queue._read() as first, queue._read() as second:
        assert first is not second
        queue.close()
        assert second.execute("SELECT revision FROM ledger").fetchone()[0] == 0
    assert len(opened) == 2
    for db in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            db.execute("SELECT 1")


def test_a_connection_whose_transaction_could_not_be_ended_is_lent_to_nobody(queue):
    with queue._lent() as db:
        db.execute("BEGIN")
    assert queue.submit({}).state == "queued"


def test_an_acceptance_is_synced_and_a_beat_is_not(queue):
    modes = {}
    job = queue.submit({})
    modes["submit"] = only(queue).execute("PRAGMA synchronous").fetchone()[0]
    _, token = queue.lease("w", 10)
    queue.beat(job.id, token, at(0.1))
    modes["beat"] = only(queue).execute("PRAGMA synchronous").fetchone()[0]
    queue.finish(job.id, token, RESULT)
    modes["finish"] = only(queue).execute("PRAGMA synchronous").fetchone()[0]
    assert modes == {"submit": 2, "beat": 1, "finish": 2}


def test_what_is_asked_often_is_found_by_an_index(queue):
    """No question scans or sorts the jobs, so that a long history costs nothing."""
    asked = []
    first, second = (queue.submit({}, key=str(n)) for n in range(2))
    only(queue).set_trace_callback(asked.append)
    queue.submit({}, key="0", owner="me", most=9)
    queue.move(second.id, before=first.id)
    queue.list(states=["queued"], owner="me", after=first.id, order="asc")
    queue.list(after=first.id)
    queue.changes(1)
    queue.counts()
    job, token = queue.lease("w", 10)
    queue.refuse(job.id, token, LACKS)
    job, token = queue.lease("v", 10)
    queue.beat(job.id, token, at(0.5))
    queue.sweep()
    queue.finish(job.id, token, RESULT)
    only(queue).set_trace_callback(None)
    asked = {text for text in asked if re.match("SELECT|UPDATE jobs|DELETE", text)}
    assert len(asked) > 20
    for question in asked:
        plan = [row["detail"] for row in only(queue).execute(f"EXPLAIN QUERY PLAN {question}")]
        slow = [line for line in plan if "TEMP B-TREE" in line or re.match(r"SCAN (jobs|keys|gone)$", line)]
        assert not slow, (question, plan)
