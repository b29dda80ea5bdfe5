"""The page for everyone: keyboard alone, names for every control, contrast, phones, less motion."""

from __future__ import annotations

from pathlib import Path

import pytest

api = pytest.importorskip("playwright.sync_api")
expect = api.expect

HERE = Path(__file__).parent
NAMELESS = (HERE / "nameless.js").read_text("utf-8")

CONTRAST = (HERE / "contrast.js").read_text("utf-8")

FULL = {
    "prompt": {"0..4": "a fox", "9..-1": "a wolf"},
    "guidance": "0:(3), -1:(5)",
    "camera": {"dialect": "native", "zoom": "1 + t / 16"},
}


def filled(page, server, finished):
    server.store.paused = True
    server.store.submit({"prompt": "waits"})
    finished("a fox", "a wolf")
    page.evaluate("async (request) => (await import('/draft.js')).adopt(request)", FULL)
    expect(page.locator("#gallery .tile")).to_have_count(2)
    page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")


def test_every_control_has_a_name(page, server, finished):
    filled(page, server, finished)
    assert page.evaluate(NAMELESS) == []
    page.locator("#gallery .tile-face").first.click()
    assert page.evaluate(NAMELESS) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(pages, server, finished, theme):
    page = pages(server.url, color_scheme=theme)
    filled(page, server, finished)
    assert page.evaluate(CONTRAST) == []


def test_the_theme_follows_the_system_until_one_is_chosen(pages, server):
    page = pages(server.url, color_scheme="dark")
    colour = "() => getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(colour)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(colour)
    assert light != dark
    page.get_by_role("button", name="Theme").click()
    page.get_by_role("button", name="Theme").click()
    assert page.evaluate(colour) == dark
    page.reload()
    assert page.evaluate(colour) == dark


def test_a_clip_is_made_watched_and_reused_with_keys_alone(page, server):
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("a fox")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#gallery .tile")).to_have_count(1)
    page.keyboard.press("Escape")
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.matches('.tile-face')"):
            break
    assert page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.locator("#viewer")).to_be_visible()
    page.get_by_role("button", name="Reuse seed").press("Enter")
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page.locator("#prompt")).to_be_focused()
    assert page.locator("#basic [data-param='seed']").input_value() == str(
        next(iter(server.store.jobs.values()))["request"]["seed"]
    )


def test_a_phone_shows_everything_without_sideways_scrolling(pages, server, finished):
    page = pages(server.url, viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    wide = "() => document.documentElement.scrollWidth - innerWidth"
    filled(page, server, finished)
    for view in ("make", "now", "clips"):
        page.click(f"#tabs [data-view={view}]")
        assert page.evaluate(wide) <= 0, view
    page.locator("#gallery .tile-face").first.click()
    assert (
        page.evaluate(
            "() => { const d = document.querySelector('#viewer'); return d.scrollWidth - d.clientWidth; }"
        )
        <= 0
    )
    page.keyboard.press("Escape")
    page.click("#tabs [data-view=make]")
    page.fill("#prompt", "from the phone")
    page.click("#make")
    expect(page.locator("#queue")).to_be_visible()
    expect(page.locator("#queue")).to_contain_text("from the phone")


def test_on_a_phone_what_belongs_together_stands_in_one_row(server, pages, finished):
    finished("a fox with a name that is much too long for the head of a dialog")
    page = pages(server.url, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    page.click("#tabs [data-view=clips]")
    middles = """(all) => all.map((one) => {
        const {top, height} = one.getBoundingClientRect();
        return Math.round(top + height / 2);
    })"""
    row = page.locator("#history .buttons > *").evaluate_all(middles)
    assert len(row) == 2
    assert max(row) - min(row) <= 1
    page.locator("#gallery .tile-face").click()
    row = page.locator("#viewer > header button").evaluate_all(middles)
    assert len(row) == 3
    assert max(row) - min(row) <= 1


@pytest.mark.parametrize("width", [390, 1280])
def test_boxes_to_write_and_to_choose_in_are_of_one_height(server, pages, width):
    page = pages(server.url, viewport={"width": width, "height": 900})
    heights = page.locator("#basic [data-param]:is(input, select):visible").evaluate_all(
        "(all) => all.map((one) => one.getBoundingClientRect().height)"
    )
    assert len(heights) > 6
    assert max(heights) - min(heights) < 0.5
