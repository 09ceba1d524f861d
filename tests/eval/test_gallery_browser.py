"""The page in a real browser: the slider moves the picture, the forms do what they say."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page

from eval.report import page as page_module
from eval.report import write_report
from eval.report.figures import Drawing
from tests.eval.conftest import FakeRun


@pytest.fixture(scope="module")
def report(fake_run: FakeRun, tmp_path_factory: pytest.TempPathFactory) -> str:
    target = tmp_path_factory.mktemp("browser") / "page.html"
    return write_report([fake_run.run_dir], target, split=fake_run.split).page.as_uri()


@pytest.fixture
def opened(report: str, browser_page: Page) -> Page:
    browser_page.goto(report)
    browser_page.locator(".gallery").scroll_into_view_if_needed()
    card = browser_page.locator(".card").first
    card.scroll_into_view_if_needed()
    browser_page.wait_for_function("document.querySelector('.card .photo').complete")
    return browser_page


def pixels(element: Locator) -> Any:
    # Without the time that decoding takes, a picture may be half there.
    element.evaluate("e => Promise.all([...e.querySelectorAll('img')].filter(i => i.src)"
                     ".map(i => i.decode()))")  # fmt: skip
    shot = Image.open(io.BytesIO(element.screenshot(animations="disabled")))
    return np.asarray(shot.convert("RGB")).astype(int)


def names(page: Page) -> list[str]:
    shown = page.locator(".card:visible")
    return [str(card.get_attribute("data-name")) for card in shown.all()]


def gains(page: Page) -> list[float]:
    words = page.locator(".card:visible .gain").all_text_contents()
    return [float(text.split()[-2].replace("−", "-")) for text in words]


def choose(page: Page, name: str, value: str) -> None:
    page.locator(f".controls [name={name}]").select_option(value)


def test_page_opens_and_shows_every_image(opened: Page, fake_run: FakeRun) -> None:
    assert "Joint training reached" in opened.title()
    assert sorted(names(opened)) == sorted(fake_run.split.names)
    assert opened.locator(".count").text_content() == "8 of 8 images"
    assert "post-hoc left of the slider" in str(opened.locator(".photo").first.get_attribute("alt"))


def test_slider_moves_the_picture(opened: Page) -> None:
    stage = opened.locator(".stage").first
    slider = stage.locator("input")
    left, right = (stage.locator(f".side.{side}") for side in ("left", "right"))

    def clip(side: Locator) -> str:
        return str(side.evaluate("e => getComputedStyle(e).clipPath"))

    seen = []
    for value in ("0", "50", "100"):
        slider.fill(value)
        seen.append((clip(left), clip(right), pixels(stage)))
    assert len({clips for clips, _, _ in seen}) == 3
    assert len({clips for _, clips, _ in seen}) == 3
    only_right, half, only_left = (picture for _, _, picture in seen)
    assert (only_right != only_left).any()
    # Half and half: away from the line, tags and handle each side is that of its own layer.
    height, width, _ = half.shape
    rows = slice(12, height // 3)  # without the round corners, which the focus ring touches
    ends = (slice(12, width // 2 - 14), slice(width // 2 + 14, width - 14))
    for columns, whole in zip(ends, (only_left, only_right), strict=True):
        np.testing.assert_array_equal(half[rows, columns], whole[rows, columns])


def test_arrow_keys_move_the_slider(opened: Page) -> None:
    slider = opened.locator(".stage input").first
    slider.focus()
    before = opened.locator(".card").first.evaluate("e => e.style.getPropertyValue('--cut')")
    for _ in range(3):
        opened.keyboard.press("ArrowRight")
    assert slider.input_value() == "53"
    after = opened.locator(".card").first.evaluate("e => e.style.getPropertyValue('--cut')")
    assert (before, after) == ("50%", "53%")
    assert "border between post-hoc and joint" in str(slider.get_attribute("aria-label"))


def test_sorting_changes_the_order(opened: Page) -> None:
    by_gain, first = gains(opened), names(opened)
    assert by_gain == sorted(by_gain, reverse=True)
    choose(opened, "sort", "loss")
    assert gains(opened) == sorted(by_gain)
    assert names(opened) != first
    choose(opened, "sort", "name")
    assert names(opened) == sorted(first)
    choose(opened, "sort", "weak")
    unary = [float(str(c.get_attribute("data-miou-unary"))) for c in opened.locator(".card").all()]
    assert unary == sorted(unary)
    choose(opened, "sort", "harm")
    harm = [float(str(c.get_attribute("data-harm"))) for c in opened.locator(".card").all()]
    assert harm == sorted(harm)


def test_layers_are_chosen_for_all_cards(opened: Page) -> None:
    stage = opened.locator(".stage").first
    stage.locator("input").fill("100")
    before = pixels(stage)
    choose(opened, "left", "truth")
    assert stage.locator(".tag.left").text_content() == "truth"
    truth = pixels(stage)
    assert (truth != before).any()
    choose(opened, "left", "image")
    assert stage.locator(".side.left .labels").is_hidden()
    assert (pixels(stage) != truth).any()
    choose(opened, "left", "unary")
    assert all("joint − unary" in words for words in opened.locator(".gain").all_text_contents())
    assert gains(opened) == sorted(gains(opened), reverse=True)


def test_opacity_and_outlines_change_the_labels(opened: Page) -> None:
    stage = opened.locator(".stage").first
    first = pixels(stage)
    opened.locator("[name=opacity]").fill("0")
    lines = pixels(stage)
    assert (lines != first).any()
    opened.locator("[name=outline]").uncheck()
    bare = pixels(stage)
    assert (bare != lines).any()
    choose(opened, "left", "image")
    choose(opened, "right", "image")
    tags = bare.shape[0] - 40  # their words differ
    np.testing.assert_array_equal(pixels(stage)[:tags], bare[:tags])


def test_zoom_shows_the_window_in_squares(opened: Page) -> None:
    stage = opened.locator(".stage").first
    whole = stage.bounding_box()
    choose(opened, "zoom", "window")
    window = stage.bounding_box()
    assert whole is not None
    assert window is not None
    assert window["width"] == pytest.approx(window["height"], abs=1)  # rounding of a pixel
    assert whole["height"] < window["height"]
    assert stage.locator(".labels").first.evaluate("e => getComputedStyle(e).imageRendering") == (
        "pixelated"
    )
    assert pixels(stage).std() > 0


def test_difference_shows_gained_and_lost_pixels(opened: Page) -> None:
    stage = opened.locator(".stage").first
    labels = pixels(stage)
    choose(opened, "view", "difference")
    assert opened.locator(".key").is_visible()
    assert (pixels(stage)[: labels.shape[0]] != labels).any()
    stencil = stage.locator(".gained").evaluate("e => getComputedStyle(e).maskImage")
    assert stencil.startswith('url("data:image/png')


def test_class_filter_hides_cards_without_it(opened: Page) -> None:
    kept = opened.evaluate(
        "[...document.querySelectorAll('.card')]"
        ".filter(c => c.dataset.classes.split(' ').includes('3')).map(c => c.dataset.name)"
    )
    choose(opened, "class", "3")
    assert names(opened) == kept
    assert opened.locator(".count").text_content() == f"{len(kept)} of 8 images"


def test_theme_follows_the_system_and_the_button(opened: Page) -> None:
    def ground() -> str:
        return str(opened.evaluate("getComputedStyle(document.body).backgroundColor"))

    light, dark = "rgb(251, 250, 248)", "rgb(21, 23, 26)"
    opened.emulate_media(color_scheme="dark")
    assert ground() == dark
    opened.emulate_media(color_scheme="light")
    assert ground() == light
    button = opened.get_by_role("button", name="Theme")
    seen = []
    for _ in range(3):
        button.click()
        seen.append((str(button.text_content()), ground()))
    assert seen == [("Theme: light", light), ("Theme: dark", dark), ("Theme: system", light)]


def test_theme_is_kept(opened: Page) -> None:
    button = opened.get_by_role("button", name="Theme")
    button.click()
    button.click()
    opened.reload()
    assert button.text_content() == "Theme: dark"


def test_a_figure_takes_the_colours_of_the_theme(opened: Page) -> None:
    def ink() -> str:
        text = opened.locator("svg text").first
        return str(text.evaluate("e => getComputedStyle(e).fill"))

    opened.emulate_media(color_scheme="light")
    light = ink()
    opened.emulate_media(color_scheme="dark")
    assert ink() != light


@pytest.mark.parametrize("width", [420, 1280])
def test_the_page_is_as_wide_as_the_window(width: int, opened: Page) -> None:
    opened.set_viewport_size({"width": width, "height": 900})
    assert opened.evaluate("document.documentElement.scrollWidth") == width


def test_every_control_has_a_label(opened: Page) -> None:
    unnamed = opened.evaluate(
        "[...document.querySelectorAll('input, select')]"
        ".filter(e => !e.labels?.length && !e.getAttribute('aria-label')).length"
    )
    # The sliders get theirs when their card comes into view.
    unseen = opened.locator(".card:not([data-seen])").count()
    assert unnamed == unseen


def test_a_page_without_its_data_still_opens(
    browser_page: Page, fake_run: FakeRun, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(page_module, "draw", lambda *_: Drawing("", "", b"", "not drawn"))
    written = write_report([fake_run.run_dir], tmp_path / "page.html")
    browser_page.goto(written.page.as_uri())
    assert browser_page.locator(".notice li").count() == 1
    assert browser_page.locator("#c0-gallery .absent").is_visible()
