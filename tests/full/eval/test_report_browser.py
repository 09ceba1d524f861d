"""The report in a real browser: it opens, asks nobody for anything, and its slider works."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page

from eval.report import write_report
from tests.eval.conftest import FinishedRun


@pytest.fixture(scope="module")
def report(finished_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> str:
    target = tmp_path_factory.mktemp("browser") / "page.html"
    return write_report([finished_run.run_dir], target, split=finished_run.split).page.as_uri()


@pytest.fixture
def opened(report: str, browser_page: Page) -> Page:
    browser_page.goto(report)
    browser_page.locator(".card").first.scroll_into_view_if_needed()
    browser_page.wait_for_function("document.querySelector('.card .photo').complete")
    return browser_page


def pixels(element: Locator) -> Any:
    # Without the time that decoding takes, a picture may be half there.
    element.evaluate(
        "e => Promise.all([...e.querySelectorAll('img')].filter(i => i.src).map(i => i.decode()))"
    )
    shot = Image.open(io.BytesIO(element.screenshot(animations="disabled")))
    return np.asarray(shot.convert("RGB")).astype(int)


def test_the_page_opens_and_shows_every_image(opened: Page, finished_run: FinishedRun) -> None:
    assert "Joint training reached" in opened.title()
    shown = opened.locator(".card:visible").all()
    assert {card.get_attribute("data-name") for card in shown} == set(finished_run.split.names)
    for width in (420, 1280):
        opened.set_viewport_size({"width": width, "height": 900})
        assert opened.evaluate("document.documentElement.scrollWidth") == width


def test_the_slider_moves_the_picture(opened: Page) -> None:
    stage = opened.locator(".stage").first
    slider = stage.locator("input")
    seen = []
    for value in ("0", "50", "100"):
        slider.fill(value)
        seen.append(pixels(stage))
    only_right, half, only_left = seen
    assert (only_right != only_left).any()
    # Half and half: away from the line, tags and handle each side is that of its own layer.
    height, width, _ = half.shape
    rows = slice(12, height // 3)  # without the round corners, which the focus ring touches
    ends = (slice(12, width // 2 - 14), slice(width // 2 + 14, width - 14))
    for columns, whole in zip(ends, (only_left, only_right), strict=True):
        np.testing.assert_array_equal(half[rows, columns], whole[rows, columns])
