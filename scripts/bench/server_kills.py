"""Kill a server, its worker, or both, again and again, while jobs come in: is one lost, or made twice?

    python scripts/bench/server_kills.py --kills 20

An id counts as accepted once the answer has arrived. At the end every accepted job has to be there and done,
with the bytes of a render that nothing has cut off, published once, and nothing else may lie in the folder.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import kinema

SEEDS = 3
SHOT = {"prompt": "a rooster on a blue background", "steps": 3, "frames": 5}
MADE = re.compile(r"(video_[0-9a-z]{26}): made")


@dataclass
class Studio:
    """A server's process on one folder, started again and again."""

    data: Path
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None
    recoveries: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Until it answers."""
        began = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "kinema",
            "serve",
            "--port",
            str(self.port),
            "--data",
            str(self.data),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        while True:
            try:
                self.ask("/healthz")
                break
            except OSError:
                assert self.process.poll() is None, self.log.read_text()[-2000:]
                time.sleep(0.02)
        self.recoveries.append(time.monotonic() - began)

    def ask(self, path: str, body: dict | None = None) -> dict:
        """JSON from a path, or to it."""
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read() or b"{}")

    def workers(self) -> list[int]:
        """Children of the server that render."""
        assert self.process is not None
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                    command = (folder / "cmdline").read_bytes()
                except OSError:
                    continue
                if int(parent) == self.process.pid and b"kinema.serve.worker_main" in command:
                    found.append(int(folder.name))
        return found

    def kill(self, what: str) -> None:
        """SIGKILL to `server`, `worker` or `both`; the server is started again if it was hit."""
        assert self.process is not None
        for pid in self.workers() if what != "server" else []:
            os.kill(pid, signal.SIGKILL)
        if what != "worker":
            self.process.kill()
            self.process.wait()
            self.start()


def submit(studio: Studio, accepted: dict[str, int], rng: random.Random) -> None:
    """One job; its id is written down when the answer is here."""
    seed = rng.randrange(SEEDS)
    try:
        (job,) = studio.ask("/api/jobs", {"request": {**SHOT, "seed": seed}})["jobs"]
        accepted[job["id"]] = seed
    except (OSError, urllib.error.URLError):
        return


def golden(folder: Path) -> dict[int, bytes]:
    """The bytes of each seed's clip, made in one go."""
    found = {}
    for seed in range(SEEDS):
        out = folder / f"{seed}.mp4"
        kinema.render(kinema.Shot(**SHOT, seed=seed), out=out)
        found[seed] = out.read_bytes()
    return found


def drained(studio: Studio, accepted: dict[str, int], seconds: float) -> dict[str, dict]:
    """All accepted jobs, once each has ended or the time is over."""
    until = time.monotonic() + seconds
    while True:
        jobs = {}
        for id in accepted:
            try:
                jobs[id] = studio.ask(f"/api/jobs/{id}")
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    raise
        ended = all(job["state"] in ("done", "failed", "cancelled") for job in jobs.values())
        if ended or time.monotonic() > until:
            return jobs
        time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=6.0, help="seconds between two kills")
    parser.add_argument("--drain", type=float, default=600.0, help="seconds for what is left at the end")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        root = Path(folder)
        whole = golden(root)
        studio = Studio(root / "data", port, root / "log")
        try:
            studio.start()
            print(json.dumps(loop(studio, whole, rng, options), indent=2))
        finally:
            if studio.process is not None and studio.process.poll() is None:
                studio.process.terminate()
                studio.process.wait()


def loop(
    studio: Studio, whole: dict[int, bytes], rng: random.Random, options: argparse.Namespace
) -> dict[str, object]:
    """Submit and kill, then wait and count."""
    accepted: dict[str, int] = {}
    kills: collections.Counter[str] = collections.Counter()
    for _ in range(options.kills):
        until = time.monotonic() + rng.uniform(0, options.longest)
        while time.monotonic() < until:
            submit(studio, accepted, rng)
            time.sleep(rng.uniform(0, 2.0))
        what = rng.choice(["server", "worker", "both"])
        studio.kill(what)
        kills[what] += 1
    jobs = drained(studio, accepted, options.drain)
    return {"kills": dict(kills), **counts(studio, accepted, jobs, whole)}


def counts(
    studio: Studio, accepted: dict[str, int], jobs: dict[str, dict], whole: dict[int, bytes]
) -> dict[str, object]:
    """What a reader wants to see zeros in."""
    results = studio.data / "results"
    files = {id: results / f"{id}.mp4" for id, job in jobs.items() if job["state"] == "done"}
    made = collections.Counter(MADE.findall(studio.log.read_text(errors="replace")))
    with sqlite3.connect(studio.data / "queue.sqlite3") as db:
        integrity = db.execute("PRAGMA integrity_check").fetchone()[0]
        ids = [row[0] for row in db.execute("SELECT id FROM jobs")]  # some whose answer a kill has cut off
    known = {f"{id}{end}" for id in ids for end in (".mp4", ".thumbnail.webp", ".spritesheet.jpg")}
    return {
        "accepted": len(accepted),
        "done": len(files),
        "lost": len(accepted.keys() - jobs.keys()),
        "not done": {id: job["error"] or job["state"] for id, job in jobs.items() if id not in files},
        "double results": sum(count > 1 for count in made.values()),
        "other bytes": sum(path.read_bytes() != whole[accepted[id]] for id, path in files.items()),
        "missing files": sum(not path.exists() for path in files.values()),
        "stray results": sorted({path.name for path in results.iterdir()} - known),
        "attempts": dict(collections.Counter(job["attempt"] for job in jobs.values())),
        "integrity": integrity,
        "seconds to answer after a kill": {
            "median": sorted(studio.recoveries)[len(studio.recoveries) // 2],
            "worst": max(studio.recoveries),
        },
    }


if __name__ == "__main__":
    main()
