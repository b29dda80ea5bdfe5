"""Storyboards in the page: the seeds of their shots, one more of them, and what goes on from them."""

from __future__ import annotations

import pytest

from kinema.serve.asked import Asked
from kinema.story.storyboard import from_mapping

api = pytest.importorskip("playwright.sync_api")
expect = api.expect

SHOTS = [{"prompt": "a fox", "seed": 5}, {"prompt": "a wolf", "seed": 90, "transition": "cut", "shift": 2.0}]
BOARD = {"steps": 4, "end": "fade 2", "canvas": [96, 64], "shots": SHOTS}


@pytest.fixture
def board(server):
    """A clip of two shots in the history."""
    [job] = server.store.submit(BOARD, run=False)
    return server.store.finish(job)


@pytest.fixture
def submitted(page):
    """What the page would submit."""
    return lambda: page.evaluate(
        """async () => {
            const [{write}, {toSubmit}] = await Promise.all([import('/api.js'), import('/draft.js')]);
            return JSON.parse(write(toSubmit()));
        }"""
    )


def seeds(request):
    return [shot.get("seed") for shot in request["shots"]]


def test_one_more_draws_a_seed_for_every_shot(page, server, board):
    page.click("#gallery .tile-face")
    page.click("#viewer button:has-text('One more')")
    expect(page.locator(".toast")).to_contain_text("One more")
    request = list(server.store.jobs.values())[-1]["request"]
    assert [shot["prompt"] for shot in request["shots"]] == ["a fox", "a wolf"]
    assert not set(seeds(request)) & {5, 90, None}


def test_a_seed_is_kept_as_taken_over_and_counts_on_when_it_is_another(page, board, submitted):
    page.click("#gallery .tile-face")
    page.click("#viewer button:has-text('Reuse all')")
    expect(page.locator("#basic [data-param='seed']")).to_have_value("5")
    assert seeds(submitted()) == [5, 90]
    page.fill("#basic [data-param='seed']", "41")
    assert seeds(submitted()) == [41, 42]
    page.fill("#basic [data-param='seed']", "")
    assert seeds(submitted()) == [None, None]
    assert "seed" not in submitted()


def test_the_seed_that_was_drawn_can_be_kept_after_the_clip_is_made(page, submitted):
    told = Asked(from_mapping({"shots": ["a fox", "a wolf"]}), ()).seeded().values()
    page.evaluate("async (request) => (await import('/draft.js')).adopt(request)", BOARD)
    page.fill("#basic [data-param='seed']", str(seeds(told)[0]))
    assert seeds(submitted()) == seeds(told)


def test_what_goes_on_from_a_storyboard_goes_on_from_its_last_shot(page, server, board, submitted):
    page.click("#gallery .tile-face")
    page.click("#viewer button:has-text('Extend from the end')")
    expect(page.locator("#prompt")).to_have_value("a wolf")
    request = submitted()
    assert request.pop("extend")["path"].removeprefix("media:") in server.store.media
    assert request == {"prompt": "a wolf", "steps": 4, "shift": 2.0, "width": 64, "height": 64}


@pytest.mark.parametrize(("rate", "kept"), [("24", {"fps": 8}), ("8", {"fps": 8}), ("4", {})])
def test_what_goes_on_is_made_at_the_rate_of_the_clip_or_the_files_lower_one(
    page, server, submitted, finished, rate, kept
):
    [job] = finished("a fox", fps=8, interpolate={"fps": rate})
    job["result"]["fps"] = rate
    page.reload()
    page.click("#gallery .tile-face")
    page.click("#viewer button:has-text('Extend from the end')")
    expect(page.locator("#prompt")).to_have_value("a fox")
    request = submitted()
    assert {name: request[name] for name in ("fps",) if name in request} == kept
    assert request["interpolate"] == {"fps": rate}
