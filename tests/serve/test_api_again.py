"""Calls that are sent again, or whose client leaves: one job for one wish, and none lost."""

from __future__ import annotations

import pytest
from live import client, error_of, limits

from kinema.serve import openai_images
from kinema.serve.errors import ApiError
from kinema.serve.jobs import JobError, Result
from kinema.serve.retries import WINDOW, Refusals

STILL = Result(file="x.png", frames=1, fps="8", width=64, height=64, bytes=9, seed=1, seconds_taken=0.0)
AGAIN = {"x-stainless-retry-count": "1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with client(tmp_path_factory.mktemp("again"), limits(queued=2)) as found:
        yield found


@pytest.fixture
def queue(server):
    found = server.app.state.studio.queue
    yield found
    for job in found.list(limit=100).jobs:
        found.forfeit("w")
        found.delete(job.id)


def create(server, **headers):
    return server.post("/v1/videos", json={"prompt": "a rooster"}, headers=headers)


def fail(queue):
    job, token = queue.lease("w", 60)
    queue.fail(job.id, token, JobError(code="internal", message="no"))


ENDS = {
    "cancelled": lambda queue, id: queue.cancel(id),
    "failed": lambda queue, id: fail(queue),
    "about to end": lambda queue, id: (queue.lease("w", 60), queue.cancel(id)),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_call_that_is_sent_again_does_not_get_what_was_stopped_or_has_failed(server, queue, end):
    first = create(server).json()["id"]
    ENDS[end](queue, first)
    again = create(server, **AGAIN).json()
    assert again["id"] != first
    assert again["status"] == "queued"


def test_a_call_that_was_refused_does_not_get_the_job_of_another(server, queue):
    mine = [create(server).json()["id"] for _ in range(2)]
    assert create(server).status_code == 429
    for count in ("1", "2"):  # still no room, each time
        assert create(server, **{"x-stainless-retry-count": count}).status_code == 429
    queue.lease("w", 60)
    yours = create(server, **{"x-stainless-retry-count": "3"})
    assert yours.status_code == 200
    assert yours.json()["id"] not in mine
    assert create(server, **AGAIN).json()["id"] in (*mine, yours.json()["id"])  # one whose answer was lost
    assert sum(queue.counts().values()) == 3


def test_a_call_that_met_an_error_of_ours_gets_a_job_of_its_own(server, queue, monkeypatch):
    first = create(server).json()["id"]

    async def busy(asked):
        raise ApiError(503, "busy.", code="busy")

    with monkeypatch.context() as patch:
        patch.setattr(server.app.state.studio, "plan_once", busy)
        assert create(server).status_code == 503
    assert create(server, **AGAIN).json()["id"] != first


@pytest.mark.parametrize("count", ["9" * 5000, "-1", "1.5", "x", ""])
def test_a_count_that_is_none_is_no_other_attempt(server, queue, count):
    first = create(server).json()["id"]
    answer = create(server, **{"x-stainless-retry-count": count})
    assert answer.status_code == 200
    assert answer.json()["id"] != first


def test_each_refusal_is_remembered_for_one_attempt_and_not_for_ever():
    now = 0.0
    refusals = Refusals(lambda: now)
    refusals.tell("a")
    refusals.tell("a")
    assert [refusals.take(name) for name in ("b", "a", "a", "a")] == [False, True, True, False]
    refusals.tell("a")
    now = WINDOW + 1
    assert not refusals.take("a")


# Pictures


@pytest.fixture
def pictures(server, queue, monkeypatch):
    """`pictures(end)` is the answer to a call for two; `end(queue)` happens between two looks at them."""

    def asked(end, *, left=False, **headers):
        async def is_disconnected(self):
            end(queue)
            return left

        monkeypatch.setattr("starlette.requests.Request.is_disconnected", is_disconnected)
        body = {"prompt": "a", "n": 2, "steps": 1, "response_format": "url"}
        return server.post("/v1/images/generations", json=body, headers=headers)

    return asked


def states(queue) -> dict[str, int]:
    return {name: count for name, count in queue.counts().items() if count}


def make_all(queue) -> None:
    while lent := queue.lease("w", 60):
        queue.finish(lent[0].id, lent[1], STILL)


def nothing(queue) -> None:
    pass


def test_a_server_that_ends_tells_those_who_wait_and_leaves_their_jobs_to_the_next(server, queue, pictures):
    studio = server.app.state.studio

    def drain(queue):
        if studio.draining:  # nobody was told: the call must end somehow
            make_all(queue)
        studio.draining = True

    try:
        answer = pictures(drain)
    finally:
        studio.draining = False
    assert (answer.status_code, error_of(answer)["code"]) == (503, "draining")
    assert answer.headers["retry-after"] == "10"
    assert states(queue) == {"queued": 2}


def test_a_client_with_a_key_comes_back_for_its_pictures(queue, pictures):
    key = {"idempotency-key": "k"}
    assert pictures(nothing, left=True, **key).status_code == 503
    assert states(queue) == {"queued": 2}
    answer = pictures(make_all, **key)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["data"]) == 2
    assert states(queue) == {"done": 2}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [({}, ({"cancelled": 2}, "false", None)), ({"idempotency-key": "k2"}, ({"queued": 2}, None, "10"))],
)
def test_pictures_that_take_too_long_go_on_for_a_client_with_a_key(
    queue, pictures, monkeypatch, headers, expected
):
    monkeypatch.setattr(openai_images, "PATIENCE", -1.0)
    answer = pictures(nothing, **headers)
    assert (answer.status_code, error_of(answer)["code"]) == (503, "timeout")
    found = (states(queue), answer.headers.get("x-should-retry"), answer.headers.get("retry-after"))
    assert found == expected


def test_a_picture_that_somebody_deletes_takes_no_others_along(queue, pictures):
    answer = pictures(lambda queue: queue.delete(queue.list(limit=1).jobs[0].id))
    assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")
    assert states(queue) == {"queued": 1}
