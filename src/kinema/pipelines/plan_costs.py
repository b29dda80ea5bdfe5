"""What a shot would do, take and need, as a program reads it: one answer for `kinema plan` and the server."""

from __future__ import annotations

from typing import Any

from kinema.pipelines.card import ModelCard
from kinema.pipelines.estimate import EFFICIENCY, estimate
from kinema.pipelines.job import Job
from kinema.pipelines.plan import Plan
from kinema.pipelines.plan_facts import facts
from kinema.pipelines.residency.fit import shown


def shot_facts(plan: Plan, card: ModelCard, rate: float, memory: str = "auto") -> dict[str, Any]:
    """The facts of a plan, with its costs and what each arrangement of memory needs.

    Args:
        plan: of one shot.
        card: of its model.
        rate: operations a second of this machine (`measure_rate`).
        memory: the arrangement that was asked for.
    """
    return {**facts(plan, estimate(plan, card), rate), "memory": shown(plan, card, memory).facts()}


def file_facts(job: Job, rate: float) -> dict[str, Any]:
    """Size, length and rate of the file of a job, and the seconds that a network takes to make it larger.

    Args:
        job: of any number of shots.
        rate: operations a second of this machine.
    """
    return {
        "width": job.width,
        "height": job.height,
        "frames": job.length,
        "fps": job.fps,
        "seconds": upscale_seconds(job, rate),
    }


def upscale_seconds(job: Job, rate: float) -> float | None:
    """None where no network makes the frames larger."""
    if job.upscale is None or job.upscale.network is None:
        return None
    return job.upscale.operations * job.length / (EFFICIENCY * rate)
