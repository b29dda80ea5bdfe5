"""A hub on this machine: the few endpoints that a download asks, and the ways in which it can go wrong."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE = 10_000  # files from this size on are stored by their sha256, as git-lfs does


@dataclass
class Hub:
    """Repositories by name, what was asked of them, and what goes wrong.

    Attributes:
        repos: a folder for each `owner/name`.
        commits: the commit of each branch.
        cut: bytes after which a file's connection ends, by its name; once for each entry.
        corrupt: files of which a byte is flipped on the way.
        gated: repositories behind a form.
        served: (file, first byte, bytes sent) of every transfer.
    """

    repos: dict[str, Path]
    commits: dict[str, str] = field(default_factory=lambda: {"main": "a" * 40, "v1": "b" * 40})
    cut: dict[str, list[int]] = field(default_factory=dict)
    corrupt: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    served: list[tuple[str, int, int]] = field(default_factory=list)

    def sent(self, name: str) -> list[tuple[int, int]]:
        """First byte and length of each transfer of a file."""
        return [(first, count) for file, first, count in self.served if file == name]


class Handler(BaseHTTPRequestHandler):
    """Answers as huggingface.co does, as far as downloads ask."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, *, body: bool):
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repo, rest = "/".join(parts[2:4]), parts[4:]
            if self._known(repo, rest[1] if rest[:1] == ["revision"] else "main"):
                self._json(self._listing(repo, rest[1] if rest else "main"))
        elif len(parts) > 4 and parts[2] == "resolve":
            repo = "/".join(parts[:2])
            if self._known(repo, parts[3]):
                self._file(repo, parts[3], "/".join(parts[4:]), body)
        else:
            self._refuse(404, "EntryNotFound")

    def _known(self, repo: str, revision: str) -> bool:
        if repo not in self.hub.repos:
            self._refuse(401, "RepoNotFound")
        elif repo in self.hub.gated:
            self._refuse(403, "GatedRepo")
        elif revision not in (*self.hub.commits, *self.hub.commits.values()):
            self._refuse(404, "RevisionNotFound")
        else:
            return True
        return False

    def _listing(self, repo: str, revision: str) -> dict:
        files = []
        for path in sorted(p for p in self.hub.repos[repo].rglob("*") if p.is_file()):
            data = path.read_bytes()
            entry = {"rfilename": path.relative_to(self.hub.repos[repo]).as_posix(), "size": len(data)}
            if len(data) >= LARGE:
                digest = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 130}
            files.append(entry)
        commit = self.hub.commits.get(revision, revision)
        return {"id": repo, "modelId": repo, "sha": commit, "siblings": files, "tags": [], "private": False}

    def _file(self, repo: str, revision: str, name: str, body: bool):
        path = self.hub.repos[repo] / name
        if not path.is_file():
            self._refuse(404, "EntryNotFound")
            return
        data = path.read_bytes()
        etag = hashlib.sha256(data).hexdigest() if len(data) >= LARGE else hashlib.sha1(data).hexdigest()
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if first else 200)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", self.hub.commits.get(revision, revision))
        self.send_header("Accept-Ranges", "bytes")
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        if body:
            self._send(name, data, first)

    def _send(self, name: str, data: bytes, first: int):
        if name in self.hub.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        cuts = self.hub.cut.get(name)
        end = first + cuts.pop(0) if cuts else len(data)
        self.wfile.write(data[first:end])
        self.hub.served.append((name, first, min(end, len(data)) - first))
        if end < len(data):
            self.close_connection = True

    def _json(self, value: dict):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _refuse(self, status: int, code: str):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def serve(hub: Hub) -> ThreadingHTTPServer:
    """A server of a hub on a free port; start it in a thread, and shut it down."""
    handler = type("OneHub", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    return server
