"""What is written into the form stays there: clips that are edited and go, JSON, prompts over frames."""

from __future__ import annotations

import pytest

api = pytest.importorskip("playwright.sync_api")
expect = api.expect


@pytest.fixture
def edited(server, pages):
    """A page with a waiting clip in its form, and new words typed; gives the page and the clip."""
    server.store.paused = True
    [job] = server.store.submit({"prompt": "waits"})
    page = pages(server.url, allowed=("404",))
    page.get_by_role("button", name="Edit").click()
    expect(page.locator("#make-label")).to_have_text("Save changes")
    page.fill("#prompt", "my new words")
    return page, job


def is_a_new_shot(page, server) -> None:
    """The form holds what was typed, as a clip of its own, which can be made."""
    expect(page.locator("#prompt")).to_have_value("my new words")  # before that the page is only its HTML
    expect(page.locator("#make-label")).to_have_text("Make clip")
    expect(page.locator("#editing")).to_be_hidden()
    expect(page.locator("#problem")).to_be_empty()
    page.click("#make")
    expect(page.locator("#queue .card .title")).to_have_text("my new words")
    assert [job["request"]["prompt"] for job in server.store.jobs.values()] == ["my new words"]


def test_a_clip_that_is_cancelled_while_it_is_edited_leaves_its_words_in_the_form(edited, server):
    page, _ = edited
    page.get_by_role("button", name="Cancel").click()
    is_a_new_shot(page, server)


def test_a_clip_that_went_while_the_page_was_closed_leaves_its_words_in_the_form(edited, server):
    page, job = edited
    page.reload()
    expect(page.locator("#queue .card")).to_have_count(1)
    expect(page.locator("#make-label")).to_have_text("Save changes")  # it still waits
    page.goto("about:blank")
    server.store.remove(job["id"])
    page.goto(server.url)
    is_a_new_shot(page, server)


def test_changes_of_a_clip_that_has_gone_unheard_stay_in_the_form(edited, server):
    page, job = edited
    del server.store.jobs[job["id"]]  # and no event tells of it
    with page.expect_response(lambda answer: answer.status == 404):
        page.click("#make")
    is_a_new_shot(page, server)


def test_json_that_is_not_yet_whole_is_kept_and_said_to_be_wrong(server, pages):
    page = pages(server.url, allowed=("Failed to load resource",))
    page.locator("#advanced summary", has_text="Sampling").click()
    field = page.locator("textarea[data-param='guidance_interval']")
    field.fill("[0.2, 0.8")
    page.fill("#prompt", "a fox")
    wrong = page.locator(".field:has(> [data-param='guidance_interval']) .field-error")
    expect(wrong).to_contain_text("[0.2, 0.8")
    expect(field).to_have_value("[0.2, 0.8")
    page.click("#make")
    expect(field).to_have_attribute("aria-invalid", "true")
    assert not server.store.jobs
    page.reload()
    expect(field).to_have_value("[0.2, 0.8")
    field.fill("[0.2, 0.8]")
    expect(page.locator(".field-error")).to_have_count(0)
    page.click("#make")
    expect(page.locator("#queue .card, #gallery .tile")).to_have_count(1)
    [job] = server.store.jobs.values()
    assert job["request"]["guidance_interval"] == [0.2, 0.8]
    page.click("#reset")
    expect(field).to_have_value("")


def test_what_is_left_out_over_frames_is_no_text_to_type_in(page, finished):
    track = {"0": "blur", "12": "text"}
    finished("a fox", negative=track)
    page.click("#gallery .tile-face")
    page.click("#viewer button:has-text('Reuse all')")
    box = page.locator("#negative")
    expect(box).to_have_value("blur → text")
    expect(box).to_be_disabled()
    negative = "async () => (await import('/draft.js')).draft.request.negative"
    assert page.evaluate(negative) == track
    clear = page.locator(".field:has(#negative)").get_by_role("button", name="Clear")
    clear.click()
    expect(clear).to_be_hidden()
    box.fill("haze")
    assert page.evaluate(negative) == "haze"
