"""The page: complete, self-contained, escaped, and alive when runs or files are missing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from eval.arms import ARMS
from eval.report import write_report

VOID_TAGS = {"meta", "img", "br", "link"}


class Balance(HTMLParser):
    """Collects tags and refuses a page whose elements do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(run: Any, results: dict[str, Any] | None = None, run_dir: Path | None = None) -> str:
    path = write_report(run_dir or run.run_dir, results or run.results, run.split)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(fake_run: Any) -> str:
    return page_of(fake_run)


def test_page_is_in_the_run_folder(fake_run: Any) -> None:
    path = write_report(fake_run.run_dir, fake_run.results, fake_run.split)
    assert path == fake_run.run_dir / "report.html"
    assert path.is_file()


def test_page_is_balanced_html(page: str) -> None:
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    assert {"table", "svg", "img", "details"} <= balance.tags
    assert "script" not in balance.tags


def test_page_refers_to_nothing_outside(page: str) -> None:
    assert not re.search(r"https?://|@import|url\(|<link|<script", page)
    assert all(source.startswith("data:image/webp") for source in re.findall(r'src="(.{20})', page))


def test_page_follows_light_and_dark(page: str) -> None:
    assert "prefers-color-scheme: dark" in page


def test_page_holds_every_arm_and_fact(page: str, fake_run: Any) -> None:
    for arm in ARMS:
        assert f'<tr class="arm-{arm}"><th>{arm}</th>' in page
    for key in ("command", "recipe", "commit", "started"):
        assert str(fake_run.results[key]) in page
    assert "Missing from this run" not in page
    assert "num_iterations" in page
    assert "2.15.0" in page


def test_page_shows_nine_images_at_most(page: str, fake_run: Any) -> None:
    panels = page.count('<figure class="panel">')
    assert panels == len(fake_run.split)
    # Five pictures, each whole and enlarged.
    assert page.count("<img ") == 10 * panels


def test_headline_when_joint_wins(page: str) -> None:
    assert re.search(
        r"<h1>Joint training reached [\d.]+ % mIoU, [\d.]+ points above the post-hoc", page
    )


def test_headline_when_joint_loses(fake_run: Any, tmp_path: Path) -> None:
    page = page_of(fake_run, fake_run.swapped("joint", "unary"), tmp_path)
    assert re.search(
        r"<h1>Joint training reached [\d.]+ % mIoU, [\d.]+ points below the post-hoc", page
    )
    assert "does not hold: post-hoc is not above unary, joint is not above post-hoc." in page


def test_strings_are_escaped(fake_run: Any, tmp_path: Path) -> None:
    evil = "<script>alert('x')</script> & $title"
    results = {
        **fake_run.results,
        "name": evil,
        "recipe": evil,
        "command": evil,
        "machine": {evil: evil},
        "versions": {evil: evil},
        "config": {evil: evil},
    }
    page = page_of(fake_run, results, tmp_path)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; $title") >= 6


@pytest.mark.parametrize("arm", ARMS)
def test_missing_arm_is_said(arm: str, fake_run: Any, tmp_path: Path) -> None:
    page = page_of(fake_run, fake_run.without(arm), tmp_path)
    seeds = "0, 1"
    assert f"No run of {arm} for seed {seeds}." in page


def test_no_run_at_all_still_gives_a_page(fake_run: Any, tmp_path: Path) -> None:
    page = page_of(fake_run, {**fake_run.results, "runs": []}, tmp_path)
    assert "Joint training has no result in this run" in page
    assert "Panels need a joint and a post-hoc run" in page
    assert "No run has a CRF." in page


def test_missing_predictions_are_said(fake_run: Any, tmp_path: Path) -> None:
    page = page_of(fake_run, run_dir=tmp_path)
    sentences = re.findall(r"<li>No prediction file of joint, seed 0, for (.*?)\.</li>", page)
    assert len(sentences) == 1
    assert sorted(sentences[0].split(", ")) == sorted(fake_run.split.names)
    assert "no prediction file" in page


@pytest.mark.parametrize(("rule", "words"), [("void", "dilated void"), ("edge", "between labels")])
def test_band_rule_is_said(rule: str, words: str, fake_run: Any, tmp_path: Path) -> None:
    runs = []
    for run in fake_run.results["runs"]:
        report = {**run["metrics"]["report"], "trimap_band": rule}
        runs.append({**run, "metrics": {"report": report}})
    assert words in page_of(fake_run, {**fake_run.results, "runs": runs}, tmp_path)


def test_start_of_the_weights_is_named(page: str, fake_run: Any, tmp_path: Path) -> None:
    assert "change from post-hoc" in page
    runs = [
        {**run, "crf_start": run["crf"]} if run["arm"] == "joint" else run
        for run in fake_run.results["runs"]
    ]
    assert "same as its start" in page_of(fake_run, {**fake_run.results, "runs": runs}, tmp_path)
    assert "change from zero" in page_of(fake_run, fake_run.without("post-hoc"), tmp_path)
