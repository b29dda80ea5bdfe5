"""What one job may cost, and what planning needs before the first request."""

from __future__ import annotations

import asyncio

import pytest
from live import client, limits

from kinema.cli.serve import _limits
from kinema.serve import inspector_process
from kinema.serve.cost import check_cost, in_words
from kinema.serve.errors import ApiError
from kinema.serve.inspector import Inspector
from kinema.serve.settings import Limits

PLAN = {"width": 1280, "height": 720, "frames": 17, "work": 3e8, "seconds": 18_000.0}


@pytest.mark.parametrize("plan", [{**PLAN, "seconds": 14_400.0}, {**PLAN, "seconds": None}])
def test_a_plan_within_the_limits_passes(plan):
    check_cost(plan, Limits())


def test_hours_of_rendering_are_refused_with_value_rule_and_way_out():
    with pytest.raises(ApiError) as caught:
        check_cost(PLAN, Limits())
    error = caught.value
    assert (error.status, error.code, error.param) == (422, "too_expensive", "frames")
    assert error.message == (
        "1280x720, 17 frames take about 5 h here, above the 4 h of this server; "
        "ask for fewer pixels, frames or steps."
    )
    check_cost(PLAN, limits(seconds=0))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5 s"), (89, "89 s"), (90, "1.5 min"), (5399, "90 min"), (5400, "1.5 h"), (14_400, "4 h")],
)
def test_times_in_words(seconds, text):
    assert in_words(seconds) == text


@pytest.mark.parametrize(
    ("workers", "asked", "seconds"),
    [(1, None, Limits().seconds), (1, 0.0, 0.0), (0, None, 0.0), (0, 60.0, 60.0)],
)
def test_a_machine_that_does_not_render_sets_no_time_by_itself(workers, asked, seconds):
    options = {"most_work": None, "most_queued": 5, "most_seconds": asked, "workers": workers}
    assert _limits(options) == limits(seconds=seconds, queued=5)


def test_the_planner_is_prepared_for_every_model_that_can_be_planned():
    inspector_process._rate.cache_clear()
    assert inspector_process.warm(["nowhere", "embedded"]) == {}
    assert inspector_process._rate.cache_info().currsize == 1


def test_nobody_waits_for_the_planner_to_be_prepared(tmp_path, monkeypatch):
    asked = []

    async def ask(self, what, seconds, **arguments):
        asked.append((what, arguments))
        await asyncio.Event().wait()

    monkeypatch.setattr(Inspector, "ask", ask)
    with client(tmp_path, warm=True) as server:
        assert server.get("/readyz").status_code == 200
        assert asked == [("warm", {"models": ["embedded"]})]
