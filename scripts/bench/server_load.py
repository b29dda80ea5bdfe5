"""How much a server answers while it renders: submissions, polls, files, memory with many clients, recovery.

    python scripts/bench/server_load.py --json load.json

Arrivals follow a clock, whether answers come or not, and a latency counts from the moment at which its
request was due; so a stall is seen by every request that falls into it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

SHOT = {"prompt": "a rooster on a blue background", "steps": 4, "frames": 5}
LONG = {"prompt": "a rooster", "steps": 1000, "frames": 17}
FILE_BYTES = 64_000_000
BEGIN, END = "<!-- load: scripts/bench/server_load.py -->", "<!-- /load -->"


class Client:
    """One connection that is kept open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, method: str, path: str, body: bytes = b"", kind: str = "application/json"
    ) -> tuple[int, bytes]:
        """Status and body of one request."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        reader, writer = self._streams
        head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{self._port}\r\n"
        head += f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n" if body else "\r\n"
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.split(b"content-length: ")[1].split(b"\r\n")[0])
        return int(answer[9:12]), await reader.readexactly(length)

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()


class Server:
    """`kinema serve` as a process."""

    def __init__(self, data: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._data = data
        self.process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "kinema",
            "serve",
            "--port",
            str(self.port),
            "--data",
            str(self._data),
        ]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    async def ready(self) -> float:
        """Seconds until it answers."""
        began = time.perf_counter()
        while True:
            try:
                await Client(self.port).ask("GET", "/healthz")
                return time.perf_counter() - began
            except OSError:
                await asyncio.sleep(0.02)

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self.process.wait()
        self.process = self._started()

    @property
    def megabytes(self) -> float:
        """Memory of the process that answers, without workers and inspectors."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1000

    @property
    def cpu_seconds(self) -> float:
        """Time that the process has had so far."""
        user, system = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Let it drain."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


async def at_rate(
    server: Server, rate: float, seconds: float, connections: int, ask: Callable[[Client], Awaitable[int]]
) -> dict[str, float]:
    """Requests at a fixed rate over some connections; latencies in milliseconds, from when each was due."""
    clients = [Client(server.port) for _ in range(connections)]
    cpu = server.cpu_seconds
    free: asyncio.Queue[Client] = asyncio.Queue()
    for client in clients:
        free.put_nowait(client)
    taken: list[float] = []
    wrong = 0

    async def one(due: float) -> None:
        nonlocal wrong
        client = await free.get()
        status = await ask(client)
        taken.append(1000 * (time.perf_counter() - due))
        wrong += status >= 300
        free.put_nowait(client)

    begin, tasks = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        due = begin + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    spent = time.perf_counter() - begin
    cpu = 1000 * (server.cpu_seconds - cpu) / len(taken)
    for client in clients:
        client.close()
    cuts = statistics.quantiles(taken, n=100)
    return {
        "per_second": len(taken) / spent,
        "p50_ms": cuts[49],
        "p99_ms": cuts[98],
        "cpu_ms": cpu,
        "wrong": wrong,
    }


async def submissions(server: Server, rate: float, seconds: float) -> dict[str, float]:
    """Jobs accepted durably."""
    number = 0

    async def ask(client: Client) -> int:
        nonlocal number
        number += 1
        body = json.dumps({"request": {**SHOT, "seed": number}}).encode()
        return (await client.ask("POST", "/api/jobs", body))[0]

    return await at_rate(server, rate, seconds, 16, ask)


async def polls(server: Server, rate: float, seconds: float, job: str, clients: int = 64) -> dict[str, float]:
    """Looks at one job."""

    async def ask(client: Client) -> int:
        return (await client.ask("GET", f"/v1/videos/{job}"))[0]

    return await at_rate(server, rate, seconds, clients, ask)


async def content(server: Server) -> dict[str, float]:
    """Bytes of a large file, over four connections."""
    zeros = FILE_BYTES - 44
    wav = b"RIFF" + (zeros + 36).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    wav += b"\1\0\1\0" + (44100).to_bytes(4, "little") + (88200).to_bytes(4, "little") + b"\2\0\x10\0data"
    wav += zeros.to_bytes(4, "little") + bytes(zeros)
    status, answer = await Client(server.port).ask("POST", "/api/media", wav, "application/octet-stream")
    assert status == 201, answer
    path = f"/api/media/{json.loads(answer)['ref'][6:]}"
    began = time.perf_counter()
    await asyncio.gather(*(Client(server.port).ask("GET", path) for _ in range(4)))
    return {"megabytes_per_second": 4 * FILE_BYTES / 1e6 / (time.perf_counter() - began)}


@asynccontextmanager
async def listening(server: Server, count: int) -> AsyncIterator[None]:
    """So many open event streams."""
    streams = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(count)]

    async def read(reader: asyncio.StreamReader) -> None:
        while await reader.read(1 << 16):
            pass

    tasks = [asyncio.create_task(read(reader)) for reader, _ in streams]
    for _, writer in streams:
        writer.write(f"GET /api/events HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\n\r\n".encode())
    yield
    for task, (_, writer) in zip(tasks, streams, strict=True):
        task.cancel()
        writer.close()


async def crowd(server: Server, seconds: float, job: str) -> dict[str, float]:
    """Memory and latency with 500 connections that poll each second and 50 event streams."""
    async with listening(server, 50):
        found = await polls(server, 500, seconds, job, clients=500)
        return {**found, "megabytes": server.megabytes}


async def recovery(server: Server, job: str) -> dict[str, float]:
    """After `kill -9` of the server: until it answers, and until the job is at work again."""
    began = time.perf_counter()
    server.kill()
    answers = await server.ready()
    client = Client(server.port)
    while json.loads((await client.ask("GET", f"/api/jobs/{job}"))[1])["progress"]["phase"] in ("", "load"):
        await asyncio.sleep(0.05)
    return {"answers_s": answers, "renders_s": time.perf_counter() - began}


async def measure(options: argparse.Namespace, data: Path) -> dict[str, Any]:
    """All of it, beside a render."""
    server = Server(data)
    try:
        found: dict[str, Any] = {"start": {"answers_s": await server.ready(), "megabytes": server.megabytes}}
        client = Client(server.port)
        status, answer = await client.ask("POST", "/api/jobs", json.dumps({"request": LONG}).encode())
        assert status == 201, answer
        job = json.loads(answer)["jobs"][0]["id"]
        while json.loads((await client.ask("GET", f"/api/jobs/{job}"))[1])["progress"]["phase"] != "denoise":
            await asyncio.sleep(0.1)
        seconds = options.seconds
        found["submissions"] = await submissions(server, options.submissions, seconds)
        found["polls"] = await polls(server, options.polls, seconds, job)
        found["crowd"] = await crowd(server, seconds, job)
        found["content"] = await content(server)
        found["recovery"] = await recovery(server, job)
        return found
    finally:
        server.stop()


def table(found: dict[str, Any]) -> str:
    """One line for each number."""
    return "\n".join(
        f"{what:<12} {name:<22} {value:10.2f}"
        for what, facts in found.items()
        for name, value in facts.items()
    )


def in_words(found: dict[str, Any]) -> str:
    """The numbers as the table of the documentation."""
    c, r = found["crowd"], found["recovery"]
    lines = [
        "| beside a render | answered | median | 99% within | the server's CPU, each |",
        "|---|---|---|---|---|",
    ]
    for what, name in (
        ("jobs accepted durably, 16 connections", "submissions"),
        ("looks at a job, 64 connections", "polls"),
        ("the same, 500 connections and 50 event streams", "crowd"),
    ):
        facts = found[name]
        taken = f"{facts['p50_ms']:.0f} ms | {facts['p99_ms']:.0f} ms | {facts['cpu_ms']:.2f} ms"
        lines.append(f"| {what} | {facts['per_second']:.0f}/s | {taken} |")
    lines.append("")
    speed, cores = found["content"]["megabytes_per_second"], found["machine"]["cores"]
    lines.append(
        f"The answering process has {found['start']['megabytes']:.0f} MB when it starts and "
        f"{c['megabytes']:.0f} MB with that crowd. Files leave it at {speed:.0f} MB/s. After `kill -9` it "
        f"answers in {r['answers_s']:.1f} s and the render goes on after {r['renders_s']:.1f} s. Clients, "
        f"server and render shared {cores:.0f} core(s)."
    )
    return "\n".join(lines)


def write_into(page: Path, words: str) -> None:
    """Replace what stands between the page's two marks."""
    before, rest = page.read_text().split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{words}\n{END}{rest.split(END)[1]}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--submissions", type=float, default=100, help="asked for each second")
    parser.add_argument("--polls", type=float, default=1000, help="asked for each second")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--docs", type=Path, help="a page whose table of numbers is replaced")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(options, Path(folder) / "data"))
    found["machine"] = {"cores": float(len(os.sched_getaffinity(0)))}
    print(table(found))
    if options.docs is not None:
        write_into(options.docs, in_words(found))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
