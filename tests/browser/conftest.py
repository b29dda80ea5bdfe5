"""A browser and a server for the page's tests; both are left out, with the reason, where there is no browser.

Every test fails on an error in the browser's console: a breach of the content security policy is one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from stand_in import StandIn, Store

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
playwright.expect.set_options(timeout=20_000)

CHROMIUM = os.environ.get("KINEMA_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
DESKTOP = {"width": 1440, "height": 1000}


@pytest.fixture(scope="module")  # its event loop must not outlive these tests
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium; apt install chromium, or name one in KINEMA_CHROMIUM")
    with playwright.sync_playwright() as driver:
        try:
            running = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"chromium does not start: {str(error).splitlines()[0]}")
        yield running
        running.close()


@pytest.fixture
def server() -> Iterator[StandIn]:
    running = StandIn(Store())
    yield running
    running.store.closed = True
    running.stop()


@pytest.fixture
def pages(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages, whose consoles are checked at the end; `allowed` are errors that a test provokes."""
    problems: list[str] = []
    contexts = []

    def opened(url: str, *, allowed: tuple[str, ...] = (), ready: bool = True, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options})
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()

        def told(text: str) -> None:
            if not any(part in text for part in allowed):
                problems.append(text)

        page.on(
            "console", lambda message: told(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: problems.append(f"uncaught: {error}"))
        page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
        page.goto(url)
        if ready:
            page.wait_for_selector("body.ready")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not problems


@pytest.fixture
def page(pages: Callable[..., Any], server: StandIn) -> Any:
    return pages(server.url)


@pytest.fixture
def finished(server: StandIn) -> Callable[..., list[dict[str, Any]]]:
    """Puts clips into the history, one for each prompt, without waiting for a clock."""

    def made(*prompts: str, **settings: Any) -> list[dict[str, Any]]:
        jobs = []
        for prompt in prompts:
            [job] = server.store.submit({"prompt": prompt, **settings}, run=False)
            jobs.append(server.store.finish(job))
        return jobs

    return made
