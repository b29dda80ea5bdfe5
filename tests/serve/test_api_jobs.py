"""The native API over a queue without a worker: what is accepted, listed, changed, refused, and told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from live import SHOT, client, error_of, limits

import kinema.cli
from kinema.serve.jobs import JobProgress, Result
from kinema.story.tracks import Schedule


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with client(tmp_path_factory.mktemp("studio")) as found:
        yield found


def submit(server, **body) -> list[dict]:
    answer = server.post("/api/jobs", json={"request": SHOT, **body})
    assert answer.status_code == 201, answer.text
    return answer.json()["jobs"]


def queue_of(server):
    return server.app.state.studio.queue


def test_an_accepted_job_is_read_back_the_same(server):
    (job,) = submit(server, title="first")
    assert server.get(f"/api/jobs/{job['id']}").json() == job
    assert (job["state"], job["kind"], job["title"]) == ("queued", "image", "first")
    assert job["request"] == {**SHOT, "seed": job["request"]["seed"]}


def test_several_at_once_have_seeds_of_their_own(server):
    drawn = {job["request"]["seed"] for job in submit(server, count=5)}
    assert len(drawn) == 5
    counted = [job["request"]["seed"] for job in submit(server, request={**SHOT, "seed": 7}, count=3)]
    assert counted == [7, 8, 9]


def test_the_same_key_gives_the_same_jobs(server):
    headers = {"idempotency-key": "once"}
    body = {"request": SHOT, "count": 2}
    first = server.post("/api/jobs", json=body, headers=headers).json()["jobs"]
    again = server.post("/api/jobs", json=body, headers=headers).json()["jobs"]
    assert [job["id"] for job in again] == [job["id"] for job in first]
    other = server.post("/api/jobs", json={"request": SHOT}, headers=headers)
    assert (other.status_code, error_of(other)["code"]) == (409, "conflict")
    assert other.headers["x-should-retry"] == "false"


def test_pages_hold_every_job_once(server):
    wanted = [job["id"] for job in submit(server, count=5)]
    seen, after = [], ""
    while True:
        page = server.get(f"/api/jobs?limit=2&order=asc&after={after}").json()
        seen += [job["id"] for job in page["jobs"]]
        if not page["has_more"]:
            break
        after = seen[-1]
    assert len(seen) == len(set(seen))
    assert seen[-5:] == wanted
    newest = server.get("/api/jobs?limit=1").json()["jobs"][0]["id"]
    assert newest == wanted[-1]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("order=up", "order"),
        ("state=lost", "state"),
        ("after=1", "after"),
    ],
)
def test_a_wrong_query_names_its_field(server, query, param):
    answer = server.get(f"/api/jobs?{query}")
    assert (answer.status_code, error_of(answer)["param"]) == (422, param)


@pytest.mark.parametrize(
    ("request_", "code", "param"),
    [
        ({"prompt": "a", "stepz": 1}, "invalid_value", "stepz"),
        ({"prompt": "a", "steps": 0}, "invalid_value", "steps"),
        ({"prompt": "a", "steps": True}, "invalid_value", "steps"),
        ({"prompt": "a", "width": 100}, "invalid_geometry", "width"),
        ({"prompt": "a", "frames": 18}, "invalid_geometry", "frames"),
        ({"prompt": "a", "solver": "nothing"}, "invalid_value", "solver"),
        ({"prompt": "a", "model": "/etc"}, "unknown_model", "model"),
        ({"prompt": "a", "loras": ["/etc/x.safetensors"]}, "unknown_lora", "loras[0].path"),
        ({"prompt": "a", "keyframes": [{"image": "/etc/passwd"}]}, "not_media", "keyframes[0].image"),
        ({"prompt": "a", "keyframes": ["../../x.png@3"]}, "not_media", "keyframes[0].image"),
        ({"prompt": "a", "source": "file:///etc/passwd"}, "not_media", "source.path"),
        ({"prompt": "a", "upscale": "2:/etc/x.safetensors"}, "not_media", "upscale.model"),
        ({"prompt": "a", "upscale": {"model": "media:" + "0" * 64}}, "not_media", "upscale.model"),
        ({"prompt": "a", "upscale": 17}, "invalid_value", "upscale.scale"),
        ({"prompt": "a", "upscale": 1.3}, "invalid_geometry", "upscale"),
        ({"prompt": "a", "audio": "media:" + "0" * 64}, "unknown_media", "audio"),
        ({"shots": [{"prompt": "a"}, {"prompt": "b", "steps": -1}]}, "invalid_value", "shots[1].steps"),
        ({"shots": [{"prompt": "a"}, {"prompt": "b", "model": "x/y"}]}, "unknown_model", "shots[1].model"),
        ([], "invalid_value", "request"),
        (None, "invalid_value", "request"),
    ],
)
def test_a_wrong_request_names_its_field(server, request_, code, param):
    for path in ("/api/jobs", "/api/plan"):
        answer = server.post(path, json={"request": request_})
        assert answer.status_code == 422, answer.text
        error = error_of(answer)
        assert (error["code"], error["param"]) == (code, param)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b'{"request": {"prompt": "a", "guidance": NaN}}', 400),
        (b'{"request": {"prompt": "a", "prompt": "b"}}', 400),
        (b'{"request": {"prompt": "\\ud800"}}', 400),
        (b"\xff\xfe", 400),
        (b"[" * 5000, 400),
        (b"[]", 400),
        (b'{"request": {"prompt": "a", "guidance": 1e999}}', 422),
        (b'{"request": {"prompt": "a", "seed": ' + str(2**70).encode() + b"}}", 422),
        (b'{"request": {"prompt": "a"}, "count": 17}', 422),
        (b'{"request": {"prompt": "a"}, "kind": "image"}', 422),
        (b'{"request": {"prompt": "a", "frames": 1}, "kind": "video"}', 422),
        (b'{"request": {"prompt": "a"}, "title": 5}', 422),
        (b'{"request": {"prompt": "a"}, "path": "/tmp"}', 422),
    ],
)
def test_a_wrong_body_is_no_failure_of_ours(server, body, status):
    answer = server.post("/api/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    error_of(answer)


def test_other_types_of_body_are_refused(server):
    answer = server.post("/api/jobs", content=b"request=1", headers={"content-type": "text/plain"})
    assert (answer.status_code, error_of(answer)["code"]) == (415, "unsupported_type")


def test_what_waits_can_be_edited_moved_and_named(server):
    first, second = submit(server)[0]["id"], submit(server)[0]["id"]
    moved = server.patch(
        f"/api/jobs/{second}", json={"before": first, "title": "now", "favourite": True}
    ).json()
    assert moved["position"] < queue_of(server).get(first).position
    assert (moved["title"], moved["favourite"]) == ("now", True)
    edited = server.patch(f"/api/jobs/{second}", json={"request": {**SHOT, "prompt": "a fox"}}).json()
    assert (edited["request"]["prompt"], edited["position"]) == ("a fox", moved["position"])
    wrong = server.patch(f"/api/jobs/{second}", json={"request": {**SHOT, "steps": 0}})
    assert (wrong.status_code, error_of(wrong)["param"]) == (422, "steps")


def test_an_edited_job_is_of_the_kind_that_it_makes_now(server):
    name = submit(server)[0]["id"]
    for frames, kind in ((17, "video"), (1, "image")):
        edited = server.patch(f"/api/jobs/{name}", json={"request": {**SHOT, "frames": frames}}).json()
        assert (edited["request"]["frames"], edited["kind"]) == (frames, kind)


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"before": 5}, 422),
        ({"before": "video_" + 26 * "0"}, 404),
        ({"favourite": "yes"}, 422),
        ({"title": 5}, 422),
        ({"title": 201 * "x"}, 422),
    ],
)
def test_a_change_that_is_wrong_in_a_part_changes_nothing(server, wrong, status):
    job = submit(server)[0]
    answer = server.patch(
        f"/api/jobs/{job['id']}", json={"request": {**SHOT, "prompt": "a fox"}, "before": None, **wrong}
    )
    assert answer.status_code == status, answer.text
    assert server.get(f"/api/jobs/{job['id']}").json() == job


def test_cancelled_jobs_are_tried_again_cloned_and_deleted(server):
    name = submit(server, title="t")[0]["id"]
    assert server.post(f"/api/jobs/{name}/cancel", json={"keep": False}).json()["state"] == "cancelled"
    late = server.patch(f"/api/jobs/{name}", json={"request": SHOT})
    assert (late.status_code, error_of(late)["code"]) == (409, "conflict")
    assert server.post(f"/api/jobs/{name}/retry").json()["state"] == "queued"
    copy = server.post(f"/api/jobs/{name}/clone").json()
    assert copy["parent"] == {"id": name, "how": "clone"}
    assert copy["request"] == queue_of(server).get(name).request
    assert server.delete(f"/api/jobs/{name}").json() == {"id": name, "deleted": True}
    for gone in (server.get(f"/api/jobs/{name}"), server.delete(f"/api/jobs/{name}")):
        assert (gone.status_code, error_of(gone)["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "name",
    [
        "1",
        "video_",
        "video_" + "A" * 26,
        "..%2F..%2Fetc%2Fpasswd",
        "video_" + "a" * 25 + "%00",
        "video_" + "0" * 26,
    ],
)
@pytest.mark.parametrize("rest", ["", "/video", "/thumbnail", "/frames/0.png", "/text"])
def test_ids_of_another_form_are_not_found(server, name, rest):
    answer = server.get(f"/api/jobs/{name}{rest}")
    assert answer.status_code == 404
    error_of(answer)


def test_a_job_without_a_file_says_why(server):
    name = submit(server)[0]["id"]
    answer = server.get(f"/api/jobs/{name}/video")
    assert (answer.status_code, error_of(answer)["code"]) == (404, "video_not_ready")


def finish(server, data: bytes) -> str:
    """A job whose result is `data`."""
    queue, folders = queue_of(server), server.app.state.studio.folders
    for other in queue.list(states=["queued"], limit=500).jobs:
        queue.cancel(other.id, keep=False)
    name = submit(server)[0]["id"]
    job, token = queue.lease("test", 60)
    assert job.id == name
    queue.beat(name, token, JobProgress(phase="denoise", step=1, steps=4, fraction=0.2, preview=1))
    (folders.results / f"{name}.mp4").write_bytes(data)
    facts = {
        "frames": 1,
        "fps": "8",
        "width": 64,
        "height": 64,
        "bytes": len(data),
        "seed": 1,
        "seconds_taken": 1.0,
    }
    queue.finish(name, token, Result(file=f"{name}.mp4", **facts))
    return name


def test_files_are_served_in_ranges_with_tags(server):
    data = bytes(range(256)) * 40
    path = f"/api/jobs/{finish(server, data)}/video"
    whole = server.get(path)
    assert (whole.content, whole.headers["content-type"]) == (data, "video/mp4")
    assert whole.headers["x-content-type-options"] == "nosniff"
    head = server.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(data))
    part = server.get(path, headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, data[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(data)}"
    outside = server.get(path, headers={"range": "bytes=99999-"})
    assert (outside.status_code, error_of(outside)["code"]) == (416, "range_not_satisfiable")
    assert outside.headers["content-range"] == f"bytes */{len(data)}"
    several = server.get(path, headers={"range": "bytes=0-1,99999-"})
    assert (several.status_code, several.content) == (206, data[:2])
    known = server.get(path, headers={"if-none-match": whole.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")


@pytest.mark.parametrize("written", ["bytes=9-1", "bytes=a-", "seconds=0-1", "bytes", "bytes=-"])
def test_a_range_that_makes_no_sense_is_ignored(server, written):
    path = f"/api/jobs/{finish(server, b'x' * 1000)}/video"
    answer = server.get(path, headers={"range": written})
    assert (answer.status_code, len(answer.content)) == (200, 1000)


def test_a_range_counts_for_get_and_for_the_version_it_is_meant_for(server):
    path = f"/api/jobs/{finish(server, b'x' * 1000)}/video"
    outside = {"range": "bytes=5000-"}
    assert server.head(path, headers=outside).status_code == 200
    tag = server.get(path).headers["etag"]
    assert server.get(path, headers={**outside, "if-range": '"another"'}).status_code == 200
    assert server.get(path, headers={**outside, "if-range": tag}).status_code == 416
    assert server.get(path, headers={"range": "bytes=0-9", "if-range": tag}).status_code == 206


def test_many_ranges_cost_no_time(server):
    path = f"/api/jobs/{finish(server, b'x' * 1000)}/video"
    answer = server.get(path, headers={"range": "bytes=" + ",".join(["0-"] * 1000)})
    assert len(answer.content) < 100_000


def test_text_of_a_job_makes_the_same_shot(server):
    shot = {"prompt": "-a 'quoted' $HOME `fox`\n${x}", "steps": 2, "guidance": "0:(1), 8:(3)", "seed": 5}
    name = submit(server, request=shot)[0]["id"]
    from kinema.story.files import parse_yaml
    from kinema.story.storyboard import from_mapping

    written = parse_yaml(server.get(f"/api/jobs/{name}/text?as=yaml").text)
    assert from_mapping({**written, "vars": {}}) == from_mapping({**shot, "prompt": shot["prompt"]})
    program = server.get(f"/api/jobs/{name}/text?as=python").text
    compile(program, "snippet", "exec")
    command = server.get(f"/api/jobs/{name}/text?as=cli").text
    assert command.startswith("kinema generate")
    wrong = server.get(f"/api/jobs/{name}/text?as=perl")
    assert (wrong.status_code, error_of(wrong)["param"]) == (422, "as")


def test_the_plan_says_what_is_sampled(server):
    found = server.post("/api/plan", json={"request": {"prompt": "a", "steps": 4, "frames": 17}}).json()
    assert (found["frames"], found["width"], found["shots"][0]["latent_frames"]) == (17, 64, 5)
    assert found["work"] == 64 * 64 * 17 * 4
    assert found["most_seconds"] == server.get("/api/about").json()["limits"]["seconds"] == 4 * 3600
    assert not found["is_image"]


def test_a_plan_counts_the_pixels_that_are_made_at_the_end(server):
    request = {"prompt": "a", "steps": 4, "frames": 17, "upscale": 1.5, "interpolate": 16}
    found = server.post("/api/plan", json={"request": request}).json()
    assert (found["frames"], found["width"], found["height"]) == (33, 96, 96)
    assert found["work"] == 64 * 64 * 17 * 4 + 96 * 96 * 33


def test_a_plan_has_all_that_the_command_line_tells_a_program(server, capsys):
    options = ["--model", "embedded", "--frames", "17", "--seed", "3"]
    assert kinema.cli.run(["plan", "a fox", *options, "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    request = {"prompt": "a fox", "model": "embedded", "frames": 17, "seed": 3}
    (shot,) = server.post("/api/plan", json={"request": request}).json()["shots"]
    assert set(shot) == set(told) - {"event"}
    measured = {"event", "seconds", "memory"}
    assert {**shot, **dict.fromkeys(measured)} == {**told, **dict.fromkeys(measured)}
    assert shot["memory"]["needs"] == told["memory"]["needs"]
    assert shot["memory"]["taken"] == told["memory"]["taken"] == "whole"


def test_the_curve_is_the_schedules(server):
    body = {"text": "0:(1), 4:(3)", "frames": 5, "fps": 8}
    assert server.post("/api/curve", json=body).json() == {"values": [1.0, 1.5, 2.0, 2.5, 3.0]}
    keys = "0:(1), 2:(3), 4:(2), 6:(5)"
    for interpolation in ("linear", "cubic"):
        track = {"deforum": keys, "interpolation": interpolation}
        drawn = server.post("/api/curve", json={"text": track, "frames": 7}).json()["values"]
        assert drawn == pytest.approx(Schedule(track).values(7, 24))
    body = {"text": "0:(1/2*t), 4:(3)", "frames": 5, "dialect": "deforum"}
    values = Schedule({"deforum": body["text"]}).values(5, 24)
    assert server.post("/api/curve", json=body).json()["values"] == pytest.approx(values)
    for text in ("9**9**9", "__import__('os')", "1/0", "a" * 3000, "(" * 1000):
        wrong = server.post("/api/curve", json={"text": text, "frames": 100})
        assert wrong.status_code == 422, text
        error_of(wrong)
    assert server.post("/api/curve", json={"text": "t", "frames": 10**6}).status_code == 422


def test_about_and_schema_describe_what_can_be_asked(server):
    about = server.get("/api/about").json()
    (model,) = about["models"]
    assert (model["id"], model["card"]["defaults"]["width"]) == ("embedded", 64)
    assert about["token_needed"] is False
    assert "prompt" in server.get("/api/schema").json()["properties"]
    assert "shots" in server.get("/api/schema?of=storyboard").json()["properties"]


def test_metrics_count_by_route_and_never_by_id(server):
    name = submit(server)[0]["id"]
    server.get(f"/api/jobs/{name}")
    text = server.get("/metrics").text
    assert 'kinema_http_requests_total{method="GET",route="/api/jobs/{id}",code="200"}' in text
    assert name not in text
    queued = queue_of(server).counts()["queued"]
    assert f'kinema_jobs{{state="queued"}} {queued}' in text


@pytest.fixture
def studio(server, monkeypatch):
    """The server's state; `studio(limits(...))` changes the limits for one test."""
    found = server.app.state.studio

    def limited(most):
        monkeypatch.setattr(found, "settings", replace(found.settings, limits=most))
        return found

    return limited


def test_a_full_queue_says_when_to_come_back(server, studio):
    waiting = queue_of(server).counts()["queued"]
    studio(limits(queued=waiting + 2))
    assert server.post("/api/jobs", json={"request": SHOT, "count": 3}).status_code == 429
    submit(server, count=2)
    full = server.post("/api/jobs", json={"request": SHOT})
    assert (full.status_code, error_of(full)["code"]) == (429, "queue_full")
    assert int(full.headers["retry-after"]) <= 120
    assert queue_of(server).counts()["queued"] == waiting + 2


def test_a_job_that_costs_too_much_is_refused(server, studio):
    studio(limits(work=64 * 64 * 16))
    submit(server, request={"prompt": "a", "frames": 1, "steps": 16})
    answer = server.post("/api/jobs", json={"request": {"prompt": "a", "frames": 17, "steps": 19}})
    assert (answer.status_code, error_of(answer)["code"]) == (422, "too_expensive")


def test_a_job_that_takes_too_long_is_refused_everywhere(server, studio):
    studio(limits(seconds=1e-9))
    long = {"prompt": "a", "frames": 17, "steps": 18}
    for path, body in (("/api/plan", {"request": long}), ("/api/jobs", {"request": long})):
        answer = server.post(path, json=body)
        assert (answer.status_code, error_of(answer)["code"]) == (422, "too_expensive")
    answer = server.post("/v1/videos", json={"prompt": "a", "num_frames": 17, "steps": 18})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "too_expensive")
    studio(limits(seconds=0))
    assert server.post("/api/plan", json={"request": long}).json()["most_seconds"] is None
    submit(server, request=long)


def test_what_is_asked_for_again_has_to_keep_the_rules_of_today(server, studio):
    queue = queue_of(server)
    gone = queue.submit({"prompt": "a", "model": "./gone"}).id
    queue.cancel(gone)
    for how in ("clone", "retry"):
        answer = server.post(f"/api/jobs/{gone}/{how}")
        assert (answer.status_code, error_of(answer)["code"]) == (422, "unknown_model")
    long = submit(server, request={"prompt": "a", "frames": 17, "steps": 17})[0]["id"]
    assert server.post(f"/api/jobs/{long}/clone").status_code == 201
    server.app.state.studio._planned.clear()
    studio(limits(seconds=1e-9))
    answer = server.post(f"/api/jobs/{long}/clone")
    assert (answer.status_code, error_of(answer)["code"]) == (422, "too_expensive")


def test_while_it_drains_nothing_is_taken_and_looks_are_answered(server, monkeypatch):
    name = submit(server)[0]["id"]
    monkeypatch.setattr(server.app.state.studio, "draining", True)
    late = server.post("/api/jobs", json={"request": SHOT})
    assert (late.status_code, error_of(late)["code"]) == (503, "draining")
    assert late.headers["retry-after"]
    assert server.get("/readyz").status_code == 503
    assert server.get("/healthz").status_code == 200
    assert server.get(f"/api/jobs/{name}").status_code == 200


def test_the_document_covers_every_route(server):
    document = json.loads(server.get("/openapi.json").text)
    assert {"/api/jobs", "/api/plan", "/api/events", "/api/media"} <= set(document["paths"])
    for path, methods in document["paths"].items():
        for method, facts in methods.items():
            assert "4XX" in facts["responses"], (method, path)


def test_the_short_way_answers_as_the_routes_do(server):
    name = submit(server, request={"prompt": "a fox", "steps": 2})[0]["id"]
    for surface in ("api/jobs", "v1/videos"):
        short = server.get(f"/{surface}/{name}")
        head = server.head(f"/{surface}/{name}")  # which goes by the route
        assert short.headers["content-length"] == head.headers["content-length"]
        assert set(short.headers) == set(head.headers)
        assert server.get(f"/{surface}/video_{'0' * 26}").status_code == 404
    picture = submit(server)[0]["id"]
    assert server.get(f"/v1/videos/{picture}").status_code == 404
