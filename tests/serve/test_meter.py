"""Progress: a fraction that only grows and ends near 1, and seconds that are what the steps take."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kinema.core.contracts import Progress
from kinema.serve.meter import UNTIL_DONE, Meter


def plan(steps: int = 4, frames: int = 3, model: str = "m", strokes: int = 0):
    """As much of a plan as is asked for."""
    return SimpleNamespace(
        model=model,
        sampling=SimpleNamespace(steps=steps),
        geometry=SimpleNamespace(latent_frames=frames),
        redraw=SimpleNamespace(strokes=range(strokes)) if strokes else None,
    )


def run(plans, *, step: float, frame: float, shares=None, start: int = 0):
    """All progress of a render whose steps and frames take so many seconds, with the time it was told at."""
    now, shares = [0.0], {} if shares is None else shares
    meter, told = Meter(plans, shares, lambda: now[0]), []

    def tell(*event, **more):
        told.append((now[0], meter(Progress(*event, **more))))

    for number, p in enumerate(plans, start=1):
        tell("load", 0, 1, shot=number)
        for index in range(start, p.sampling.steps):
            now[0] += step
            tell("denoise", index + 1, p.sampling.steps, shot=number)
        for index in range(p.geometry.latent_frames):
            now[0] += frame
            tell("decode", index + 1, p.geometry.latent_frames, shot=number)
    return told, now[0]


def test_the_fraction_grows_to_the_end_in_every_shot():
    told, _ = run([plan(), plan(steps=2, frames=9)], step=1.0, frame=0.2)
    fractions = [progress.fraction for _, progress in told]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0.0
    assert fractions[-1] == pytest.approx(UNTIL_DONE)
    assert {progress.shots for _, progress in told} == {2}


def test_the_seconds_left_are_right_once_the_model_is_known():
    shares = {}
    run([plan()], step=2.0, frame=1.0, shares=shares)
    assert shares == {"m": pytest.approx(0.5)}
    told, end = run([plan(steps=6, frames=4)], step=3.0, frame=1.5, shares=shares)
    known = [(now, p.seconds_left) for now, p in told if p.seconds_left is not None]
    assert len(known) >= 8
    assert all(now + left == pytest.approx(end) for now, left in known)


def test_a_resumed_render_counts_what_was_done_and_times_only_its_own_steps():
    told, _ = run([plan(steps=10, frames=1)], step=1.0, frame=0.3, start=8)
    first = next(p for _, p in told if p.phase == "denoise")
    assert first.fraction > 0.8
    assert all(left.seconds_left is None or left.seconds_left < 2.0 for _, left in told)


def test_drawn_frames_are_the_steps_where_there_are_no_others():
    now = [0.0]
    meter = Meter([plan(strokes=5)], {}, lambda: now[0])
    for index in range(5):
        now[0] += 2.0
        progress = meter(Progress("draw", index + 1, 5))
    assert progress.fraction == pytest.approx(UNTIL_DONE)
    assert progress.seconds_left == 0.0


def test_notes_are_no_steps():
    meter = Meter([plan()], {}, lambda: 0.0)
    meter(Progress("denoise", 1, 4))
    before = meter.now.fraction
    assert meter(Progress("denoise", 1, 1, note="computed again in float32")).fraction == before
