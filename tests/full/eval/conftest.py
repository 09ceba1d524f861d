"""A headless browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from tests.eval.conftest import finished_run  # noqa: F401


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium without a window; skips where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"needs one of {', '.join(names)} on the path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def browser_page(browser: Browser) -> Iterator[Page]:
    """A page in a browser profile of its own.

    Fails at the end on a console error, an exception in the page, or a request to anything but
    file:, data:, blob: and 127.0.0.1.
    """
    wrong: list[str] = []

    def console(message: ConsoleMessage) -> None:
        if message.type == "error":
            wrong.append(f"console: {message.text}")

    def request(sent: Request) -> None:
        parts = urlsplit(sent.url)
        if parts.scheme not in ("file", "data", "blob") and parts.hostname != "127.0.0.1":
            wrong.append(f"request to {sent.url}")

    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.on("console", console)
        page.on("pageerror", lambda error: wrong.append(f"exception: {error}"))
        page.on("request", request)
        yield page
    assert not wrong, "\n".join(wrong)
