"""The page in a real browser: it opens, answers, and asks nobody else for anything."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.eval.plain_networks import tiny_checkpoint, write_photograph

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A process that serves the page, by the file in which it says where; see `explore_child`."""
    log = tmp_path_factory.mktemp("explorer") / "addresses.txt"
    command = [sys.executable, "-m", "tests.full.eval.explore_child", str(log)]
    with subprocess.Popen(command, cwd=REPOSITORY) as child:
        try:
            until = time.monotonic() + 120  # imports, on a busy machine
            while not log.is_file():
                assert child.poll() is None, "the explorer ended before it served"
                assert time.monotonic() < until, "the explorer does not serve"
                time.sleep(0.1)
            yield log
        finally:
            child.kill()


@pytest.fixture
def opened(server: Path, browser_page: Any) -> Iterator[Any]:
    """The page, open in a browser; the server has talked to nobody else, either."""
    browser_page.goto(server.read_text().splitlines()[0])
    browser_page.wait_for_selector("#main img")
    yield browser_page
    assert set(server.read_text().splitlines()[1:]) <= {"127.0.0.1", "::1"}


def test_the_page_answers_a_slider(opened: Any) -> None:
    def state() -> tuple[str, str, str]:
        image = opened.locator("#main img").last.get_attribute("src")
        return image, opened.locator("#legend").inner_text(), opened.locator("#energy").inner_html()

    assert "theta_beta=20," in opened.locator("#python").inner_text()
    assert "--crf.theta-beta 20" in opened.locator("#commands").inner_text()
    before = state()
    opened.locator("#theta_beta input[type=range]").fill("1.5")
    opened.wait_for_function(
        "document.querySelector('#python').innerText.includes('theta_beta=1.5')"
    )
    opened.wait_for_function(
        "old => document.querySelector('#energy').innerHTML !== old", arg=before[2]
    )
    after = state()
    assert all(old != new for old, new in zip(before, after, strict=True))
    assert "kernels built" in opened.locator("#facts").inner_text()

    # Weights alone: the kernels serve again.
    opened.locator("#bilateral_weight input[type=range]").fill("9")
    opened.wait_for_selector("text=kernels reused")

    # Zero has no meaning as a width, and the page says so.
    opened.locator("#theta_alpha input[type=range]").fill("0")
    opened.wait_for_selector("#facts :text('theta_alpha must be')")
    opened.locator("#theta_alpha input[type=range]").fill("30")
    opened.wait_for_selector("#facts :text('kernels built')")


def test_a_port_that_is_taken_ends_with_one_line(server: Path, tmp_path: Path) -> None:
    port = server.read_text().splitlines()[0].strip("/").rpartition(":")[2]
    checkpoint = tiny_checkpoint(tmp_path / "tiny.pt")
    write_photograph(tmp_path / "a.png", 33, 33)
    command = [sys.executable, "-m", "eval", "explore", str(checkpoint), str(tmp_path / "a.png")]
    ended = subprocess.run(
        [*command, "--port", port], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines()[-1] == (
        f"error: the page cannot be served at 127.0.0.1, port {port}: pass a --port that is free, "
        "and a --host of this machine."
    )
