"""What people do with the page from end to end, against the stand-in for the server."""

from __future__ import annotations

import time

import pytest
from hands import drop, paste
from stand_in import ROOT, StandIn

api = pytest.importorskip("playwright.sync_api")
expect = api.expect

HOSTILE = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>'
REFUSED = ("Failed to load resource",)


def write(page, prompt: str) -> None:
    page.fill("#prompt", prompt)


def test_a_clip_is_made_its_preview_changes_and_it_lands_in_the_history(page, server):
    server.store.hold_at = 3
    write(page, "a rooster on a blue background")
    page.keyboard.press("Control+Enter")
    image = page.locator("#stage img.picture")
    expect(image).to_have_attribute("data-step", "3")
    first = shown(page)
    server.store.hold_at = 15
    expect(image).to_have_attribute("data-step", "15")
    expect(page.locator("#stage-line")).to_contain_text("step 15 of 20")
    assert shown(page) != first
    server.store.hold_at = 0
    tile = page.locator("#gallery .tile")
    expect(tile).to_have_count(1)
    expect(tile).to_contain_text("a rooster on a blue background")
    expect(page.locator("#queue-empty")).to_be_visible()
    [job] = server.store.jobs.values()
    assert job["request"]["prompt"] == "a rooster on a blue background"


def shown(page) -> list[int]:
    """The pixels of the preview, once it is decoded."""
    return page.evaluate(
        """async () => {
            const image = document.querySelector('#stage img.picture');
            await image.decode();
            const canvas = new OffscreenCanvas(64, 64).getContext('2d');
            canvas.drawImage(image, 0, 0);
            return [...canvas.getImageData(0, 0, 64, 64).data];
        }"""
    )


@pytest.mark.parametrize("name", ["length_fit", "loop"])
def test_switches_lie_apart_and_take_a_click(page, name):
    page.locator("#advanced summary", has_text="Length, rate and size").click()
    switch = page.locator(f'#advanced input[data-param="{name}"]')
    switch.scroll_into_view_if_needed()
    assert switch.evaluate(
        """(switched) => {
            const box = switched.getBoundingClientRect();
            const middle = [box.left + box.width / 2, box.top + box.height / 2];
            return document.elementFromPoint(...middle) === switched;
        }"""
    ), "another field lies over it"
    switch.click()
    expect(switch).to_be_checked()
    other = page.locator(f'#advanced input[data-param="{"loop" if name == "length_fit" else "length_fit"}"]')
    expect(other).not_to_be_checked()


def test_the_clip_plays_while_one_looks_at_it(pages, server, finished):
    finished("a fox")
    page = pages(server.url, reduced_motion="no-preference")
    page.hover("#gallery .tile")
    page.wait_for_function("() => document.querySelector('#gallery video').currentTime > 0.05")
    page.hover("#bar h1")
    page.wait_for_function("() => document.querySelector('#gallery video').paused")


def test_nothing_moves_by_itself_where_less_motion_is_asked_for(page, finished):
    finished("a fox")
    page.wait_for_selector("#gallery .tile")
    page.evaluate(
        """() => {
            const tile = document.querySelector('#gallery .tile');
            window.entered = new Promise((wake) => tile.addEventListener('pointerenter', wake, {once: true}));
        }"""
    )
    page.hover("#gallery .tile")
    page.evaluate("async () => { await window.entered; }")
    assert page.evaluate("() => [...document.querySelectorAll('video')].every((video) => video.paused)")


@pytest.mark.parametrize(("label", "keep", "clips"), [("Stop and keep", True, 1), ("Cancel", False, 0)])
def test_a_running_clip_is_stopped(page, server, label, keep, clips):
    server.store.hold_at = 3
    write(page, "a fox")
    page.click("#make")
    page.wait_for_selector("#queue .card.running")
    page.click(f"#queue .card button:has-text('{label}')")
    page.wait_for_function("() => !document.querySelector('#queue .card.running, #queue .card.cancelling')")
    assert ("POST", "cancel", {"keep": keep}) in server.store.asked
    expect(page.locator("#gallery .tile")).to_have_count(clips)
    if keep:
        expect(page.locator("#gallery .tile")).to_contain_text("stopped early")


def test_the_form_and_the_progress_survive_a_reload(page, server):
    write(page, "a penguin")
    page.fill("#basic [data-param='steps']", "60")
    server.store.hold_at = 12
    page.click("#make")
    expect(page.locator("#queue .card.running")).to_contain_text("step 12 of 60")
    page.reload()
    page.wait_for_selector("body.ready")
    expect(page.locator("#prompt")).to_have_value("a penguin")
    expect(page.locator("#basic [data-param='steps']")).to_have_value("60")
    expect(page.locator("#queue .card.running")).to_contain_text("step 12 of 60")
    server.store.hold_at = 0
    expect(page.locator("#gallery .tile")).to_have_count(1)


def test_a_server_that_goes_and_comes_back_loses_nothing(pages, server: StandIn):
    page = pages(server.url, allowed=("net::ERR", "Failed to load resource"))
    write(page, "a penguin")
    server.store.hold_at = 5
    page.click("#make")
    page.wait_for_selector("#queue .card.running")
    server.stop()
    expect(page.locator("#away")).to_be_visible()
    server.store.hold_at = 0
    server.store.submit({"prompt": "made while the page was away"})
    server.start()
    page.evaluate("() => document.querySelector('#away-now').click()")  # it may be back by itself already
    expect(page.locator("#away")).to_be_hidden()
    expect(page.locator("#gallery .tile")).to_have_count(2)
    expect(page.locator("#gallery")).to_contain_text("made while the page was away")


def test_a_submission_whose_answer_is_lost_makes_one_clip(pages, server):
    page = pages(server.url, allowed=("net::ERR",))
    lost = []

    def answer(route):
        response = route.fetch()
        if not lost and route.request.method == "POST":
            lost.append(response)
            route.abort()
        else:
            route.fulfill(response=response)

    page.route("**/api/jobs", answer)
    write(page, "only once")
    page.click("#make")
    expect(page.locator("#queue .card, #gallery .tile")).to_have_count(1)
    assert lost
    assert len(server.store.jobs) == 1


def test_several_clips_have_seeds_of_their_own_and_a_kept_seed_is_used(page, server):
    server.store.paused = True
    write(page, "a fox")
    page.fill("#basic [data-param='count']", "3")
    page.keyboard.press("Tab")
    expect(page.locator("#make-label")).to_have_text("Make 3 clips")
    page.click("#make")
    expect(page.locator("#queue .card")).to_have_count(3)
    assert len({job["request"]["seed"] for job in server.store.jobs.values()}) == 3
    page.fill("#basic [data-param='count']", "1")
    page.fill("#basic [data-param='seed']", "9223372036854775807")
    page.click("#make")
    expect(page.locator("#queue .card")).to_have_count(4)
    assert list(server.store.jobs.values())[-1]["request"]["seed"] == 2**63 - 1


def test_the_cost_is_shown_and_what_is_wrong_stands_beside_its_field(pages, server):
    page = pages(server.url, allowed=REFUSED)
    expect(page.locator("#cost")).to_contain_text("5 latent frames")
    expect(page.locator("#cost")).to_contain_text("420 MB")
    expect(page.locator("#cost")).to_contain_text("4.0 h at most")
    page.click("#make")
    expect(page.locator(".field.prompt .field-error")).to_have_text("Write what the clip shows.")
    expect(page.locator("#prompt")).to_be_focused()
    write(page, "a fox")
    expect(page.locator(".field-error")).to_have_count(0)
    page.fill("#basic [data-param='steps']", "5000")
    field = page.locator(".field:has(> [data-param='steps'])")
    expect(field.locator(".field-error")).to_contain_text("steps=5000")
    expect(page.locator("[data-param='steps']")).to_have_attribute("aria-invalid", "true")
    page.click("#make")
    expect(field.locator(".field-error")).to_contain_text("steps=5000")
    assert not server.store.jobs
    page.fill("#basic [data-param='steps']", "4")
    expect(page.locator(".field-error")).to_have_count(0)


def test_lengths_snap_to_whole_latent_groups(page):
    seconds, frames = page.locator("[data-param='seconds']"), page.locator("[data-param='frames']")
    seconds.fill("3")
    seconds.press("Tab")
    expect(frames).to_have_value("25")
    expect(seconds).to_have_value("3.13")
    frames.fill("30")
    frames.press("Tab")
    expect(frames).to_have_value("29")


def test_a_loop_has_whole_groups_alone(page, server):
    page.fill("#prompt", "a wheel")
    page.evaluate("async () => (await import('/draft.js')).draft.set('loop', true)")
    frames = page.locator("[data-param='frames']")
    expect(frames).to_have_value("16")  # of a default of 17
    for written, legal in (("30", "32"), ("33", "32"), ("1", "4"), ("17", "16")):
        frames.fill(written)
        frames.press("Tab")
        expect(frames).to_have_value(legal)
    frames.fill("24")
    frames.press("Tab")
    lines = "".join(f"M{start} 0V1" for start in range(0, 24, 4))
    expect(page.locator("#timeline svg.groups path")).to_have_attribute("d", lines)
    page.click("#make")
    expect(page.locator("#queue .card, #gallery .tile")).to_have_count(1)
    assert list(server.store.jobs.values())[-1]["request"]["frames"] == 24


def test_waiting_clips_are_reordered_edited_cloned_and_dropped(page, server):
    store = server.store
    store.paused = True
    for prompt in ("one", "two", "three"):
        store.submit({"prompt": prompt})
    titles = page.locator("#queue .card .title")
    expect(titles).to_have_text(["one", "two", "three"])
    page.locator("#queue .card").nth(2).focus()
    page.keyboard.press("Alt+ArrowUp")
    expect(titles).to_have_text(["one", "three", "two"])
    page.locator("#queue .card").nth(0).drag_to(page.locator("#queue .card").nth(2))
    expect(titles).to_have_text(["three", "two", "one"])
    write(page, "what I was writing")
    page.locator("#queue .card").nth(1).get_by_role("button", name="Edit").click()
    expect(page.locator("#prompt")).to_have_value("two")
    write(page, "two, better")
    page.click("#make")
    expect(titles).to_have_text(["three", "two, better", "one"])
    expect(page.locator("#prompt")).to_have_value("what I was writing")
    page.locator("#queue .card").nth(1).get_by_role("button", name="One more of this").click()
    expect(titles).to_have_text(["three", "two, better", "one", "two, better"])
    page.locator("#queue .card").nth(0).get_by_role("button", name="Cancel").click()
    expect(titles).to_have_text(["two, better", "one", "two, better"])


def test_what_was_written_comes_back_after_a_second_clip_was_taken_to_be_changed(page, server):
    server.store.paused = True
    for prompt in ("one", "two"):
        server.store.submit({"prompt": prompt})
    cards = page.locator("#queue .card")
    expect(cards).to_have_count(2)
    write(page, "what I was writing")
    for place, prompt in enumerate(("one", "two")):
        cards.nth(place).get_by_role("button", name="Edit").click()
        expect(page.locator("#prompt")).to_have_value(prompt)
    page.click("#editing-stop")
    expect(page.locator("#prompt")).to_have_value("what I was writing")


def test_a_failure_says_why_and_is_tried_again(page, server):
    server.store.fail_next = "out of memory: 9 GB asked, 8 GB there; try fewer frames."
    write(page, "a fox")
    page.click("#make")
    card = page.locator("#queue .card.failed")
    expect(card).to_contain_text("try fewer frames")
    card.get_by_role("button", name="Try again").click()
    expect(page.locator("#gallery .tile")).to_have_count(1)


def test_the_history_is_filtered_and_marked(page, server, finished):
    finished("a red fox", "a blue bird", "a red bird")
    expect(page.locator("#gallery .tile")).to_have_count(3)
    page.keyboard.press("/")
    page.keyboard.type("red bird")
    expect(page.locator("#gallery .tile")).to_have_count(1)
    page.fill("#filter", "")
    tile = page.locator("#gallery .tile", has_text="a blue bird")
    tile.hover()
    tile.get_by_role("button", name="Favourite").click()
    page.check("#only-favourites")
    expect(page.locator("#gallery .tile")).to_have_count(1)
    assert [job["request"]["prompt"] for job in server.store.jobs.values() if job["favourite"]] == [
        "a blue bird"
    ]


def test_settings_are_taken_from_a_clip(page, finished):
    finished("a red fox", negative="dull", steps=7, seed=41, guidance="0:(3), -1:(5)")
    page.click("#gallery .tile-face")
    expect(page.locator("#viewer")).to_contain_text("dull")
    page.click("#viewer button:has-text('Reuse all')")
    expect(page.locator("#prompt")).to_have_value("a red fox")
    expect(page.locator("#negative")).to_have_value("dull")
    expect(page.locator("[data-param='steps']")).to_have_value("7")
    expect(page.locator("[data-param='seed']")).to_have_value("41")
    expect(page.locator(".lane .point")).to_have_count(2)


def test_a_clip_goes_on_and_its_frames_are_used(page, server, finished):
    finished("a red fox", frames=17)
    page.click("#gallery .tile-face")
    page.locator("#viewer .scrub input").fill("5")
    page.click("#viewer button:has-text('Frame as end')")
    expect(page.locator("#timeline .picture")).to_have_attribute("aria-valuenow", "16")
    page.click("#gallery .tile-face")
    page.click("#viewer button:has-text('Extend from the end')")
    expect(page.locator("#prompt")).to_have_value("a red fox")
    expect(page.locator("#viewer")).to_be_hidden()
    page.click("#make")
    expect(page.locator("#queue .card, #gallery .tile")).to_have_count(2)
    request = list(server.store.jobs.values())[-1]["request"]
    assert request["extend"]["path"].removeprefix("media:") in server.store.media
    assert not {"keyframes", "frames"} & set(request)
    expect(page.locator("#timeline-length")).to_contain_text("16 frames")
    frames = page.locator("[data-param='frames']")
    frames.fill("21")
    frames.press("Tab")
    expect(frames).to_have_value("20")


def test_deleting_can_be_undone(page, server, finished):
    finished("a", "b")
    expect(page.locator("#gallery .tile")).to_have_count(2)
    page.clock.install()
    page.clock.pause_at(time.time() + 3600)  # no moment passes
    page.locator("#gallery .tile-face").first.focus()
    page.keyboard.press("Delete")
    expect(page.locator("#gallery .tile")).to_have_count(1)
    page.click(".toast button:has-text('Undo')")
    expect(page.locator("#gallery .tile")).to_have_count(2)
    page.clock.run_for(60_000)
    assert len(server.store.jobs) == 2
    page.locator("#gallery .tile-face").first.focus()
    page.keyboard.press("Delete")
    page.hover(".toast")
    page.clock.run_for(60_000)  # and as long as one looks at the button
    page.click(".toast button:has-text('Undo')")
    expect(page.locator("#gallery .tile")).to_have_count(2)
    page.locator("#gallery .tile-face").first.focus()
    page.keyboard.press("Delete")
    page.hover("#bar h1")
    with page.expect_request(lambda request: request.method == "DELETE"):
        page.clock.run_for(10_000)
    page.clock.resume()
    expect(page.locator("#gallery .tile")).to_have_count(1)


def test_what_is_deleted_stays_so_when_the_page_is_left_at_once(page, finished):
    finished("a", "b")
    expect(page.locator("#gallery .tile")).to_have_count(2)
    page.locator("#gallery .tile-face").first.focus()
    page.keyboard.press("Delete")
    page.reload()
    page.wait_for_selector("body.ready")
    expect(page.locator("#gallery .tile")).to_have_count(1)


def test_what_could_not_be_deleted_is_shown_again(pages, server, finished):
    finished("a", "b")
    page = pages(server.url, allowed=("net::ERR",))
    expect(page.locator("#gallery .tile")).to_have_count(2)
    page.route("**/api/jobs/*", lambda route: route.abort())
    page.locator("#gallery .tile-face").first.focus()
    page.keyboard.press("Delete")
    expect(page.locator("#gallery .tile")).to_have_count(1)
    page.click(".toast button[aria-label='Dismiss']")
    expect(page.locator(".toast.error")).to_contain_text("does not answer")
    expect(page.locator("#gallery .tile")).to_have_count(2)


def test_two_clips_are_compared_on_one_scrubber(page, finished):
    finished("a red fox", steps=4)
    finished("a red fox", steps=9)
    expect(page.locator("#gallery .tile")).to_have_count(2)
    for tile in page.locator("#gallery .tile").all():
        tile.hover()
        tile.get_by_role("button", name="Compare").click()
    expect(page.locator("#compare video")).to_have_count(2)
    expect(page.locator("#compare tr:has(th:text-is('steps'))")).to_contain_text("4")
    expect(page.locator("#compare tr:has(th:text-is('prompt'))")).to_have_count(0)
    page.locator("#compare .scrub input[type=range]").fill("8")
    times = page.evaluate(
        "() => [...document.querySelectorAll('#compare video')].map((video) => video.currentTime)"
    )
    assert times == pytest.approx([8.5 / 8, 8.5 / 8])


def test_a_dropped_clip_brings_its_settings_back_with_notes(page):
    drop(page, "main", ROOT / "samples/clips/rooster.mp4", kind="video/mp4")
    expect(page.locator("#notes")).to_contain_text("The model was version 1.")
    expect(page.locator("#prompt")).to_have_value("a rooster on a blue background")
    assert page.locator("[data-param='seed']").input_value() != ""


def test_a_pasted_clip_brings_its_settings_back(page):
    paste(page, ROOT / "samples/clips/moon.mp4", kind="video/mp4")
    expect(page.locator("#prompt")).to_have_value("a full moon face on a black background")


def test_a_server_that_wants_its_token_is_given_it(pages, server):
    server.store.token = "right"
    page = pages(server.url, allowed=REFUSED, ready=False)
    page.fill("#token-value", "wrong")
    with page.expect_event("load"):
        page.keyboard.press("Enter")
    page.fill("#token-value", "right")
    page.click("#token .primary")
    page.wait_for_selector("body.ready")
    write(page, "a fox")
    page.click("#make")
    expect(page.locator("#gallery .tile")).to_have_count(1)


def test_the_token_is_asked_for_until_it_is_given(pages, server):
    server.store.token = "right"
    page = pages(server.url, allowed=REFUSED, ready=False)
    page.fill("#token-value", "rig")
    for _ in range(3):
        page.keyboard.press("Escape")
        expect(page.locator("#token")).to_be_visible()
    expect(page.locator("#token-value")).to_have_value("rig")


def test_a_picture_without_settings_is_offered_as_a_keyframe(pages, server):
    page = pages(server.url, allowed=REFUSED)
    drop(page, "main", ROOT / "samples/inputs/penguin.png", kind="image/png")
    page.click(".toast button:has-text('Use as picture')")
    expect(page.locator("#timeline .picture")).to_have_count(1)


def test_a_prompt_is_never_markup(page, server, finished):
    server.store.paused = True
    [job] = finished(HOSTILE)
    server.store.touch(job, title=HOSTILE)
    server.store.submit({"prompt": HOSTILE})
    server.store.fail_next = HOSTILE
    write(page, HOSTILE)
    expect(page.locator("#queue .card .title")).to_have_text(HOSTILE)
    expect(page.locator("#gallery .title")).to_have_text(HOSTILE)
    expect(page.locator("#timeline .words")).to_have_text(HOSTILE)
    page.click("#gallery .tile-face")
    expect(page.locator("#viewer h2")).to_have_text(HOSTILE)
    assert page.evaluate("() => window.hit") is None
    assert page.locator("img[src='x']").count() == 0


def test_settings_are_copied_as_text(pages, server, finished):
    finished("a fox")
    page = pages(server.url, permissions=["clipboard-read", "clipboard-write"])
    page.click("#gallery .tile-face")
    page.click("#viewer button:has-text('Copy CLI')")
    expect(page.locator(".toast")).to_contain_text("copied")
    assert page.evaluate("() => navigator.clipboard.readText()").startswith("kinema generate")


def test_the_page_is_written_without_markup_from_data():
    web = ROOT / "src/kinema/serve/web"
    files = [path for path in web.iterdir() if path.suffix in (".js", ".html", ".css")]
    assert len(files) > 10
    for path in files:
        text = path.read_text("utf-8")
        for forbidden in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "srcdoc",
        ):
            assert forbidden not in text, f"{path.name}: {forbidden}"
        assert "https://" not in text, f"{path.name} names another server"
        assert " style=" not in text, f"{path.name}: the policy forbids style attributes"
        assert text.count("\n") <= 450
    assert sum(path.stat().st_size for path in web.iterdir()) < 176_000


def test_what_the_server_tells_while_a_list_is_on_its_way_is_kept(page, server, finished):
    held = []
    page.route("**/api/jobs?*", lambda route: held.append((route, route.fetch())))
    page.evaluate("async () => { window.again = (await import('/jobs.js')).jobs.reload(); }")
    while len(held) < 2:
        page.wait_for_timeout(20)
    finished("a fox")
    expect(page.locator("#gallery .tile")).to_have_count(1)
    page.evaluate("async () => { (await import('/jobs.js')).jobs.reload(); }")  # a second one, meanwhile
    while len(held) < 4:
        page.wait_for_timeout(20)
    for route, answer in held[:2]:
        route.fulfill(response=answer)
    count = "async () => { await again; return (await import('/jobs.js')).jobs.finished.length; }"
    assert page.evaluate(count) == 1
    for route, answer in held[2:]:
        route.fulfill(response=answer)
