"""Jobs that pass through their steps by the clock and end as clips of `samples/`, for the stand-in."""

from __future__ import annotations

import io
import secrets
import threading
import time
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[2]
CLIPS = [
    ROOT / "samples/clips" / f"{name}.mp4" for name in ("rooster", "travel", "moon", "face", "pan", "train")
]
LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
DEFAULTS = {
    "width": 64, "height": 64, "frames": 17, "fps": "8", "steps": 20, "solver": "unipc", "grid": "wan-euler",
    "shift": 1.0, "guidance": 3.0, "guidance_low": None,
}  # fmt: skip


class Store:
    """Jobs, uploads and changes; outlives a server that is stopped and started again.

    `paused` lets nothing begin, `hold_at` stops a job after that step until it is 0 again, `fail_next` is the
    error of the next job, `asked` what was asked of jobs; with `token`, every request must carry it.
    """

    def __init__(self, step_seconds: float = 0.02) -> None:
        self.step_seconds = step_seconds
        self.jobs: dict[str, dict[str, Any]] = {}
        self.gone: dict[str, int] = {}
        self.media: dict[str, bytes] = {}
        self.previews: dict[str, bytes] = {}
        self.keys: dict[str, list[str]] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.revision = 0
        self.fail_next = ""
        self.token = ""
        self.changed = threading.Condition()
        self.closed = False
        self.paused = False
        self.hold_at = 0
        threading.Thread(target=self._work, daemon=True).start()

    def touch(self, job: dict[str, Any], **values: Any) -> dict[str, Any]:
        with self.changed:
            self.revision += 1
            job.update(values, revision=self.revision)
            self.changed.notify_all()
        return job

    def submit(
        self, request: dict[str, Any], count: int = 1, parent: Any = None, run: bool = True
    ) -> list[dict[str, Any]]:
        made = []
        for step in range(count):
            job = {
                "id": "video_" + "".join(secrets.choice(LETTERS) for _ in range(26)),
                "kind": "image" if request.get("frames") == 1 else "video",
                "request": seeded(request, step), "state": "queued" if run else "running",
                "position": time.time(), "created": time.time(), "started": None, "finished": None,
                "progress": progress("", 0, 0), "attempt": 0, "error": None, "owner": "", "parent": parent,
                "favourite": False, "title": "", "result": None,
            }  # fmt: skip
            with self.changed:
                self.jobs[job["id"]] = self.touch(job)
            made.append(job)
        return made

    def finish(self, job: dict[str, Any]) -> dict[str, Any]:
        """Ends a job at once."""
        now = time.time()
        job["started"] = now - 2.0
        return self.touch(
            job, state="done", started=now - 2.0, finished=now, result=self._result(job, partial=False)
        )

    def remove(self, name: str) -> None:
        with self.changed:
            del self.jobs[name]
            self.revision += 1
            self.gone[name] = self.revision
            self.changed.notify_all()

    def _work(self) -> None:
        while not self.closed:
            waiting = [job for job in self.jobs.copy().values() if job["state"] == "queued"]
            if not waiting or self.paused:
                time.sleep(0.02)
                continue
            self._run(min(waiting, key=lambda job: job["position"]))

    def _run(self, job: dict[str, Any]) -> None:
        if self.fail_next:
            error = {"code": "out_of_memory", "message": self.fail_next, "param": None}
            self.fail_next = ""
            self.touch(job, state="failed", error=error, finished=time.time(), attempt=job["attempt"] + 1)
            return
        self.touch(job, state="running", started=time.time(), attempt=job["attempt"] + 1, error=None)
        steps = job["request"].get("steps") or DEFAULTS["steps"]
        for step in range(1, steps + 1):
            time.sleep(self.step_seconds)
            while self.hold_at and step > self.hold_at and not self.closed and job["state"] == "running":
                time.sleep(0.01)
            if job["state"] == "cancelling" or job["id"] not in self.jobs:
                break
            self.previews[job["id"]] = picture(step, steps)
            self.touch(job, progress=progress("denoise", step, steps, (steps - step) * self.step_seconds))
        if job["id"] not in self.jobs:
            return
        kept = job["state"] == "running" or job.get("keep")
        result = self._result(job, partial=job["state"] == "cancelling") if kept else None
        self.touch(
            job,
            state="done" if job["state"] == "running" else "cancelled",
            finished=time.time(),
            result=result,
        )

    def _result(self, job: dict[str, Any], partial: bool) -> dict[str, Any]:
        clip = CLIPS[list(self.jobs).index(job["id"]) % len(CLIPS)]
        return {
            "file": clip.name, "frames": 17, "fps": "8", "width": 64, "height": 64,
            "bytes": clip.stat().st_size, "seed": job["request"].get("shots", [job["request"]])[0]["seed"],
            "seconds_taken": time.time() - job["started"], "partial": partial,
        }  # fmt: skip


def seeded(request: dict[str, Any], step: int) -> dict[str, Any]:
    """A seed in every shot."""
    if "shots" in request:
        return {**request, "shots": [seeded(shot, step) for shot in request["shots"]]}
    return {**request, "seed": request.get("seed", secrets.randbelow(2**31)) + step}


def progress(phase: str, step: int, steps: int, left: float | None = None) -> dict[str, Any]:
    share = step / steps if steps else 0.0
    return {
        "phase": phase, "step": step, "steps": steps, "shot": 1, "shots": 1, "fraction": share,
        "seconds_left": left, "preview": step,
    }  # fmt: skip


def picture(step: int, steps: int) -> bytes:
    """A preview that is another one at each step: a disc out of grey."""
    share = step / steps
    image = Image.new("RGB", (64, 64), (60, 70, 90))
    disc = Image.new("RGB", (24, 24), (int(90 + 150 * share), int(90 + 60 * share), 80))
    image.paste(disc, (int(8 + 30 * share), 20))
    out = io.BytesIO()
    image.save(out, "WEBP", lossless=True)
    return out.getvalue()
