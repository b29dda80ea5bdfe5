"""Long histories and long queues: what lies behind the first page of a list, and one clip looked at."""

from __future__ import annotations

import time

import pytest

api = pytest.importorskip("playwright.sync_api")
expect = api.expect


@pytest.fixture
def failed(server):
    """Puts that many clips that came to nothing into the history."""

    def made(count: int) -> None:
        error = {"code": "bad", "message": "no", "param": None}
        for _ in range(count):
            [job] = server.store.submit({"prompt": "came to nothing"}, run=False)
            server.store.touch(job, state="failed", finished=time.time(), error=error)

    return made


def waiting(server, count: int) -> list[str]:
    server.store.paused = True
    return [server.store.submit({"prompt": f"waits {n}"})[0]["id"] for n in range(count)]


def test_clips_older_than_much_that_is_none_are_shown(server, pages, finished, failed):
    finished("a fox", "a wolf")
    failed(130)
    waiting(server, 70)
    page = pages(server.url)
    expect(page.locator("#gallery .tile")).to_have_count(2)
    expect(page.locator("#gallery-count")).to_have_text("2 clips")
    expect(page.locator("#queue-count")).to_have_text("70")


def test_a_filter_looks_through_the_whole_history_one_page_at_a_time(server, pages, finished):
    finished("an old fox", *["a bird"] * 200)
    page = pages(server.url)
    expect(page.locator("#gallery .tile")).to_have_count(60)
    held = []
    page.route("**/api/jobs?*after=*", lambda route: held.append(route))
    page.fill("#filter", "fox")
    for asked in range(1, 4):
        while len(held) < asked:
            page.wait_for_timeout(20)
        expect(page.locator("#gallery-empty")).to_have_text("Looking further…")
        page.wait_for_timeout(100)
        assert len(held) == asked, "another page was asked for before this one came"
        held[-1].continue_()
    expect(page.locator("#gallery .tile")).to_have_count(1)
    page.fill("#filter", "zebra")
    expect(page.locator("#gallery-empty")).to_have_text("No clip matches.")
    assert len(held) == 3


def test_the_history_goes_on_after_the_last_clip_of_a_page_was_deleted(server, pages, finished):
    jobs = finished(*["a bird"] * 100)
    page = pages(server.url, allowed=("404",))  # its picture may be on its way when it goes
    tiles = page.locator("#gallery .tile")
    expect(tiles).to_have_count(60)
    server.store.remove(jobs[40]["id"])  # the 60th, from the newest on
    expect(tiles).to_have_count(59)
    page.locator("#gallery-end").scroll_into_view_if_needed()
    expect(tiles).to_have_count(99)


def test_every_clip_that_waits_is_in_the_queue_in_its_order(server, pages):
    ids = waiting(server, 450)
    page = pages(server.url)
    expect(page.locator("#queue-count")).to_have_text("450")
    cards = page.locator("#queue .card")
    assert cards.evaluate_all("(all) => all.map((card) => card.dataset.id)") == ids
    cards.nth(199).get_by_role("button", name="Later").click()
    expect(cards.nth(200)).to_have_attribute("data-id", ids[199])
    assert server.store.asked == [("PATCH", "", {"before": ids[201]})]


def test_a_queue_is_read_on_when_the_last_clip_of_a_page_goes_meanwhile(server, pages):
    ids = waiting(server, 300)

    def without(route):
        server.store.jobs.pop(ids[199], None)
        route.continue_()

    page = pages("about:blank", ready=False, allowed=("404",))
    page.route(f"**/api/jobs?*after={ids[199]}*", without)
    page.goto(server.url)
    expect(page.locator("#queue-count")).to_have_text("299")


def test_the_viewer_leaves_the_browsers_own_keys_alone(page, server, finished):
    finished("a fox", "a wolf")
    page.locator("#gallery .tile-face").first.click()
    for keys in ("Control+f", "Meta+f", "Alt+ArrowRight", "f"):
        page.keyboard.press(keys)
    expect(page.locator("#viewer button:has-text('Favourite')")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#viewer h2")).to_have_text("a wolf")
    assert [method for method, _, _ in server.store.asked if method == "PATCH"] == ["PATCH"]


def test_the_viewers_button_shows_what_it_does_while_the_clip_stands(page, finished):
    finished("a fox")
    page.click("#gallery .tile-face")
    drawn = "async (name) => (await import('/dom.js')).icon(name).firstChild.getAttribute('d')"
    shape = page.locator("#viewer .scrub button path")
    expect(shape).to_have_attribute("d", page.evaluate(drawn, "play"))
    page.click("#viewer .scrub button")
    expect(shape).to_have_attribute("d", page.evaluate(drawn, "pause"))
