"""The timeline: prompts as blocks, pictures at frames, curves; with the mouse and with the keys."""

from __future__ import annotations

import hashlib

import pytest
from hands import drop
from stand_in import ROOT

from kinema.story.positions import FramePosition
from kinema.story.prompt_track import PromptTrack
from kinema.story.tracks import Schedule

api = pytest.importorskip("playwright.sync_api")
expect = api.expect

PENGUIN = ROOT / "samples/inputs/penguin.png"
TWO = {"0..4": "a fox", "9..-1": "a wolf"}


@pytest.fixture
def draft(page):
    """Reads the shot that the page holds, or puts another into it."""

    def use(request=None):
        if request is not None:
            page.evaluate("async (request) => (await import('/draft.js')).adopt(request)", request)
        return page.evaluate("async () => (await import('/draft.js')).draft.request")

    return use


def pull(page, handle, frame: float, *, frames: int = 17, up: float = 0.0) -> None:
    """Drags a handle to the middle of a frame, and so many pixels up."""
    area = page.locator("#timeline .prompts").bounding_box()
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + min(box["height"] / 2, 20)
    page.mouse.move(x, y)
    page.mouse.down()
    to = area["x"] + (frame + 0.5) / frames * area["width"]
    page.mouse.move((x + to) / 2, y - up / 2)
    page.mouse.move(to, y - up)
    page.mouse.up()


def held(page, server, draft, *places):
    ref = hashlib.sha256(PENGUIN.read_bytes()).hexdigest()
    server.store.media[ref] = PENGUIN.read_bytes()
    draft(
        {
            "prompt": "a penguin",
            "keyframes": [{"image": f"media:{ref}", "frame": place, "strength": 1} for place in places],
        }
    )
    expect(page.locator("#timeline .picture")).to_have_count(len(places))


def test_a_dropped_picture_is_held_where_it_fell_and_dragged_to_latent_frames(page, draft):
    drop(page, "#timeline .pictures", PENGUIN, kind="image/png", x=0.3)
    picture = page.locator("#timeline .picture")
    expect(picture).to_have_attribute("aria-valuenow", "5")
    [key] = draft()["keyframes"]
    assert key["image"].startswith("media:")
    pull(page, picture, 10)
    assert draft()["keyframes"][0]["frame"] == 9
    pull(page, picture, 16)
    assert draft()["keyframes"][0]["frame"] == -1
    page.uncheck("#snap")
    pull(page, picture, 7)
    assert draft()["keyframes"][0]["frame"] == 7


def test_pictures_are_moved_held_less_and_removed_with_the_keys(page, server, draft):
    held(page, server, draft, 0, -1)
    picture = page.locator("#timeline .picture").first
    picture.focus()
    for key in ("ArrowRight", "ArrowRight", "Alt+ArrowRight", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    assert {**draft()["keyframes"][0], "image": ""} == {"image": "", "frame": 6, "strength": 0.9}
    page.keyboard.press("Delete")
    assert [key["frame"] for key in draft()["keyframes"]] == [-1]


def test_two_pictures_never_share_a_frame(page, server, draft):
    held(page, server, draft, 0, 5)
    page.locator("#timeline .picture").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert [key["frame"] for key in draft()["keyframes"]] == [1, 5]


def test_a_prompt_is_split_and_its_parts_are_written_apart(page, draft):
    page.fill("#prompt", "a fox")
    page.locator("#timeline .block").dblclick()
    expect(page.locator("#timeline .block")).to_have_count(2)
    expect(page.locator("#prompt")).to_be_focused()
    page.fill("#prompt", "a wolf")
    prompt = draft()["prompt"]
    assert list(prompt.values()) == ["a fox", "a wolf"]
    texts, weights_FK = PromptTrack(prompt).sample(17, 8)
    assert texts == ("a fox", "a wolf")
    assert weights_FK[0].tolist() == [1.0, 0.0]
    assert weights_FK[16].tolist() == [0.0, 1.0]
    page.locator("#timeline .block-face").first.click()
    expect(page.locator("#prompt")).to_have_value("a fox")
    page.keyboard.press("Control+z")
    page.locator("#timeline .block-face").nth(1).focus()
    page.keyboard.press("Delete")
    assert draft()["prompt"] == "a fox"


def test_edges_make_the_cross_fade_and_stop_at_their_neighbours(page, draft):
    draft({"prompt": TWO})
    pull(page, page.locator("#timeline .edge.a:visible"), 13)
    assert list(draft()["prompt"]) == ["0..4", "13..-1"]
    pull(page, page.locator("#timeline .edge.a:visible"), 1)
    assert list(draft()["prompt"]) == ["0..4", "5..-1"]
    page.locator("#timeline .edge.b:visible").focus()
    page.keyboard.press("ArrowLeft")
    assert list(draft()["prompt"]) == ["0", "5..-1"]
    expect(page.locator("#timeline .fade:visible")).to_have_count(1)


def test_curves_have_points_to_drag_and_undo(page, draft):
    draft({"prompt": "a fox", "guidance": "0:(3), 8:(6), -1:(2)"})
    points = page.locator(".lane .point")
    expect(points).to_have_count(3)
    expect(page.locator(".lane .curve")).to_have_attribute(
        "d", r := page.locator(".lane .curve").get_attribute("d")
    )
    pull(page, points.nth(1), 12, up=10)
    moved = Schedule.parse(draft()["guidance"])
    assert moved.values(17, 8)[13] > 6
    page.wait_for_function("(old) => document.querySelector('.lane .curve').getAttribute('d') !== old", arg=r)
    page.click("#undo")
    assert draft()["guidance"] == "0:(3), 8:(6), -1:(2)"
    points.nth(0).focus()
    page.keyboard.press("ArrowUp")
    assert draft()["guidance"] == "0:(3.1), 8:(6), 16:(2)"


def test_a_drag_is_one_step_of_undo_however_long_the_hand_rests(page, draft):
    before = "0:(3), 8:(6), -1:(2)"
    draft({"prompt": "a fox", "guidance": before})
    point = page.locator(".lane .point").nth(1)
    expect(page.locator(".lane .point")).to_have_count(3)
    page.clock.install()
    for _ in range(2):
        box = point.bounding_box()
        page.mouse.move(box["x"] + 5, box["y"] + 5)
        page.mouse.down()
        page.mouse.move(box["x"] + 5, box["y"] + 9)
        page.clock.fast_forward(5000)
        page.mouse.move(box["x"] + 5, box["y"] + 15)
        page.mouse.up()
    after = draft()["guidance"]
    page.click("#undo")
    once = draft()["guidance"]
    page.click("#undo")
    assert draft()["guidance"] == before
    assert len({before, once, after}) == 3


def plotted(page, label: str, values) -> None:
    """Waits until the lane's curve is these values, one for each frame, between its lowest and highest."""
    low, high = min(values), max(values)
    page.wait_for_function(
        """([path, wanted]) => {
            const line = document.querySelector(`[data-param='${path}'] .curve`).getAttribute('d');
            const pairs = (line.match(/[\\d.]+ [\\d.]+/g) ?? []).slice(1, -1);
            const ys = pairs.map((pair) => -Number(pair.split(' ')[1]));
            const [low, high] = [Math.min(...ys), Math.max(...ys)];
            const shape = ys.map((y) => (y - low) / (high - low));
            return shape.length === wanted.length && shape.every((y, i) => Math.abs(y - wanted[i]) < 0.01);
        }""",
        arg=[label, [(value - low) / (high - low) for value in values]],
    )


def test_a_formula_is_plotted_as_the_server_reads_it(pages, server):
    page = pages(server.url, allowed=("Failed to load resource",))
    page.select_option("select[aria-label='Add a lane']", "camera.zoom")
    box = page.locator("[data-param='camera.zoom'] input.code")
    box.fill("1 + 0.3 * sin(t / 3)")
    plotted(page, "camera.zoom", Schedule.parse("1 + 0.3 * sin(t / 3)").values(17, 8).tolist())
    box.fill("1 + sinn(t)")
    expect(box).to_have_attribute("data-wrong", "")
    assert "sin" in box.get_attribute("title")
    box.fill("0:(1, ease=out_bounce), 16:(2)")
    eased = Schedule.parse("0:(1, ease=out_bounce), 16:(2)").values(17, 8).tolist()
    plotted(page, "camera.zoom", eased)
    page.locator(".lane .point").first.focus()  # draws the page anew
    plotted(page, "camera.zoom", eased)


def test_a_formula_is_plotted_with_the_tempo_and_the_seed_of_the_shot(page, draft):
    formula = "beat + sin(seed * t / 16)"
    draft({"prompt": "a fox", "bpm": 60, "seed": 7, "guidance": formula})
    plotted(page, "guidance", Schedule.parse(formula).values(17, 8, 7, bpm=60).tolist())
    page.fill("#basic [data-param='seed']", "3")
    plotted(page, "guidance", Schedule.parse(formula).values(17, 8, 3, bpm=60).tolist())


CUBIC = {"deforum": "0:(1), 4:(3), 8:(2), 12:(5), 16:(4)", "interpolation": "cubic"}


def test_a_curve_of_deforum_keeps_its_interpolation(page, draft):
    draft({"prompt": "a fox", "guidance": CUBIC})
    plotted(page, "guidance", Schedule(CUBIC).values(17, 8).tolist())
    point = page.locator("[data-param='guidance'] .point").nth(1)
    point.focus()
    expect(page.locator(".inspector")).not_to_contain_text("Way to the next")  # Deforum's keys have none
    page.keyboard.press("ArrowUp")
    assert draft()["guidance"] == {**CUBIC, "deforum": CUBIC["deforum"].replace("4:(3)", "4:(3.1)")}
    page.fill("[data-param='guidance'] input.code", CUBIC["deforum"])
    assert draft()["guidance"] == CUBIC
    frames = page.locator("[data-param='frames']")
    frames.fill("33")
    frames.press("Tab")
    assert draft()["guidance"] == {**CUBIC, "deforum": "0:(1), 8:(3), 16:(2), 24:(5), 32:(4)"}
    page.fill("[data-param='guidance'] input.code", "3")
    assert draft()["guidance"] == {**CUBIC, "deforum": "3"}


def test_a_new_length_counts_the_beats_of_the_shot(page):
    shot = {"bpm": 60, "prompt": {"0": "a fox", "1b": "a wolf"}}
    told = page.evaluate("async (shot) => (await import('/track.js')).stretched(shot, 17, 33, 8)", shot)
    assert list(told["prompt"]) == ["0", "16..-1"]


def test_a_new_length_keeps_the_shape(page, server, draft):
    held(page, server, draft, 0, 8, -1)
    request = {**draft(), "prompt": {"0..8": "a fox", "9..-1": "a wolf"}}
    draft(request)
    frames = page.locator("[data-param='frames']")
    frames.fill("33")
    frames.press("Tab")
    assert [key["frame"] for key in draft()["keyframes"]] == [0, 16, -1]
    assert list(draft()["prompt"]) == ["0..16", "18..-1"]


def test_frames_are_counted_as_the_shot_counts_them(page):
    places = [0, 5, -1, -3, "7", "2s", "0.19s", "50%", "33.3%", "100%", "3b"]
    told = page.evaluate(
        """async (places) => {
            const {frameOf} = await import('/track.js');
            return places.map((place) => frameOf(place, 49, 24));
        }""",
        places,
    )
    assert told == [FramePosition.parse(place).resolve(49, 24) for place in places]


PROMPTS = (
    "a fox",
    {"0": "a fox", "16": "a wolf"},
    {"3": "a fox", "9..12": "a wolf"},
    {"0": {"prompt": "a fox", "ease": "in_out"}, "50%": "a bear", "-1": "a wolf"},
    {"0": {"prompt": "a fox", "mode": "hold"}, "1s": "a wolf"},
    {"head": "oil", "0..4": "a fox", "8..-1": "a wolf", "tail": "at night", "ease": "smooth"},
    {"mode": "hold", "0": "a", "4": "b", "9": "c"},
)
NUMBERS = ({"0": 1, "1s": {"value": 2, "ease": "out"}, "-1": 0.5}, {"50%": 3, "-1": 4, "ease": "smooth"})


def test_reading_and_writing_a_track_changes_nothing_in_it(page):
    prompts, numbers = page.evaluate(
        """async ([prompts, numbers]) => {
            const {readNumbers, readPrompt, writeKeys, writePrompt} = await import('/track.js');
            return [
                prompts.map((prompt) => writePrompt(readPrompt(prompt, 17, 8), 17)),
                numbers.map((one) => writeKeys(readNumbers(one, 17, 8).keys)),
            ];
        }""",
        [PROMPTS, NUMBERS],
    )
    for prompt, written in zip(PROMPTS, prompts, strict=True):
        wanted, got = (PromptTrack(value).sample(17, 8) for value in (prompt, written))
        assert got[0] == wanted[0]
        assert got[1] == pytest.approx(wanted[1])
    for one, text in zip(NUMBERS, numbers, strict=True):
        assert Schedule.parse(text).values(17, 8) == pytest.approx(Schedule(one).values(17, 8))
