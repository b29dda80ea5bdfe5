"""Counts for Prometheus, written as its text format 0.0.4 by hand."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from kinema.serve.jobs import Job, State

Labels = tuple[tuple[str, str], ...]
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ENDED_KEPT = 1000  # a job that ended may change again, by a title
_LATENCIES = (0.005, 0.025, 0.1, 0.25, 1.0, 5.0)


@dataclass(eq=False)
class Metrics:
    """What this process has seen since it began.

    Attributes:
        requests: answers by (method, route, status).
        seconds: of all answers, by the number of them that took up to each bound of `_LATENCIES`.
        job_seconds: spent in each phase of jobs, as their progress told it.
        jobs_ended: jobs that ended, by state.
    """

    requests: dict[tuple[str, str, int], int] = field(default_factory=lambda: defaultdict(int))
    seconds: list[int] = field(default_factory=lambda: [0] * (len(_LATENCIES) + 1))
    seconds_sum: float = 0.0
    job_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    jobs_ended: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _seen: dict[str, tuple[str, float]] = field(default_factory=dict, repr=False)
    _ended: dict[str, float | None] = field(default_factory=dict, repr=False)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self.requests[method, route, status] += 1
        place = next((i for i, bound in enumerate(_LATENCIES) if seconds <= bound), len(_LATENCIES))
        self.seconds[place] += 1
        self.seconds_sum += seconds

    def progressed(self, job: Job) -> None:
        """Add the time since this job last told its phase to that phase."""
        now, phase = time.monotonic(), job.progress.phase
        before = self._seen.pop(job.id, None)
        if before is not None:
            self.job_seconds[before[0]] += now - before[1]
        if job.state in ("running", "cancelling") and phase:
            self._seen[job.id] = (phase, now)

    def ended(self, job: Job) -> None:
        """Count a job that has ended, once."""
        self.progressed(job)
        if self._ended.get(job.id) != job.finished:
            self._ended[job.id] = job.finished
            self.jobs_ended[job.state] += 1
        while len(self._ended) > ENDED_KEPT:
            self._ended.pop(next(iter(self._ended)))

    def text(self, queue: Mapping[State, int], listeners: int, restarts: int) -> str:
        """The page.

        Args:
            queue: jobs by state.
            listeners: open event streams.
            restarts: of local workers that died.
        """
        return "".join(f"{line}\n" for line in self._lines(queue, listeners, restarts))

    def _lines(self, queue: Mapping[State, int], listeners: int, restarts: int) -> Iterator[str]:
        states = ((label("state", state), count) for state, count in queue.items())
        yield from series("kinema_jobs", "gauge", "Jobs by state.", states)
        spent = ((label("phase", phase), seconds) for phase, seconds in sorted(self.job_seconds.items()))
        yield from series(
            "kinema_job_seconds_total", "counter", "Seconds spent in each phase of jobs.", spent
        )
        ended = ((label("state", state), count) for state, count in sorted(self.jobs_ended.items()))
        yield from series("kinema_jobs_ended_total", "counter", "Jobs that ended, by how.", ended)
        answers = (
            ((("method", method), ("route", route), ("code", str(status))), count)
            for (method, route, status), count in sorted(self.requests.items())
        )
        yield from series("kinema_http_requests_total", "counter", "HTTP answers.", answers)
        yield from self._histogram()
        alone = "kinema_worker_restarts_total", "counter", "Local workers that died and were started again."
        yield from series(*alone, [((), restarts)])
        yield from series("kinema_event_listeners", "gauge", "Open event streams.", [((), listeners)])

    def _histogram(self) -> Iterator[str]:
        name, total = "kinema_http_request_seconds", 0
        yield f"# HELP {name} Time to answer, event streams left out."
        yield f"# TYPE {name} histogram"
        for bound, count in zip((*map(str, _LATENCIES), "+Inf"), self.seconds, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self.seconds_sum:.6f}"
        yield f"{name}_count {total}"


def label(name: str, value: str) -> Labels:
    """One label."""
    return ((name, value),)


def series(name: str, kind: str, help_text: str, values: Iterable[tuple[Labels, float]]) -> Iterator[str]:
    """One metric with its values."""
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in values:
        written = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
        yield f"{name}{{{written}}} {value:g}" if labels else f"{name} {value:g}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
