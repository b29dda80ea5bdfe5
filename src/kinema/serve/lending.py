"""What a server lends to workers: jobs whose models it still allows.

A queue outlasts the server that took its jobs in; started again with fewer `--model`, it has jobs that name
others. They fail when their turn comes, with a reason, and no worker sees them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kinema.core.errors import KinemaError
from kinema.serve.jobs import Job, JobError
from kinema.serve.media import named_models
from kinema.serve.queue import Queue
from kinema.serve.queue_leases import HERE
from kinema.story.storyboard import from_mapping


def lend(
    queue: Queue, worker: str, seconds: float, models: Collection[str], place: str = HERE
) -> tuple[Job, str] | None:
    """The next job and the token for it, as `Leases.lease`.

    Args:
        queue: of the server.
        worker: its name.
        seconds: how long it is lent.
        models: that may be named; none for all.
        place: where it keeps the states of jobs.
    """
    while (found := queue.lease(worker, seconds, place)) is not None:
        job, token = found
        wrong = refused_model(job.request, models)
        if wrong is None:
            return found
        if job.state == "cancelling":
            queue.release(job.id, token)
        else:
            queue.fail(job.id, token, wrong)
    return None


def refused_model(request: Mapping[str, Any], models: Collection[str]) -> JobError | None:
    """Why a server with these models does not render a request; None where they have nothing against it."""
    if not models:
        return None
    try:
        named = list(named_models(from_mapping(request)))
    except KinemaError:  # of another version of kinema: whoever renders it will tell
        return None
    for where, model in named:
        if model not in models:
            message = (
                f"{where}={model[:80]!r} is no model of this server any more; it has {', '.join(models)}. "
                "Ask for the same with one of those."
            )
            return JobError(code="unknown_model", message=message, param=where)
    return None
