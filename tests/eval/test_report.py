"""The page: complete, self-contained, escaped, with the numbers of the counts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from eval import wording
from eval.__main__ import main
from eval.metrics import Bootstrap, SplitCounts, harm_rate, score_named
from eval.report import Report, write_report
from eval.report import page as page_module
from eval.report.figures import KINDS, Drawing
from runtime.run_folder import ARMS
from tests.eval.fake_run import FakeRun, make_run
from tests.eval.page_reader import Page


@pytest.fixture(scope="module")
def written(fake_run: FakeRun, tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("report")
    return write_report([fake_run.run_dir], folder / "page.html", split=fake_run.split)


@pytest.fixture(scope="module")
def page(written: Report) -> Page:
    return Page(written.page.read_text(encoding="utf-8"))


@pytest.fixture
def quick_page(monkeypatch, tmp_path: Path, fake_run: FakeRun) -> Any:
    """Writes a page without figures, and returns it with the sentences on what it lacks."""
    monkeypatch.setattr(page_module, "draw", lambda *_: Drawing("", "", b"", "not drawn"))

    def write(*folders: Path, **options: Any) -> tuple[Page, tuple[str, ...]]:
        options = {"split": fake_run.split, **options}
        done = write_report(folders, tmp_path / "page.html", **options)
        page = Page(done.page.read_text(encoding="utf-8"))
        assert all(sentence in page.text for sentence in done.missing)
        return page, done.missing

    return write


def rewrite(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def counts_of(run: FakeRun, arm: str, name: str = "counts-report") -> list[SplitCounts]:
    folders = sorted(run.run_dir.glob(f"arms/{arm}-seed*"))
    return [SplitCounts.load(folder / f"{name}.npz") for folder in folders]


def test_the_page_refers_to_nothing_outside(page: Page, written: Report) -> None:
    assert [place for place in page.refers if not place.startswith(("#", "data:"))] == []
    html = written.page.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|@import|url\(['\"]?//", html)


def test_the_page_names_every_arm_and_image_and_what_made_them(
    page: Page, fake_run: FakeRun, written: Report
) -> None:
    assert written.missing == ()
    assert all(page.row(arm)["mIoU"] for arm in ARMS)
    facts = [str(fake_run.results[key]) for key in ("command", "recipe", "commit", "started")]
    for words in (*facts, *fake_run.split.names, "400 train", "a processor", "2.15.0", "7:03 min"):
        assert words in page.text


def test_every_figure_is_in_the_page_and_in_two_files(page: Page, written: Report) -> None:
    assert {path.name for path in written.figures} == {
        f"{name}.{ending}" for name in KINDS for ending in ("svg", "png")
    }
    for path in written.figures:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
        else:
            with Image.open(path) as image:
                assert image.width > 900
    html = written.page.read_text(encoding="utf-8")
    assert html.count("<svg") >= len(KINDS)
    assert all(kind.label in html for kind in KINDS.values())


SCORES = {
    "mIoU": ("miou", None, 100),
    "1 px": ("trimap_miou", "1", 100),
    "10 px": ("trimap_miou", "10", 100),
    "Boundary IoU": ("boundary_iou", None, 100),
    "Boundary F": ("boundary_f", None, 100),
    "NLL": ("nll", None, 1),
    "ECE": ("ece", None, 100),
}


@pytest.mark.parametrize("arm", ["start", "unary", "joint"])
def test_numbers_and_intervals_are_those_of_the_counts(
    arm: str, page: Page, fake_run: FakeRun
) -> None:
    counts = counts_of(fake_run, arm)
    for column, (name, within, scale) in SCORES.items():
        found = Bootstrap(len(counts[0])).interval(counts, score_named(name, within))
        assert found is not None
        digits, places = (3, 3) if column == "NLL" else (2, 1)
        cell = page.row(arm)[column]
        assert cell.split()[0] == f"{scale * found.value:.{digits}f}"
        assert f"{scale * found.low:.{places}f} to {scale * found.high:.{places}f}" in cell
        assert ("±" in cell) == (arm != "start")


def test_the_difference_to_post_hoc_is_paired_and_marked(page: Page, fake_run: FakeRun) -> None:
    base = counts_of(fake_run, "post-hoc")
    for arm, mark in (("unary", "▼"), ("joint", "▲")):
        found = Bootstrap(8).difference(counts_of(fake_run, arm), base, score_named("miou"))
        assert found is not None
        assert found.excludes_zero
        value, low, high = (f"{100 * number:+.2f}".replace("-", "−") for number in found)
        cell = page.row(arm)["vs post-hoc"]
        assert cell.startswith(f"{mark} {value}")
        assert f"{low} to {high}" in cell
    assert page.row("post-hoc")["vs post-hoc"] == wording.ABSENT


def test_the_harm_rate_is_that_of_the_counts(page: Page, fake_run: FakeRun) -> None:
    pairs = zip(
        counts_of(fake_run, "joint", "counts-report-before-crf"),
        counts_of(fake_run, "joint"),
        strict=True,
    )
    rates = [harm_rate(before, after) or 0.0 for before, after in pairs]
    assert page.row("joint")["worse"].split()[0] == f"{50 * sum(rates):.1f}"
    assert page.row("unary")["worse"] == wording.ABSENT


def test_the_headline_is_that_of_the_results(
    page: Page, fake_run: FakeRun, run_copy: Path, quick_page: Any
) -> None:
    runs = fake_run.results["runs"]
    joint, post_hoc = (
        [run["metrics"]["report"]["miou"] for run in runs if run["arm"] == arm]
        for arm in ("joint", "post-hoc")
    )
    gain = 50 * (sum(joint) - sum(post_hoc))
    assert gain > 0
    assert f"reached {50 * sum(joint):.2f} % mIoU, {gain:.2f} points above" in page.text
    for seed in (0, 1):
        unary = json.loads((run_copy / "arms" / f"unary-seed{seed}" / "result.json").read_text())
        joined = run_copy / "arms" / f"joint-seed{seed}" / "result.json"
        rewrite(joined, metrics=unary["metrics"])
    worse, _ = quick_page(run_copy)
    assert "points below the post-hoc CRF" in worse.text
    assert "does not hold: joint is not above post-hoc" in worse.text


def test_strings_are_escaped(run_copy: Path, quick_page: Any) -> None:
    evil = "<script>alert('x')</script> & $title"
    rewrite(run_copy / "results.json", recipe=evil)
    rewrite(run_copy / "config.json", name=evil)
    origin = json.loads((run_copy / "origin.json").read_text())[0]
    changed = {**origin, "command": evil, "machine": {evil: evil}, "versions": {evil: evil}}
    (run_copy / "origin.json").write_text(json.dumps([changed]))
    page, _ = quick_page(run_copy.rename(run_copy.with_name("a <b> & $name")))
    assert page.text.count(evil) >= 6
    assert "a <b> & $name" in page.text


@pytest.mark.parametrize("arm", ["start", "joint"])
def test_a_missing_arm_is_said(arm: str, run_copy: Path, quick_page: Any) -> None:
    for path in run_copy.glob(f"arms/{arm}-seed*/result.json"):
        path.unlink()
    page, missing = quick_page(run_copy)
    assert any(f"no run of {arm} for seed 0, 1" in sentence for sentence in missing)
    assert set(page.row(arm).values()) == {arm, wording.ABSENT}


def test_without_counts_numbers_have_no_intervals(run_copy: Path, quick_page: Any) -> None:
    for path in run_copy.glob("arms/*/counts-*.npz"):
        path.unlink()
    page, missing = quick_page(run_copy)
    assert re.fullmatch(r"\d\d\.\d\d ± \d+\.\d\d", page.row("joint")["mIoU"])
    # Nine arms lack the same: one line.
    assert sum("no counts-report.npz" in sentence for sentence in missing) == 1


def test_a_run_with_every_kind_of_damage_has_a_page(run_copy: Path, quick_page: Any) -> None:
    (run_copy / "results.json").unlink()  # as of a run that goes on
    (run_copy / "origin.json").write_text("[")
    (run_copy / "arms" / "joint-seed1" / "result.json").write_text('{"arm"')
    for name in ("counts-report.npz", "counts-report-before-crf.npz", "metrics.jsonl"):
        (run_copy / "arms" / "joint-seed0" / name).write_bytes(b"no such file")
    (run_copy / "predictions" / "unary-seed0" / "scene-000.png").write_bytes(b"no picture")
    page, missing = quick_page(run_copy)
    for words in (
        "no results.json. The run is not finished", "origin.json is damaged",
        "result.json is damaged", "counts-report.npz is damaged", "before-crf.npz is damaged",
        "metrics.jsonl is damaged", "prediction file is damaged", "no run of joint for seed 1",
    ):  # fmt: skip
        assert sum(words in sentence for sentence in missing) == 1, words
    assert all(re.match(r"\d\d\.\d\d", page.row(arm)["mIoU"]) for arm in ARMS)


def test_a_folder_without_any_arm_has_a_page(run_copy: Path, fake_run: FakeRun) -> None:
    for path in (*run_copy.glob("arms/*/result.json"), run_copy / "results.json"):
        path.unlink()
    written = write_report([run_copy], run_copy / "page.html", split=fake_run.split)
    assert written.figures == ()
    page = Page(written.page.read_text(encoding="utf-8"))
    for words in ("no result in this run", "needs two arms of one seed", "No run has a CRF"):
        assert words in page.text


def test_other_recipes_are_further_comparisons_and_other_seeds_are_not(
    run_copy: Path, tmp_path: Path, fake_run: FakeRun, quick_page: Any
) -> None:
    rewrite(run_copy / "config.json", fit={"steps": 7})
    longer = run_copy.rename(run_copy.with_name("longer"))
    page, _ = quick_page(fake_run.run_dir, longer, num_images=0)
    assert "2 comparisons" in page.text
    assert {"#c0", "#c1"} <= set(page.refers)
    more = make_run(tmp_path / "more", fake_run.split, seeds=(2,))
    page, _ = quick_page(fake_run.run_dir, more.run_dir, num_images=4)
    assert "demo, more" in page.text
    assert "0, 1, 2" in page.text
    assert sum(name in page.text for name in fake_run.split.names) == 4


def test_the_command_writes_where_it_says_and_says_what_lacks(
    run_copy: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(page_module, "draw", lambda *_: Drawing("", "", b"", "not drawn"))
    main(["report", str(run_copy)])
    assert (run_copy / "report.html").is_file()
    assert "no images, so no gallery" in " ".join(capsys.readouterr().out.split())
    main(["report", str(run_copy), "--out", str(run_copy / "there" / "x.html"), "--gallery", "2"])
    assert (run_copy / "there" / "x.html").is_file()
    for wrong, words in (([], "no run folder given"), (["x", "--gallery", "-1"], "at least 0")):
        with pytest.raises(SystemExit):
            main(["report", *wrong])
        assert words in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit, match=r"^error: no run folder at absent"):
        main(["report", "absent"])
    with pytest.raises(ValueError, match="at least one run folder"):
        write_report([], run_copy / "page.html")
