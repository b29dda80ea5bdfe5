"""A server for tests: in this process (`client`), or a process of its own (`Live`)."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from starlette.testclient import TestClient

from kinema.serve.app import create_app
from kinema.serve.settings import Limits, ServeSettings

HOST = "127.0.0.1:8420"
TOKEN = "a-token-for-tests-only"
SHOT = {"prompt": "a rooster", "steps": 1, "frames": 1}


@contextmanager
def client(data: Path, limits: Limits | None = None, **settings) -> Iterator[TestClient]:
    """A client of a server in this process, without a worker."""
    given = ServeSettings(
        **{"data": data, "workers": 0, "limits": limits or Limits(), "warm": False, **settings}
    )
    app = create_app(given)
    with TestClient(app, base_url=f"http://{HOST}", client=("127.0.0.1", 5000)) as found:
        yield found


def limits(**changes) -> Limits:
    """The usual limits with changes."""
    return replace(Limits(), **changes)


def error_of(answer) -> dict:
    """The error of an answer, whose form is checked."""
    body = answer.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "code", "param"]
    assert "Traceback" not in body["error"]["message"]
    assert answer.headers["x-request-id"].startswith("req_")
    return body["error"]


class Live:
    """`kinema serve` as a process."""

    def __init__(self, data: Path, *options: str) -> None:
        self.url = ""
        self.log = data.with_suffix(".log")
        command = [sys.executable, "-m", "kinema", "serve", "--port", "0", "--data", str(data)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *options], stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )

    def wait(self, seconds: float = 60.0) -> Live:
        """Until it answers."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                said = re.findall(r"^Kinema Studio: (http://\S+)", self.log.read_text(), re.MULTILINE)
                self.url = said[-1].rstrip("/") if said else "http://127.0.0.1:9"  # nobody listens there
                self.get("/healthz")
                return self
            except (urllib.error.URLError, ConnectionError):
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.05)
        raise AssertionError(f"no answer in {seconds} s: {self.log.read_text()}")

    def get(self, path: str) -> dict:
        """JSON from a path."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.loads(answer.read())

    def post(self, path: str, body: dict) -> dict:
        """JSON to a path."""
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def stop(self, number: int = signal.SIGTERM, seconds: float = 60.0) -> int:
        """Send a signal and wait; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def __enter__(self) -> Live:
        return self.wait()

    def __exit__(self, *error) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
