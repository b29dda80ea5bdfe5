"""Bodies of the OpenAI surface: forms with brackets, JSON, and calls that are sent again."""

from __future__ import annotations

import base64
import contextlib
import io
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from live import client, error_of
from PIL import Image

from kinema.serve.errors import ApiError
from kinema.serve.jobs import JobError, Result
from kinema.serve.openai_forms import nested

MADE = {"file": "x.mp4", "width": 64, "height": 64, "bytes": 9, "seed": 1, "seconds_taken": 0.0}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with client(tmp_path_factory.mktemp("forms")) as found:
        yield found


def count(server) -> int:
    return sum(server.app.state.studio.queue.counts().values())


def data_url() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def test_brackets_are_the_values_they_describe():
    fields = [
        ("a", "1"), ("b[c]", "2"), ("b[d][e]", "3"), ("t[]", "x"), ("t[]", "y"),
        ("l[][path]", "p"), ("l[][scale]", "1"), ("l[][path]", "q"),
    ]  # fmt: skip
    assert nested(fields) == {
        "a": "1",
        "b": {"c": "2", "d": {"e": "3"}},
        "t": ["x", "y"],
        "l": [{"path": "p", "scale": "1"}, {"path": "q"}],
    }


@pytest.mark.parametrize(
    "names", [["a", "a"], ["a", "a[b]"], ["a[]", "a[b]"], ["a[b]", "a[]"], ["[a]"], ["a[b"]]
)
def test_names_that_contradict_each_other_are_refused(names):
    with pytest.raises(ApiError) as caught:
        nested([(name, "1") for name in names])
    assert caught.value.status == 400


@given(st.lists(st.text(alphabet="ab[]", min_size=1, max_size=12), max_size=6))
def test_any_names_give_values_or_a_refusal(names):
    with contextlib.suppress(ApiError):
        assert len(nested([(name, "1") for name in names])) <= len(names)


@pytest.mark.parametrize("form", ["multipart", "urlencoded", "json"])
def test_every_kind_of_body_asks_for_the_same(server, form):
    wanted = {
        "prompt": "a fox",
        "seconds": "1",
        "steps": 2,
        "seed": 5,
        "negative_prompt": "text",
        "guidance": 2.5,
    }
    if form == "json":
        answer = server.post("/v1/videos", json=wanted)
    else:
        fields = {name: str(value) for name, value in wanted.items()}
        files = {"x": ("", b"")} if form == "multipart" else None
        body = (
            {"files": {name: (None, value) for name, value in fields.items()}} if files else {"data": fields}
        )
        answer = server.post("/v1/videos", **body)
    assert answer.status_code == 200, answer.text
    video = answer.json()
    nearest = "1.125"  # 9 frames
    assert (video["status"], video["seconds"], video["progress"]) == ("queued", nearest, 0)
    request = server.get(f"/api/jobs/{video['id']}").json()["request"]
    assert request == {
        "prompt": "a fox",
        "negative": "text",
        "seconds": 1.0,
        "seed": 5,
        "steps": 2,
        "guidance": 2.5,
    }


def test_a_length_goes_by_the_name_that_the_client_has_for_it(server):
    for body in ({"json": {"prompt": "a", "duration": 1}}, {"data": {"prompt": "a", "duration": "1"}}):
        video = server.post("/v1/videos", **body).json()
        assert server.get(f"/api/jobs/{video['id']}").json()["request"]["seconds"] == 1.0
    for name in ("duration", "seconds"):
        wrong = server.post("/v1/videos", json={"prompt": "a", name: "four"})
        assert (wrong.status_code, error_of(wrong)["param"]) == (400, name)
        assert f"{name}='four' is no length" in error_of(wrong)["message"]


CLIP = Path(__file__).parents[2] / "samples/clips/rooster.mp4"


def test_seconds_are_those_of_the_file_also_while_it_waits(server):
    board = {"shots": [{"prompt": "a", "frames": 17}, {"prompt": "b", "frames": 9}], "fps": 8}
    clip = server.post("/api/media", content=CLIP.read_bytes()).json()
    more = {"prompt": "a", "num_frames": 8, "fps": clip["fps"], "video": {"file_id": clip["ref"]}}
    longer = server.post("/v1/videos/extensions", json=more)
    assert longer.status_code == 200, longer.text
    jobs = {
        server.post("/api/jobs", json={"request": board}).json()["jobs"][0]["id"]: 26 / 8,
        longer.json()["id"]: (clip["frames"] + 8) / float(Fraction(clip["fps"])),
    }
    queue = server.app.state.studio.queue
    for id, seconds in jobs.items():
        assert float(server.get(f"/v1/videos/{id}").json()["seconds"]) == pytest.approx(seconds, rel=1e-5)
    queue.change(id, moved=True, before=queue.list(states=["queued"], order="asc").jobs[0].id)
    _, token = queue.lease("w", 60)
    queue.finish(id, token, Result(**MADE, frames=36, fps="8"))
    assert server.get(f"/v1/videos/{id}").json()["seconds"] == "4.5"


def test_seconds_that_were_asked_for_are_not_those_that_were_made(server):
    id = server.post("/v1/videos", json={"prompt": "a", "seconds": 2}).json()["id"]
    queue = server.app.state.studio.queue
    queue.change(id, moved=True, before=queue.list(states=["queued"], order="asc").jobs[0].id)
    _, token = queue.lease("w", 60)
    queue.cancel(id)
    queue.finish(id, token, Result(**MADE, frames=5, fps="8", partial=True))
    assert server.get(f"/v1/videos/{id}").json()["seconds"] == "0.625"


def test_a_job_that_was_not_planned_tells_what_it_asks_for(server):
    queue = server.app.state.studio.queue
    shots = [{"prompt": "a", "seconds": 2}, {"prompt": "b"}]
    for request, seconds in ({"shots": shots, "frames": 12, "fps": 8}, "3.5"), ({"seconds": 2.5}, "2.5"):
        id = queue.submit({"model": "embedded", **request}).id
        assert server.get(f"/v1/videos/{id}").json()["seconds"] == seconds


def test_one_frame_is_no_clip(server):
    before = count(server)
    for name in ("frames", "num_frames"):
        answer = server.post("/v1/videos", json={"prompt": "a", name: 1})
        assert (answer.status_code, error_of(answer)["param"]) == (400, name)
    assert count(server) == before


def test_a_picture_comes_as_a_data_url_in_json_and_in_a_form(server):
    by_json = server.post("/v1/videos", json={"prompt": "a", "input_reference": {"image_url": data_url()}})
    by_form = server.post("/v1/videos", data={"prompt": "a", "input_reference[image_url]": data_url()})
    keys = [
        server.get(f"/api/jobs/{answer.json()['id']}").json()["request"]["keyframes"]
        for answer in (by_json, by_form)
    ]
    assert keys[0] == keys[1]
    assert keys[0][0]["image"].startswith("media:")


@pytest.mark.parametrize(
    "value", ["file.png", ["x"], {"image_url": "data:image/png;base64,???"}, {"file_id": 3}]
)
def test_a_reference_of_another_form_is_refused_by_name(server, value):
    answer = server.post("/v1/videos", json={"prompt": "a", "input_reference": value})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "input_reference")


def test_a_call_that_is_sent_again_makes_one_job(server):
    body = {"prompt": "sent again", "steps": "2"}
    before = count(server)
    first = server.post("/v1/videos", files={name: (None, value) for name, value in body.items()}).json()[
        "id"
    ]
    for attempt in (1, 2):
        headers = {"x-stainless-retry-count": str(attempt)}
        again = server.post("/v1/videos", files={n: (None, v) for n, v in body.items()}, headers=headers)
        assert again.json()["id"] == first
    assert count(server) == before + 1
    other = server.post("/v1/videos", data={**body, "steps": "3"}, headers={"x-stainless-retry-count": "1"})
    assert other.json()["id"] != first
    fresh = server.post("/v1/videos", data=body, headers={"x-stainless-retry-count": "0"})
    assert fresh.json()["id"] != first


def test_a_retry_whose_first_attempt_never_came_is_accepted(server):
    answer = server.post("/v1/videos", data={"prompt": "only now"}, headers={"x-stainless-retry-count": "2"})
    assert answer.json()["status"] == "queued"


def test_an_idempotency_key_is_one_job_and_another_body_a_conflict(server):
    headers = {"idempotency-key": "k1"}
    first = server.post("/v1/videos", data={"prompt": "a"}, headers=headers).json()["id"]
    assert server.post("/v1/videos", json={"prompt": "a"}, headers=headers).json()["id"] == first
    other = server.post("/v1/videos", json={"prompt": "b"}, headers=headers)
    assert (other.status_code, other.headers["x-should-retry"]) == (409, "false")


def test_lists_leave_pictures_out_and_page_over_them(server):
    server.post("/api/jobs", json={"request": {"prompt": "a", "frames": 1, "steps": 1}, "count": 5})
    kept = server.post("/v1/videos", json={"prompt": "kept"}).json()["id"]
    page = server.get("/v1/videos?limit=1").json()
    assert (page["data"][0]["id"], page["first_id"], page["last_id"]) == (kept, kept, kept)
    assert page["has_more"]
    answer = server.get("/v1/videos?limit=0")
    assert (answer.status_code, error_of(answer)["param"]) == (400, "limit")


def test_a_clip_that_is_not_ready_says_when_to_ask_again(server):
    answer = server.post("/v1/videos", json={"prompt": "a"})
    assert 250 <= int(answer.headers["openai-poll-after-ms"]) <= 5000
    early = server.get(f"/v1/videos/{answer.json()['id']}/content")
    assert (early.status_code, error_of(early)["code"]) == (404, "video_not_ready")
    wrong = server.get(f"/v1/videos/{answer.json()['id']}/content?variant=gif")
    assert (wrong.status_code, error_of(wrong)["param"]) == (400, "variant")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "a", "n": 11}, "n"),
        ({"prompt": "a", "stream": True}, "stream"),
        ({}, "prompt"),
        ({"prompt": "a", "size": "63x64"}, "size"),
        ({"prompt": "a", "output_format": "svg"}, "output_format"),
        ({"prompt": "a", "seconds": "4"}, "seconds"),
        ({"prompt": "a", "response_format": "x"}, "response_format"),
    ],
)
def test_a_wrong_picture_names_its_field(server, body, param):
    answer = server.post("/v1/images/generations", json=body)
    assert (answer.status_code, error_of(answer)["param"]) == (400, param)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A server of its own whose pictures meet an end between two looks: `pictures(end)` gives the answer."""
    with client(tmp_path) as own:
        queue = own.app.state.studio.queue

        def asked(end, *, left=False):
            async def is_disconnected(self):
                end(queue)
                return left

            monkeypatch.setattr("starlette.requests.Request.is_disconnected", is_disconnected)
            return own.post("/v1/images/generations", json={"prompt": "a", "n": 3, "steps": 1})

        yield asked, queue


@pytest.mark.parametrize(
    ("code", "status"),
    [("bad_request", 400), ("bad_media", 400), ("bad_model", 400),
     ("disk_full", 500), ("internal", 500), ("out_of_memory", 500), ("poison", 500)],
)  # fmt: skip
def test_a_picture_that_failed_says_whose_fault_it_is(pictures, code, status):
    def end(queue):
        while lent := queue.lease("w", 60):
            queue.fail(lent[0].id, lent[1], JobError(code=code, message="no"))

    answer = pictures[0](end)
    assert (answer.status_code, error_of(answer)["code"]) == (status, code)
    assert answer.headers.get("x-should-retry") == (None if status == 400 else "false")


def test_a_client_that_leaves_takes_all_pictures_along_that_have_not_ended(pictures):
    def end(queue):  # one ends after the last look at it
        job, token = queue.lease("w", 60)
        queue.fail(job.id, token, JobError(code="internal", message="no"))

    asked, queue = pictures
    answer = asked(end, left=True)
    assert (answer.status_code, error_of(answer)["code"]) == (503, "timeout")
    assert {name: count for name, count in queue.counts().items() if count} == {"failed": 1, "cancelled": 2}
