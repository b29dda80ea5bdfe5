"""The main flows against `kinema serve` itself and the model inside the package, at few steps."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hands import drop
from stand_in_store import ROOT

api = pytest.importorskip("playwright.sync_api")
pytest.importorskip("fastapi")
expect = api.expect

pytestmark = pytest.mark.slow
PATIENCE = 240_000  # ms, for a machine that does much beside


class Served:
    """`kinema serve` in a process group of its own, so that an end by force takes its workers along."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.port}/"
        self.start()

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "kinema",
            "serve",
            "--port",
            str(self.port),
            "--data",
            str(self.folder),
        ]
        with (self.folder.parent / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        while self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}healthz", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        pytest.fail((self.folder.parent / "serve.log").read_text("utf-8"))

    def end(self, how: signal.Signals) -> None:
        os.killpg(self.process.pid, how)
        self.process.wait(60)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    running = Served(tmp_path_factory.mktemp("studio") / "data")
    yield running
    running.end(signal.SIGTERM)


@pytest.fixture
def page(pages: Any, served: Served) -> Any:
    expect.set_options(timeout=PATIENCE)
    found = pages(served.url, allowed=("net::ERR", "Failed to load resource"))
    found.set_default_timeout(PATIENCE)
    yield found
    expect.set_options(timeout=20_000)


def ask(page: Any, prompt: str, steps: int) -> None:
    page.fill("#prompt", prompt)
    page.fill("#basic [data-param='steps']", str(steps))
    page.click("#make")


def clip(page: Any, prompt: str) -> Any:
    found = page.locator("#gallery .tile", has_text=prompt)
    expect(found).to_have_count(1)
    return found


def test_a_clip_is_made_watched_and_restored_from_its_own_file(page, tmp_path):
    ask(page, "a rooster on a blue background", 60)  # long enough for several previews
    image = page.locator("#stage img.picture")
    expect(image).to_be_visible()
    first = image.get_attribute("src")
    page.wait_for_function(
        "(first) => document.querySelector('#stage img.picture').getAttribute('src') !== first", arg=first
    )
    assert image.evaluate("async (image) => { await image.decode(); return image.naturalWidth; }") > 0
    clip(page, "a rooster on a blue background").locator(".tile-face").click()
    expect(page.locator("#viewer")).to_contain_text("25 frames at 8 a second")
    video = page.locator("#viewer video")
    page.wait_for_function("() => document.querySelector('#viewer video').readyState >= 2")
    assert video.evaluate("(one) => [one.videoWidth, one.duration]") == [64, pytest.approx(25 / 8, abs=0.05)]
    with page.expect_download() as download:
        page.click("#viewer a:has-text('Download')")
    file = tmp_path / "clip.mp4"
    download.value.save_as(file)
    page.keyboard.press("Escape")
    page.click("#reset")
    expect(page.locator("#prompt")).to_have_value("")
    drop(page, "main", file, kind="video/mp4")
    expect(page.locator("#prompt")).to_have_value("a rooster on a blue background")
    expect(page.locator("#basic [data-param='steps']")).to_have_value("60")
    assert page.locator("#basic [data-param='seed']").input_value() != ""


def test_a_clip_is_stopped_and_what_is_decoded_is_kept(page):
    ask(page, "a snowman", 200)
    expect(page.locator("#stage-line")).to_contain_text(re.compile(r"step \d+ of 200"))
    page.click("#stage button:has-text('Stop and keep')")
    expect(clip(page, "a snowman")).to_contain_text("stopped early")


def test_a_reload_and_a_server_killed_in_mid_clip_lose_nothing(page, served):
    ask(page, "a penguin on a pink background", 80)
    expect(page.locator("#stage-line")).to_contain_text(re.compile(r"step \d+ of 80"))
    page.reload()
    page.wait_for_selector("body.ready")
    expect(page.locator("#prompt")).to_have_value("a penguin on a pink background")
    expect(page.locator("#stage-line")).to_contain_text("of 80")
    served.end(signal.SIGKILL)
    expect(page.locator("#away")).to_be_visible()
    served.start()
    page.evaluate("() => document.querySelector('#away-now').click()")  # it may be back by itself already
    expect(page.locator("#away")).to_be_hidden()
    expect(clip(page, "a penguin on a pink background")).not_to_contain_text("stopped early")
    answer = page.evaluate("async () => (await fetch('/api/jobs?limit=200')).json()")
    mine = [job for job in answer["jobs"] if job["request"]["prompt"] == "a penguin on a pink background"]
    assert [job["state"] for job in mine] == ["done"]


def test_a_picture_is_dragged_to_a_frame_and_held_there(page):
    page.click("#reset")
    drop(page, "#timeline .pictures", ROOT / "samples/inputs/penguin.png", kind="image/png", x=0.01)
    picture = page.locator("#timeline .picture")
    expect(picture).to_have_attribute("aria-valuenow", "0")
    area, box = page.locator("#timeline .pictures").bounding_box(), picture.bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(area["x"] + 0.5 * area["width"], box["y"] + 20, steps=3)
    page.mouse.move(area["x"] + 0.99 * area["width"], box["y"] + 20, steps=3)
    page.mouse.up()
    last = picture.get_attribute("aria-valuemax")
    expect(picture).to_have_attribute("aria-valuenow", last)
    ask(page, "a penguin, held", 4)
    clip(page, "a penguin, held").locator(".tile-face").click()
    expect(page.locator("#viewer .keyframe")).to_contain_text("frame -1")
    page.click("#viewer button:has-text('Extend from the end')")
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page.locator("#prompt")).to_have_value("a penguin, held")
    ask(page, "the penguin goes on", 4)
    clip(page, "the penguin goes on")


def test_what_is_wrong_is_said_beside_its_field(page, served):
    page.click("#reset")
    page.fill("#prompt", "a fox")
    page.fill("#basic [data-param='fps']", "quick")
    page.keyboard.press("Tab")
    expect(page.locator(".field:has([data-param='fps']) .field-error")).to_contain_text("quick")
    box = page.locator("[data-param='camera.zoom'] input.code")
    page.fill("#basic [data-param='fps']", "8")
    page.keyboard.press("Tab")
    expect(page.locator(".field-error")).to_have_count(0)
    page.select_option("select[aria-label='Add a lane']", "camera.zoom")
    box.fill("1 + nothing(t)")
    expect(box).to_have_attribute("data-wrong", "")
    for form, part in (("CLI", "kinema "), ("Python", "import kinema"), ("YAML", "prompt:")):
        answer = page.evaluate(
            """async (form) => {
                const [{id}] = (await (await fetch('/api/jobs?state=done&limit=1')).json()).jobs;
                return (await fetch(`/api/jobs/${id}/text?as=${form}`)).text();
            }""",
            form.lower(),
        )
        assert part in answer
