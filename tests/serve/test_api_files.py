"""Uploads, results of remote workers, restored settings, and event streams."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest
from live import SHOT, Live, client, error_of
from PIL import Image

from kinema.serve.events import MOST_BEHIND, MOST_BYTES_BEHIND, Listener, Stream, Watcher
from kinema.serve.queue import Queue


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with client(tmp_path_factory.mktemp("files")) as found:
        yield found


def png(side: int = 16, **texts: str) -> bytes:
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (9, 99, 199)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def test_an_upload_is_known_by_its_content(server):
    first = server.post("/api/media", content=png())
    again = server.post("/api/media", files={"file": ("x.html", png(), "text/html")})
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    assert (first.json()["kind"], first.json()["width"], first.json()["frames"]) == ("image", 16, 1)
    found = server.get(f"/api/media/{first.json()['ref'][6:]}")
    assert (found.content, found.headers["content-type"]) == (png(), "image/png")
    request = {"prompt": "a", "steps": 1, "keyframes": [{"image": first.json()["ref"]}]}
    planned = server.post("/api/plan", json={"request": request}).json()
    assert planned["shots"][0]["shot"]["keyframes"][0]["image"] == first.json()["ref"]
    assert str(server.app.state.studio.folders.root) not in json.dumps(planned)


def test_the_body_of_curl_is_a_file_whatever_curl_calls_it(server):
    """`curl --data-binary @start.png`, as the guide writes it."""
    curls = {"content-type": "application/x-www-form-urlencoded", "user-agent": "curl/8.5.0", "accept": "*/*"}
    found = server.post("/api/media", content=png(), headers=curls)
    assert found.status_code == 201, found.text
    assert found.json()["kind"] == "image"
    text = "a fox\nSteps: 9, Sampler: Euler, CFG scale: 4, Seed: 8, Size: 64x64"
    restored = server.post("/api/restore", content=png(parameters=text), headers=curls)
    assert restored.status_code == 200, restored.text
    assert restored.json()["request"]["prompt"] == "a fox"


def test_settings_come_back_from_a_picture_over_http(server):
    text = "a fox\nSteps: 9, Sampler: Euler, CFG scale: 4, Seed: 8, Size: 64x64"
    found = server.post("/api/restore", content=png(parameters=text))
    assert found.status_code == 200, found.text
    assert (found.json()["source"], found.json()["request"]["steps"]) == ("a1111", 9)
    empty = server.post("/api/restore", content=png())
    assert (empty.status_code, error_of(empty)["code"]) == (422, "invalid_media")


def test_a_worker_elsewhere_takes_a_job_and_hands_in_its_file(server):
    name = server.post("/api/jobs", json={"request": SHOT}).json()["jobs"][0]["id"]
    lent = server.post("/api/workers/lease", json={"worker": "far", "seconds": 30}).json()
    assert lent["job"]["id"] == name
    token, base = lent["token"], f"/api/workers/{name}"
    assert server.post("/api/workers/lease", json={"worker": "far"}).status_code == 204
    beat = {"token": token, "progress": {"phase": "denoise", "step": 1, "steps": 2, "fraction": 0.5}}
    assert server.post(f"{base}/beat", json=beat).json() == {"signal": "go"}
    assert server.post(f"{base}/beat", json={**beat, "token": "other"}).json() == {"signal": "lost"}
    facts = json.dumps({"fps": "8", "seed": 5})
    wrong = server.post(f"{base}/result", data={"token": "other", "facts": facts}, files={"file": png()})
    assert (wrong.status_code, error_of(wrong)["code"]) == (409, "conflict")
    junk = server.post(f"{base}/result", data={"token": token, "facts": facts}, files={"file": b"no picture"})
    assert junk.status_code == 422
    clip = {"file": (Path(__file__).parents[2] / "samples/clips/rooster.mp4").read_bytes()}
    other = server.post(f"{base}/result", data={"token": token, "facts": facts}, files=clip)
    assert (other.status_code, error_of(other)["code"]) == (422, "invalid_media")
    assert "kind video" in error_of(other)["message"]
    done = server.post(f"{base}/result", data={"token": token, "facts": facts}, files={"file": png()})
    assert done.status_code == 200, done.text
    result = server.get(f"/api/jobs/{name}").json()
    assert (result["state"], result["result"]["width"], result["result"]["seed"]) == ("done", 16, 5)
    assert server.get(f"/api/jobs/{name}/video").content == png()
    assert server.get(f"/api/jobs/{name}/thumbnail").headers["content-type"] == "image/webp"
    frame = server.get(f"/api/jobs/{name}/frames/-1.png")
    assert Image.open(io.BytesIO(frame.content)).size == (16, 16)
    assert server.get(f"/api/jobs/{name}/frames/1.png").status_code == 404
    assert not list(server.app.state.studio.folders.incoming.iterdir())


def parse(stream: bytes) -> list[tuple[str, dict]]:
    blocks = [block for block in stream.decode().split("\n\n") if block.startswith("event:")]
    lines = [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]
    return [(fields["event"], json.loads(fields["data"])) for fields in lines]


async def listened(queue: Queue, since: int | None, act) -> list[tuple[str, dict]]:
    """The events of one stream while `act` changes the queue."""
    heard: list[bytes] = []
    gone = asyncio.Event()

    async def send(message) -> None:
        heard.append(message.get("body", b""))

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    async def forget(name: str) -> None:
        pass

    watcher = Watcher(queue, 2, lambda job: None, forget)
    await watcher.start()
    task = asyncio.create_task(Stream(watcher, since)({"type": "http"}, receive, send))
    while b"event: ready" not in b"".join(heard):
        await asyncio.sleep(0.01)
    act()
    last = queue.changes(0).revision
    while watcher.revision < last or any(listener.waiting for listener in watcher._listeners):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)  # what was taken is sent in the same turn
    gone.set()
    await task
    assert watcher.listeners == 0
    await watcher.stop()
    return parse(b"".join(heard))


def test_events_tell_what_changes_and_what_was_missed(tmp_path):
    with Queue(tmp_path / "q") as queue:
        first, second = (queue.submit({"prompt": text}).id for text in "ab")

        def act() -> None:
            queue.mark(first, title="new")
            queue.delete(second)

        live = asyncio.run(listened(queue, None, act))
        assert [kind for kind, _ in live] == ["ready", "job", "gone"]
        assert (live[1][1]["title"], live[2][1]) == ("new", {"id": second})
        revision = live[0][1]["revision"]
        replayed = asyncio.run(listened(queue, revision, lambda: None))
        assert [(kind, data.get("id")) for kind, data in replayed] == [
            ("job", first),
            ("gone", second),
            ("ready", None),
        ]


def test_changes_that_come_together_are_told_however_large_they_are(tmp_path):
    with Queue(tmp_path / "q") as queue:
        large = [{"prompt": 900_000 * "x", "seed": seed} for seed in range(6)]
        heard = asyncio.run(listened(queue, None, lambda: queue.submit_all(large)))
    assert [data["request"]["seed"] for kind, data in heard if kind == "job"] == list(range(6))


def test_a_reader_of_one_large_message_has_time_until_the_next():
    listener = Listener()
    listener.give((MOST_BYTES_BEHIND + 1) * b"x")
    assert not listener.slow
    listener.give(b"x")
    assert listener.slow


def test_a_slow_reader_is_let_go():
    listener = Listener()
    for _ in range(MOST_BEHIND):
        listener.give(b"x")
    assert not listener.slow
    listener.give(b"x")
    assert listener.slow


def test_sigterm_lets_the_render_go_and_the_next_server_goes_on(tmp_path):
    data = tmp_path / "data"
    with Live(data) as server:
        name = server.post("/api/jobs", {"request": {"prompt": "a", "steps": 60, "frames": 5}})["jobs"][0][
            "id"
        ]
        while server.get(f"/api/jobs/{name}")["progress"]["phase"] != "denoise":
            assert server.get(f"/api/jobs/{name}")["state"] != "failed"
        assert server.stop() == 0
    with Queue(data / "queue.sqlite3") as queue:
        job = queue.get(name)
        assert (job.state, job.attempt) == ("queued", 1)
    assert "Traceback" not in data.with_suffix(".log").read_text()
