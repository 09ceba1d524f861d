"""The page: complete, self-contained, escaped, with the numbers of the counts."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from eval.__main__ import main
from eval.arms import ARMS
from eval.metrics import Bootstrap, SplitCounts, harm_rate, score_named
from eval.report import Report, write_report
from eval.report import page as page_module
from eval.report.figures import KINDS, Drawing
from tests.eval.conftest import FakeRun, make_run

VOID_TAGS = {"meta", "img", "br", "link", "input"}


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


@pytest.fixture(scope="module")
def written(fake_run: FakeRun, tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("report")
    return write_report([fake_run.run_dir], folder / "page.html", split=fake_run.split)


@pytest.fixture(scope="module")
def page(written: Report) -> str:
    return written.page.read_text(encoding="utf-8")


@pytest.fixture
def quick_page(monkeypatch, tmp_path: Path, fake_run: FakeRun) -> Any:
    """Writes a page without figures, which test_figures.py is about."""
    monkeypatch.setattr(page_module, "draw", lambda *_: Drawing("", "", b"", "not drawn"))

    def write(*folders: Path, **options: Any) -> str:
        target = tmp_path / "page.html"
        written = write_report(folders, target, split=fake_run.split, **options)
        return written.page.read_text(encoding="utf-8")

    return write


def rewrite(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def table_of(page: str) -> dict[str, dict[str, str]]:
    """The table of the arms: arm -> column -> HTML of the cell."""
    table = re.search(r'<table class="arms-table">(.*?)</table>', page, re.DOTALL)
    assert table
    head = re.findall(r'<th scope="col">(.*?)</th>', table[1])[1:]
    rows = re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', table[1])
    return {
        arm: dict(zip(head, re.findall(r"<td>(.*?)</td>", cells), strict=True))
        for arm, cells in rows
    }


def test_page_is_balanced_html(page: str) -> None:
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    assert {"table", "svg", "img", "details", "script", "nav"} <= balance.tags


def test_page_refers_to_nothing_outside(page: str) -> None:
    outside = re.sub(r'xmlns="http://www.w3.org/2000/svg"', "", page)
    assert not re.search(r"https?://|@import|<link", outside)
    assert not re.search(r"url\((?!#|\"\$\{source\})", outside)
    assert "src=" not in outside.replace("element.src", "").replace("image.src", "")


def test_page_follows_light_and_dark(page: str) -> None:
    assert "color-scheme: light dark;" in page
    assert "light-dark(" in page


def test_style_sheet_and_figures_agree_on_the_light_theme() -> None:
    from eval.report.figures.canvas import COLOURS

    style = (page_module.FOLDER / "style.css").read_text()
    light = dict(re.findall(r"--([\w-]+): light-dark\((#\w{6}),", style))
    assert {role: light[role] for role in COLOURS} == COLOURS


def test_page_holds_every_arm_and_fact(page: str, fake_run: FakeRun, written: Report) -> None:
    assert list(table_of(page)) == list(ARMS)
    for key in ("command", "recipe", "commit", "started"):
        assert str(fake_run.results[key]) in page
    for words in ("400 train, 20 tune, 8 report", "a processor", "7:03 min", "2.15.0"):
        assert words in page
    assert written.missing == ()
    assert "Missing from this report" not in page
    assert "num_iterations" in page
    assert page.count("<article ") == len(fake_run.split)


def test_every_figure_is_in_the_page_and_in_two_files(page: str, written: Report) -> None:
    for name, kind in KINDS.items():
        assert page.count(f'aria-label="{kind.label}"') == 1, name
    assert len(written.figures) == 2 * len(KINDS)
    assert {path.parent for path in written.figures} == {written.page.parent / "figures"}
    assert all(path.stat().st_size > 1000 for path in written.figures)


SCORES = {
    "mIoU": ("miou", None, 100),
    "1 px": ("trimap_miou", "1", 100),
    "10 px": ("trimap_miou", "10", 100),
    "Boundary IoU": ("boundary_iou", None, 100),
    "Boundary F": ("boundary_f", None, 100),
    "NLL": ("nll", None, 1),
    "ECE": ("ece", None, 100),
}


@pytest.mark.parametrize("column", SCORES)
@pytest.mark.parametrize("arm", ["unary", "joint"])
def test_numbers_and_intervals_are_those_of_the_counts(
    arm: str, column: str, page: str, fake_run: FakeRun
) -> None:
    name, within, scale = SCORES[column]
    paths = [fake_run.run_dir / "arms" / f"{arm}-seed{seed}" for seed in (0, 1)]
    counts = [SplitCounts.load(path / "counts-report.npz") for path in paths]
    found = Bootstrap(len(counts[0])).interval(counts, score_named(name, within))
    assert found is not None
    digits = 3 if column == "NLL" else 2
    cell = table_of(page)[arm][column]
    assert cell.startswith(f"<b>{scale * found.value:.{digits}f}</b> <small>± ")
    places = 3 if column == "NLL" else 1
    ends = f"{scale * found.low:.{places}f} to {scale * found.high:.{places}f}"
    assert f'<span class="interval">{ends}</span>' in cell


def test_difference_to_post_hoc_is_paired_and_marked(page: str, fake_run: FakeRun) -> None:
    def counts(arm: str) -> list[SplitCounts]:
        folders = [fake_run.run_dir / "arms" / f"{arm}-seed{seed}" for seed in (0, 1)]
        return [SplitCounts.load(folder / "counts-report.npz") for folder in folders]

    cells = {arm: row["vs post-hoc"] for arm, row in table_of(page).items()}
    for arm in ("unary", "joint"):
        found = Bootstrap(8).difference(counts(arm), counts("post-hoc"), score_named("miou"))
        assert found is not None
        assert f"<b>{100 * found.value:+.2f}</b>".replace("-", "−") in cells[arm]
        ends = f"{100 * found.low:+.2f} to {100 * found.high:+.2f}".replace("-", "−")
        assert f'<span class="interval">{ends}</span>' in cells[arm]
        arrow = "" if not found.excludes_zero else "▲" if found.value > 0 else "▼"
        assert (arrow in cells[arm]) == found.excludes_zero
    assert "▲" in cells["joint"]
    assert "▼" in cells["unary"]
    assert cells["post-hoc"] == "–"


def test_harm_rate_is_that_of_the_counts(page: str, fake_run: FakeRun) -> None:
    rates = []
    for seed in (0, 1):
        folder = fake_run.run_dir / "arms" / f"joint-seed{seed}"
        before, after = (
            SplitCounts.load(folder / f"counts-report{end}.npz") for end in ("-before-crf", "")
        )
        rates.append(harm_rate(before, after) or 0.0)
    cells = {arm: row["worse"] for arm, row in table_of(page).items()}
    assert cells["joint"].startswith(f"<b>{50 * sum(rates):.1f}</b>")
    assert cells["unary"] == "–"


def test_page_says_what_the_interval_is_of(page: str) -> None:
    assert "It is of the images" in page
    assert "It is not of training" in page


def test_headline_when_joint_wins(page: str) -> None:
    assert re.search(
        r"<h1>Joint training reached [\d.]+ % mIoU, [\d.]+ points above the post-hoc", page
    )


def test_headline_when_joint_loses(run_copy: Path, quick_page: Any) -> None:
    for seed in (0, 1):
        joint, unary = (run_copy / "arms" / f"{arm}-seed{seed}" for arm in ("joint", "unary"))
        metrics = json.loads((unary / "result.json").read_text())["metrics"]
        rewrite(joint / "result.json", metrics=metrics)
    page = quick_page(run_copy)
    assert re.search(
        r"<h1>Joint training reached [\d.]+ % mIoU, [\d.]+ points below the post-hoc", page
    )
    assert "does not hold: joint is not above post-hoc." in page


def test_strings_are_escaped(run_copy: Path, quick_page: Any) -> None:
    evil = "<script>alert('x')</script> & $title"
    rewrite(run_copy / "results.json", recipe=evil)
    rewrite(run_copy / "config.json", name=evil)
    origin = json.loads((run_copy / "origin.json").read_text())[0]
    changed = {**origin, "command": evil, "machine": {evil: evil}, "versions": {evil: evil}}
    (run_copy / "origin.json").write_text(json.dumps([changed]))
    page = quick_page(run_copy.rename(run_copy.with_name("a <b> & $name")))
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; $title") >= 6
    assert "a &lt;b&gt; &amp; $name" in page


@pytest.mark.parametrize("arm", ARMS)
def test_missing_arm_is_said(arm: str, run_copy: Path, quick_page: Any) -> None:
    for path in run_copy.glob(f"arms/{arm}-seed*/result.json"):
        path.unlink()
    page = quick_page(run_copy)
    assert f"demo: no run of {arm} for seed 0, 1. `train compare` with the same options" in page
    assert set(table_of(page)[arm].values()) == {"–"}


@pytest.mark.parametrize(("rule", "words"), [("void", "dilated void"), ("edge", "between labels")])
def test_band_rule_is_said(rule: str, words: str, run_copy: Path, quick_page: Any) -> None:
    for path in run_copy.glob("arms/*/result.json"):
        metrics = json.loads(path.read_text())["metrics"]
        rewrite(path, metrics={"report": {**metrics["report"], "trimap_band": rule}})
    assert words in quick_page(run_copy)


def test_without_counts_numbers_are_shown_without_intervals(
    run_copy: Path, quick_page: Any
) -> None:
    for path in run_copy.glob("arms/*/counts-*.npz"):
        path.unlink()
    page = quick_page(run_copy)
    row = table_of(page)["joint"]
    assert re.fullmatch(r"<b>\d\d\.\d\d</b> <small>± \d+\.\d\d</small>", row["mIoU"])
    # Nine arms lack the same: one line.
    assert page.count("no counts-report.npz") == 1


def test_other_recipes_are_further_comparisons(
    run_copy: Path, fake_run: FakeRun, quick_page: Any
) -> None:
    rewrite(run_copy / "config.json", fit={"steps": 7})
    page = quick_page(fake_run.run_dir, run_copy.rename(run_copy.with_name("longer")))
    assert "<h1>2 comparisons</h1>" in page
    assert page.index('id="overview"') < page.index('id="c0"') < page.index('id="c1"')
    for number, name in enumerate(("demo", "longer")):
        assert f'<a href="#c{number}">{name}</a>' in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_more_seeds_of_a_recipe_are_the_same_comparison(
    tmp_path: Path, fake_run: FakeRun, quick_page: Any
) -> None:
    more = make_run(tmp_path / "more", fake_run.split, seeds=(2,))
    page = quick_page(fake_run.run_dir, more.run_dir)
    assert "comparisons</h1>" not in page
    assert "a comparison: demo, more" in page
    assert "<dd>0, 1, 2</dd>" in page


def test_number_of_images_is_kept(fake_run: FakeRun, quick_page: Any) -> None:
    page = quick_page(fake_run.run_dir, num_images=4)
    assert page.count("<article ") == 4
    assert "4 of 8 images (the best, the worst and evenly between)" in page


def test_the_command_writes_where_it_says_and_says_what_lacks(
    run_copy: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(page_module, "draw", lambda *_: Drawing("", "", b"", "not drawn"))
    main(["report", str(run_copy)])
    assert (run_copy / "report.html").is_file()
    printed = " ".join(capsys.readouterr().out.split())
    assert "no images, so no gallery" in printed
    main(["report", str(run_copy), "--out", str(run_copy / "there" / "x.html"), "--gallery", "2"])
    assert (run_copy / "there" / "x.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "no run folder at absent"),
        (["tests"], r"tests is no run folder: expected a config\.json or arms/"),
    ],
)
def test_a_wrong_folder_ends_with_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=f"^error: {message}"):
        main(["report", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no run folder given"),
        (["tests", "--gallery", "-1"], "--gallery is at least 0, got -1"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], message: str, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["report", *arguments])
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_report_of_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one run folder, got none"):
        write_report([], tmp_path / "page.html")
