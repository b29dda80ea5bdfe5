"""A server that speaks the studio's HTTP and makes no clips; see `stand_in_store`.

Requests, schema and curves are checked by kinema's own story layer. For browser tests only.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image
from stand_in_store import CLIPS, DEFAULTS, ROOT, Store, picture

from kinema.core.errors import KinemaError
from kinema.io.record import read_record
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard, from_mapping
from kinema.story.timing import parse_fps
from kinema.story.tracks import Schedule

WEB = ROOT / "src/kinema/serve/web"
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
MEMORY = {"whole": 420_000_000, "component": 400_000_000, "block": 390_000_000}
CARD = {
    "sizes": {"multiple": 16, "any_aspect": False},
    "stride": {"time": 4, "space": 8},
    "defaults": DEFAULTS,
}


class ApiProblem(Exception):
    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param = status, param


def checked(values: dict[str, Any]) -> Shot:
    """The shot, or the first of a storyboard."""
    try:
        story = from_mapping(values)
    except KinemaError as error:
        raise ApiProblem(422, str(error), str(error).partition("=")[0].split(" ")[0]) from None
    shots = [legal(shot) for shot in (story.shots if isinstance(story, Storyboard) else (story,))]
    return shots[0]


def legal(shot: Shot) -> Shot:
    if shot.prompt.empty and not (shot.keyframes or shot.source or shot.extend):
        raise ApiProblem(422, "there is no prompt; write what the clip shows.", "prompt")
    rest = 0 if shot.loop or shot.extend else 1
    if shot.frames and (shot.frames - rest) % 4:
        message = f"frames={shot.frames} is no length of this model; write a multiple of 4 and {rest}."
        raise ApiProblem(422, message, "frames")
    return shot


def planned(shot: Shot) -> dict[str, Any]:
    frames = shot.frames or DEFAULTS["frames"]
    latent = 1 + (frames - 1) // 4
    steps = shot.steps or DEFAULTS["steps"]
    facts = {
        "shot": {**DEFAULTS, **shot.model_dump(mode="json", exclude_unset=True)}, "notes": [],
        "latent_frames": latent, "tokens": 64 * latent, "forwards": 2 * steps,
        "seconds": 0.1 * steps * latent,
        "weight_bytes": 49_225_274, "working_bytes": 4_587_520.0,
        "memory": {"needs": MEMORY, "free": 10**9, "device": "cpu", "taken": "whole"},
    }  # fmt: skip
    return {
        "shots": [facts],
        "frames": frames,
        "notes": [],
        "seconds": facts["seconds"],
        "most_seconds": 4 * 3600.0,
        "is_image": frames == 1,
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PATCH(self) -> None:
        self._answer("PATCH")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        place = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(place.query).items()}
        try:
            if not place.path.startswith("/api/"):
                return self._file(place.path)
            if self.store.token and self.headers.get("authorization") != f"Bearer {self.store.token}":
                raise ApiProblem(401, "the token is missing or wrong")
            if place.path == "/api/events":
                return self._events()
            self._api(method, place.path.split("/")[2:], query, body)
        except ApiProblem as error:
            told = {
                "message": str(error),
                "type": "invalid_request_error",
                "code": "bad",
                "param": error.param,
            }
            self._json({"error": told}, error.status)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def _file(self, path: str) -> None:
        file = WEB / (path.lstrip("/") or "index.html")
        if file.parent != WEB or not file.is_file():
            return self._send(404, "text/plain", b"no")
        self._send(200, TYPES[file.suffix], file.read_bytes())

    def _api(self, method: str, parts: list[str], query: dict[str, str], body: bytes) -> None:
        store = self.store
        match [method, *parts]:
            case ["GET", "about"]:
                models = [{"id": "embedded", "card": CARD}]
                self._json({"version": "0", "models": models, "limits": {}, "token_needed": False})
            case ["GET", "schema"]:
                self._json(Shot.model_json_schema())
            case ["POST", "plan"]:
                self._json(planned(checked(json.loads(body)["request"])))
            case ["POST", "curve"]:
                self._json({"values": curve(json.loads(body))})
            case ["POST", "media"]:
                self._json(self._keep(body), 201)
            case ["GET", "media", digest] if digest in store.media:
                self._send(200, "application/octet-stream", store.media[digest])
            case ["POST", "restore"]:
                self._json(restored(body))
            case ["POST", "jobs"]:
                self._submit(json.loads(body))
            case ["GET", "jobs"]:
                self._list(query)
            case [_, "jobs", name, *rest] if name in store.jobs:
                values = json.loads(body) if body else {}
                store.asked.append((method, "/".join(rest), values))
                self._job(method, store.jobs[name], rest, values)
            case _:
                raise ApiProblem(404, f"there is nothing at {self.path[:80]}")

    def _keep(self, body: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(body).hexdigest()
        self.store.media[digest] = body
        facts = {"kind": "image" if body[:8].startswith(b"\x89PNG") else "video"}
        return {"ref": f"media:{digest}", "width": 64, "height": 64, "frames": 1, "fps": None, **facts}

    def _submit(self, values: dict[str, Any]) -> None:
        key = self.headers.get("idempotency-key")
        checked(values["request"])
        if key not in self.store.keys:
            made = self.store.submit(values["request"], values.get("count", 1))
            self.store.keys[key] = [job["id"] for job in made]
        self._json({"jobs": [self.store.jobs[name] for name in self.store.keys[key]]}, 201)

    def _list(self, query: dict[str, str]) -> None:
        jobs = sorted(
            self.store.jobs.values(), key=lambda job: job["created"], reverse=query.get("order") != "asc"
        )
        if after := query.get("after"):
            if after not in self.store.jobs:
                raise ApiProblem(404, f"there is no job {after}", "after")
            jobs = jobs[[job["id"] for job in jobs].index(after) + 1 :]
        if "state" in query:
            jobs = [job for job in jobs if job["state"] in query["state"].split(",")]
        limit = int(query.get("limit", 50))
        self._json({"jobs": jobs[:limit], "has_more": len(jobs) > limit})

    def _job(self, method: str, job: dict[str, Any], rest: list[str], values: dict[str, Any]) -> None:
        store = self.store
        match [method, *rest]:
            case ["GET"]:
                self._json(job)
            case ["PATCH"]:
                self._json(self._change(job, values))
            case ["DELETE"]:
                store.remove(job["id"])
                self._json({"id": job["id"], "deleted": True})
            case ["POST", "cancel"]:
                running = job["state"] == "running"
                job["keep"] = values.get("keep", True)
                self._json(store.touch(job, state="cancelling" if running else "cancelled"))
            case ["POST", "clone"]:
                self._json(store.submit(job["request"], parent={"id": job["id"], "how": "clone"})[0], 201)
            case ["POST", "retry"]:
                self._json(store.touch(job, state="queued", position=time.time(), error=None))
            case ["GET", "video"] if job["result"]:
                self._range((CLIPS[0].parent / job["result"]["file"]).read_bytes())
            case ["GET", "thumbnail"] if job["result"]:
                self._send(200, "image/webp", picture(len(job["id"]) % 20, 20))
            case ["GET", "frames", _]:
                png = io.BytesIO()
                Image.new("RGB", (64, 64), "teal").save(png, "PNG")
                self._send(200, "image/png", png.getvalue())
            case ["GET", "preview"] if job["id"] in store.previews:
                self._send(200, "image/webp", store.previews[job["id"]])
            case ["GET", "text"]:
                self._send(200, "text/plain", b"kinema generate ...\n")
            case _:
                raise ApiProblem(404, "that is not there")

    def _change(self, job: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
        if "request" in values:
            checked(values["request"])
            self.store.touch(job, request=values["request"])
        if "before" in values:
            others = sorted(
                j["position"] for j in self.store.jobs.values() if j["state"] == "queued" and j is not job
            )
            end = max(others, default=0.0) + 1.0
            place = self.store.jobs[values["before"]]["position"] if values["before"] else end
            below = max((p for p in others if p < place), default=place - 2.0)
            self.store.touch(job, position=(below + place) / 2)
        marks = {name: values[name] for name in ("favourite", "title") if name in values}
        return self.store.touch(job, **marks)

    def _events(self) -> None:
        store = self.store
        seen = int(self.headers.get("last-event-id") or store.revision)  # before the client asks for lists
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        while not self.server.ending:  # type: ignore[attr-defined]
            with store.changed:
                if store.revision <= seen:
                    store.changed.wait(0.2)
                jobs = [job for job in store.jobs.values() if job["revision"] > seen]
                gone = [(revision, name) for name, revision in store.gone.items() if revision > seen]
                told = [(job["revision"], "job", json.dumps(job)) for job in jobs]
                told += [(revision, "gone", json.dumps({"id": name})) for revision, name in gone]
            for revision, kind, data in sorted(told):
                seen = revision
                self._event(kind, data, revision)
                job = json.loads(data)
                if kind == "job" and job["state"] == "running" and job["progress"]["step"]:
                    step, steps = job["progress"]["step"], job["progress"]["steps"]
                    url = f"/api/jobs/{job['id']}/preview?v={step}"
                    self._event(
                        "preview",
                        json.dumps({"id": job["id"], "step": step, "steps": steps, "url": url}),
                        revision,
                    )
            self.wfile.write(b": still here\n\n")
            self.wfile.flush()

    def _event(self, kind: str, data: str, revision: int) -> None:
        self.wfile.write(f"event: {kind}\nid: {revision}\ndata: {data}\n\n".encode())

    def _range(self, body: bytes) -> None:
        wanted = self.headers.get("range")
        if not wanted:
            return self._send(200, "video/mp4", body)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        a, b = int(first), min(int(last or len(body) - 1), len(body) - 1)
        self._send(206, "video/mp4", body[a : b + 1], {"Content-Range": f"bytes {a}-{b}/{len(body)}"})

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, "application/json", json.dumps(value, default=str).encode())

    def _send(self, status: int, kind: str, body: bytes, extra: dict[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": POLICY if kind.startswith("text/html") else "default-src 'none'",
            "Cache-Control": "no-store",
            **(extra or {}),
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def curve(values: dict[str, Any]) -> list[float]:
    try:
        track = Schedule.parse(values["text"])
        fps, seed = parse_fps(values["fps"]), values.get("seed", 0)
        return [float(v) for v in track.values(values["frames"], fps, seed, bpm=values.get("bpm"))]
    except KinemaError as error:
        raise ApiProblem(422, str(error), "text") from None


def restored(body: bytes) -> dict[str, Any]:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".mp4" if body[4:8] == b"ftyp" else ".png") as file:
        file.write(body)
        file.flush()
        record = read_record(file.name)
    if record is None:
        raise ApiProblem(422, "There are no settings in that file.")
    return {"request": dict(record.shot), "source": "kinema", "notes": ["The model was version 1."]}


class StandIn:
    """The server, which can be stopped and started again on its port over one store."""

    def __init__(self, store: Store | None = None, port: int = 0) -> None:
        self.store = store or Store()
        self.port = port
        self.start()

    def start(self) -> None:
        handler = type("Bound", (Handler,), {"store": self.store})
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.server.daemon_threads = True
        self.server.ending = False  # type: ignore[attr-defined]
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.server.ending = True  # type: ignore[attr-defined]
        self.server.shutdown()
        self.server.server_close()
        with self.store.changed:
            self.store.changed.notify_all()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"
