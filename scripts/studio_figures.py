"""Kinema Studio as the documentation shows it: the page over a running server, in the middle of a clip.

python scripts/studio_figures.py http://127.0.0.1:8420 -o docs/figures    # needs playwright and chromium

The server's history is filled first with the clips of `samples/gallery.yaml` that a page shows well.
"""

from __future__ import annotations

import argparse
import io
import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
SHOWN = ("travel", "keyframes", "animate", "letter", "face", "moon", "train", "rooster")
STORY = {
    "prompt": {"0..4": "a rooster on a blue background", "9..-1": "a penguin on a pink background"},
    "guidance": "0:(2, ease=in_out), 8:(6, ease=in_out), 16:(3)",
    "steps": 160,
}
VIEWS: dict[str, dict[str, Any]] = {
    "studio": {"viewport": {"width": 1440, "height": 1180}, "color_scheme": "dark"},
    "studio-light": {"viewport": {"width": 1440, "height": 1180}, "color_scheme": "light"},
    "studio-phone": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
        "color_scheme": "light",
    },
}


def ask(url: str, path: str, value: Any = None, body: bytes | None = None) -> Any:
    """JSON from the server; `value` or `body` makes it a POST."""
    data = body if body is not None else None if value is None else json.dumps(value).encode()
    kind = "application/octet-stream" if body is not None else "application/json"
    request = urllib.request.Request(f"{url}{path}", data, {"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def upload(url: str, name: str) -> str:
    """The reference of a picture of `samples/`."""
    return ask(url, "/api/media", body=(ROOT / "samples" / name).read_bytes())["ref"]


def fill(url: str) -> None:
    """Makes the clips that are not there yet, and waits for them."""
    shots = yaml.safe_load((ROOT / "samples/gallery.yaml").read_text("utf-8"))
    if ask(url, "/api/jobs?limit=20&state=done")["jobs"]:
        return
    for name in SHOWN:
        shot = dict(shots[name])
        places = [str(key).partition("@") for key in shot.pop("keyframes", ())]
        if places:
            shot["keyframes"] = [f"{upload(url, image)}{at}{place}" for image, at, place in places]
        if isinstance(shot["prompt"], dict):
            shot["prompt"] = {str(place): text for place, text in shot["prompt"].items()}
        ask(url, "/api/jobs", {"request": shot})
    while ask(url, "/api/jobs?limit=20&state=queued,running")["jobs"]:
        time.sleep(1)


def stage(page: Page, url: str) -> None:
    """Writes a shot with two prompts, a curve and two pictures, queues it, and waits for its middle."""
    page.goto(url)
    page.wait_for_selector("body.ready")
    keyframes = [
        {"image": upload(url, "inputs/penguin.png"), "frame": -1, "strength": 0.8},
    ]
    shot = {**STORY, "keyframes": keyframes}
    page.evaluate("async (shot) => (await import('/draft.js')).adopt(shot, {seed: 3})", shot)
    page.click("#make")
    ask(url, "/api/jobs", {"request": {"prompt": "a snowman on a cyan background"}})
    ask(url, "/api/jobs", {"request": {"prompt": "a love letter slides up on a pink background"}})
    page.wait_for_function(
        "() => Number(document.querySelector('#stage img.picture').dataset.step) >= 34", timeout=240_000
    )


def main() -> None:
    """Draws every view into the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "docs/figures")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    url = options.url.rstrip("/")
    fill(url)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        for name, view in VIEWS.items():
            context = browser.new_context(**view)
            page = context.new_page()
            stage(page, url)
            page.wait_for_timeout(1000)
            picture = Image.open(io.BytesIO(page.screenshot()))
            picture.save(options.out / f"{name}.webp", quality=88, method=6)
            for job in ask(url, "/api/jobs?limit=20&state=queued,running")["jobs"]:
                urllib.request.urlopen(
                    urllib.request.Request(f"{url}/api/jobs/{job['id']}", method="DELETE"), timeout=60
                )
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
