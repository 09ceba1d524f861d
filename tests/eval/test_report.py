"""The page and its figures: complete, self-contained, escaped, with the numbers of the counts."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from data.dataset import outline
from eval import tables
from eval.__main__ import main
from eval.metrics import Bootstrap, harm_rate, score_named
from eval.report import Report, write_report
from eval.report import page as page_module
from eval.report.figures import KINDS, Drawing
from eval.runs import comparisons, read_run
from runtime.run_folder import ARMS
from tests.eval.conftest import FinishedRun

UNCLOSED = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Its text, its tables cell by cell, what it refers to, and the data of its gallery.

    Its elements close in order.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.refers: list[str] = []
        self.pictures: dict[str, Any] = {}
        self._data = False
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.refers += [str(value) for name, value in attrs if name in ("src", "href")]
        self._data = ("class", "cards-data") in attrs
        if tag not in UNCLOSED:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert tag in UNCLOSED or self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"script", "style"} & set(self._open):
            self.pictures |= json.loads(data) if self._data else {}
            return
        self.text += f" {data.strip()}" if data.strip() else ""
        if {"td", "th"} & set(self._open):
            row = self.tables[-1][-1]
            row[-1] = f"{row[-1]} {data.strip()}".strip()

    def row(self, arm: str) -> dict[str, str]:
        """The cells of an arm by the titles of their columns, in the table of all scores."""
        table = next(table for table in self.tables if "mIoU" in table[0])
        cells = next(row for row in table if row[0] == arm)
        return dict(zip(table[0], cells, strict=True))


@pytest.fixture(scope="module")
def written(finished_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("report")
    return write_report([finished_run.run_dir], folder / "page.html", split=finished_run.split)


@pytest.fixture(scope="module")
def page(written: Report) -> Page:
    return Page(written.page.read_text(encoding="utf-8"))


@pytest.fixture
def quick_page(monkeypatch, tmp_path: Path, finished_run: FinishedRun) -> Any:
    """Writes a page without figures, and returns it with the sentences on what it lacks."""
    monkeypatch.setattr(page_module, "draw", lambda *_: Drawing("", reason="not drawn"))

    def write(*folders: Path, **options: Any) -> tuple[Page, tuple[str, ...]]:
        options = {"split": finished_run.split, **options}
        done = write_report(folders, tmp_path / "page.html", **options)
        page = Page(done.page.read_text(encoding="utf-8"))
        assert all(sentence in page.text for sentence in done.missing)
        return page, done.missing

    return write


def rewrite(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_page_is_whole_and_refers_to_nothing_outside(page, finished_run, written) -> None:
    assert written.missing == ()
    assert [place for place in page.refers if not place.startswith(("#", "data:"))] == []
    html = written.page.read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(['\"]?//", html)
    facts = [str(finished_run.results[key]) for key in ("command", "recipe", "commit", "started")]
    (comparison,) = comparisons([read_run(finished_run.run_dir)])
    sentences = (tables.headline(comparison), *tables.remarks(comparison))
    for words in (*facts, *finished_run.split.names, *sentences, "8 train"):
        assert words in page.text
    files = {path.name for path in written.figures}
    assert files == {f"{name}.{ending}" for name in KINDS for ending in ("svg", "png")}
    assert html.count("data:image/svg+xml") == len(KINDS)
    assert all(label in unescape(html) for _, label in KINDS.values())


@pytest.mark.parametrize("arm", ["start", "joint"])
def test_numbers_and_intervals_are_those_of_the_counts(arm, page, finished_run) -> None:
    counts = finished_run.counts(arm)
    for column, words, scale, digits, places in (
        ("mIoU", ("miou",), 100, 2, 1),
        ("1 px", ("trimap_miou", "1"), 100, 2, 1),
        ("NLL", ("nll",), 1, 3, 3),
    ):
        found = Bootstrap(len(counts[0])).interval(counts, score_named(*words))
        assert found is not None
        cell = page.row(arm)[column]
        assert cell.split()[0] == f"{scale * found.value:.{digits}f}"
        assert f"{scale * found.low:.{places}f} to {scale * found.high:.{places}f}" in cell
        assert ("±" in cell) == (arm != "start")


def test_the_difference_to_post_hoc_is_paired_and_harm_is_counted(page, finished_run) -> None:
    runs, base = finished_run.counts("joint"), finished_run.counts("post-hoc")
    found = Bootstrap(len(base[0])).difference(runs, base, score_named("miou"))
    assert found is not None
    value, low, high = (f"{100 * number:+.2f}".replace("-", "−") for number in found)
    cell = page.row("joint")["vs post-hoc"]
    assert value in cell
    assert f"{low} to {high}" in cell
    assert page.row("post-hoc")["vs post-hoc"] == tables.ABSENT
    pairs = zip(finished_run.counts("joint", "counts-report-before-crf"), runs, strict=True)
    rates = [harm_rate(before, after) or 0.0 for before, after in pairs]
    assert page.row("joint")["worse"].split()[0] == f"{50 * sum(rates):.1f}"
    assert page.row("unary")["worse"] == tables.ABSENT


def test_figures_say_the_numbers_of_the_run(written: Report, finished_run: FinishedRun) -> None:
    def says(name: str) -> str:
        root = ElementTree.parse(written.page.parent / "figures" / f"{name}.svg").getroot()
        return " ".join("".join(root.itertext()).split()).replace("−", "-")

    comparison = comparisons([read_run(finished_run.run_dir)])[0]
    for arm in ARMS:
        estimate = comparison.estimate(arm, "miou")
        assert estimate is not None
        assert tables.percent(estimate.spread) in says("ladder")
    runs = finished_run.counts("joint")
    ece = np.mean([score_named("ece")(counts, counts.all_once())[0] for counts in runs])
    assert f"ECE {100 * ece:.2f} %" in says("calibration")


def test_strings_are_escaped(run_copy: Path, quick_page: Any, tmp_path: Path) -> None:
    evil = "<script>alert('x')</script> & $title"
    rewrite(run_copy / "config.json", recipe=evil)
    rewrite(run_copy / "config.json", name=evil)
    (origin,) = json.loads((run_copy / "origin.json").read_text())
    origin |= {"command": evil, "machine": {evil: evil}, "versions": {evil: evil}}
    (run_copy / "origin.json").write_text(json.dumps([origin]))
    page, _ = quick_page(run_copy.rename(run_copy.with_name("a <b> & $name")))
    assert page.text.count(evil) >= 6
    assert "a <b> & $name" in page.text


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 - 3])  # within a line


@pytest.mark.parametrize(
    ("damage", "said"), [(Path.unlink, "no {}"), (cut_off, "{} is damaged")], ids=["lost", "cut"]
)
def test_a_run_that_lacks_files_has_a_page_that_says_so(damage, said, run_copy, quick_page) -> None:
    first, second = (run_copy / "arms" / f"joint-seed{seed}" for seed in (0, 1))
    results = [run_copy / "results.json", run_copy / "origin.json", second / "result.json"]
    names = ("counts-report.npz", "counts-report-before-crf.npz", "metrics.jsonl")
    for path in (*results, *(first / name for name in names)):
        damage(path)
    damage(run_copy / "predictions" / "unary-seed0" / "report-00000.png")
    page, missing = quick_page(run_copy)
    files = (*(path.name for path in results), *names)
    for words in (*map(said.format, files), "prediction file", "no run of joint for seed 1"):
        assert sum(words in sentence for sentence in missing) == 1, words
    assert all(re.match(r"\d+\.\d\d", page.row(arm)["mIoU"]) for arm in ARMS)
    assert page.row("joint")["mIoU"].count("±") == 0
    assert "unary" not in page.pictures["report-00000"]["layers"]
    damage(run_copy / "config.json")
    assert any(said.format("config.json") in sentence for sentence in quick_page(run_copy)[1])


def test_a_run_without_arms_or_counts_has_no_numbers_or_intervals(run_copy, quick_page) -> None:
    (run_copy / "config.json").write_text("[1, 2]")
    for path in [*run_copy.glob("arms/start-*/result.json"), *run_copy.glob("arms/*/counts-*")]:
        path.unlink()
    (run_copy / "arms" / "unary-seed1" / "result.json").write_text('{"arm": "unary"}')
    page, missing = quick_page(run_copy)
    assert set(page.row("start").values()) == {"start", tables.ABSENT}
    assert re.fullmatch(r"\d+\.\d\d ± \d+\.\d\d", page.row("joint")["mIoU"])
    for words in ("no counts-report.npz", "config.json holds no", "lacks seed"):
        assert sum(words in sentence for sentence in missing) == 1  # eight arms lack the same
    for path in run_copy.glob("arms/*/result.json"):
        path.unlink()
    empty = write_report([run_copy], run_copy / "page.html")
    assert empty.figures == ()
    assert "no result in this run" in empty.page.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"is no run folder: expected a config\.json or arms/"):
        quick_page(run_copy / "arms")


def test_seeds_of_one_recipe_are_one_comparison(run_copy, tmp_path, finished_run, quick_page):
    whole, _ = quick_page(finished_run.run_dir, num_images=0)
    parts = [tmp_path / "parts" / name for name in ("first", "second")]
    for part, other in zip(parts, (1, 0), strict=True):
        shutil.copytree(run_copy, part)
        for arm in part.glob(f"arms/*-seed{other}"):
            if arm.name != "start-seed0":
                shutil.rmtree(arm)
    page, _ = quick_page(*parts, num_images=0)
    assert page.row("joint")["mIoU"] == whole.row("joint")["mIoU"]
    rewrite(run_copy / "arms" / "joint-seed0" / "result.json", metrics={"report": {"miou": 0.1}})
    assert "also in run, with other scores" in quick_page(finished_run.run_dir, run_copy)[1][0]
    rewrite(run_copy / "config.json", fit={"steps": 7})
    page, _ = quick_page(finished_run.run_dir, run_copy, num_images=0)
    assert "2 comparisons" in page.text


def test_the_gallery_shows_most_gain_and_loss_of_joint_over_post_hoc(
    page, finished_run, quick_page
):
    post_hoc, joint = (
        {image["name"]: image["miou"] for image in run["metrics"]["report"]["images"]}
        for run in finished_run.results["runs"]
        if run["arm"] in ("post-hoc", "joint") and run["seed"] == 0
    )
    by_gain = sorted(joint, key=lambda name: post_hoc[name] - joint[name])
    assert list(page.pictures) == by_gain
    first, last = quick_page(finished_run.run_dir, num_images=2)[0].pictures
    assert (first, last) == (by_gain[0], by_gain[-1])


def test_layers_of_the_gallery_are_the_files(page: Page, finished_run: FinishedRun) -> None:
    name, layers = next((name, card["layers"]) for name, card in page.pictures.items())
    assert list(layers) == ["truth", *ARMS]
    with Image.open(finished_run.run_dir / "predictions" / "joint-seed0" / f"{name}.png") as file:
        ids = np.asarray(file)
    layer = Image.open(io.BytesIO(base64.b64decode(layers["joint"].partition(";base64,")[2])))
    inside = ~outline(ids) & (ids > 0)  # the background is clear
    colours = finished_run.split.palette[ids[inside]]
    assert np.array_equal(np.asarray(layer.convert("RGBA"))[inside][:, :3], colours)


def test_the_command_writes_where_it_says_and_says_what_lacks(run_copy, monkeypatch, capsys):
    monkeypatch.setattr(page_module, "draw", lambda *_: Drawing("", reason="not drawn"))
    for path in run_copy.rglob("*.pt"):
        path.unlink()
    rewrite(run_copy / "config.json", data={"root": "moved"})
    main(["report", str(run_copy)])
    assert (run_copy / "report.html").is_file()
    assert "no images, so no gallery" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit, match=r"^error: no run folder at absent"):
        main(["report", "absent"])
    with pytest.raises(SystemExit):
        main(["report", "x", "--gallery", "-1"])
    assert "at least 0" in " ".join(capsys.readouterr().err.split())
