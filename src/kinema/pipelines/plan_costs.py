"""What a shot would do, take and need, as a program reads it: one answer for `kinema plan` and the server."""

from __future__ import annotations

from typing import Any

from kinema.pipelines.card import ModelCard
from kinema.pipelines.estimate import estimate
from kinema.pipelines.plan import Plan
from kinema.pipelines.plan_facts import facts
from kinema.pipelines.residency.fit import offers


def shot_facts(plan: Plan, card: ModelCard, rate: float) -> dict[str, Any]:
    """The facts of a plan, with its costs and what each arrangement of memory needs.

    Args:
        plan: of one shot.
        card: of its model.
        rate: operations a second of this machine (`measure_rate`).
    """
    return {**facts(plan, estimate(plan, card), rate), "memory": offers(plan, card=card).facts()}
