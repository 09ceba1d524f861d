"""A run folder in any state: every file absent or cut off in turn, said and survived."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.report import page as page_module
from eval.report import write_report
from eval.report.comparison import comparisons
from eval.report.figures import Drawing
from eval.report.reading import read_run
from tests.eval.conftest import FakeRun

FILES = {
    "config.json": ("no config.json", "config.json is damaged"),
    "origin.json": ("no origin.json", "origin.json is damaged"),
    "results.json": ("no results.json", "results.json is damaged"),
    "arms/joint-seed0/result.json": ("no result.json", "result.json is damaged"),
    "arms/joint-seed0/metrics.jsonl": ("no metrics.jsonl", "metrics.jsonl is damaged in line 31"),
    "arms/joint-seed0/counts-report.npz": (
        "no counts-report.npz: no intervals",
        "counts-report.npz is damaged: no intervals",
    ),
    "arms/joint-seed0/counts-report-before-crf.npz": (
        "no counts-report-before-crf.npz: no harm rate",
        "counts-report-before-crf.npz is damaged: no harm rate",
    ),
    "predictions/joint-seed0/scene-000.png": (
        "no prediction file: scene-000",
        "the prediction file is damaged: scene-000",
    ),
}
"""What is said without a file, and of one that ends early."""


@pytest.fixture
def without_figures(monkeypatch) -> None:
    """The page at once: what figures draw is tested in test_figures.py."""
    monkeypatch.setattr(page_module, "draw", lambda *_: Drawing("", "", b"", "not drawn"))


def remove(path: Path) -> None:
    path.unlink()


def cut_off(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - max(3, len(whole) // 4)] if path.suffix != ".jsonl"
                     else whole[:-20])  # fmt: skip


@pytest.mark.parametrize(("index", "damage"), [(0, remove), (1, cut_off)])
@pytest.mark.parametrize("name", FILES)
def test_a_lost_file_is_one_line_and_the_rest_is_shown(
    name: str,
    index: int,
    damage: Callable[[Path], None],
    run_copy: Path,
    fake_run: FakeRun,
    without_figures: None,
) -> None:
    damage(run_copy / name)
    written = write_report([run_copy], run_copy / "page.html", split=fake_run.split)
    lines = [line for line in written.missing if FILES[name][index] in line]
    assert len(lines) == 1
    assert lines[0].startswith("demo (joint-seed0): " if "joint" in name else "demo: ")
    page = written.page.read_text(encoding="utf-8")
    assert "Missing from this report" in page
    for arm in ("unary", "post-hoc", "joint"):
        assert f'<tr class="arm-{arm}"><th scope="row">{arm}</th>' in page
    assert page.count("<article ") == len(fake_run.split)


def test_nothing_is_said_of_a_whole_run(fake_run: FakeRun) -> None:
    record = read_run(fake_run.run_dir)
    assert record.lacks == ()
    assert record.recipe == "collage"
    assert record.seeds == (0, 1)
    assert [run.name for run in record.runs][:3] == ["start-seed0", "unary-seed0", "unary-seed1"]
    assert all(run.counts is not None for run in record.runs)


def test_a_run_that_goes_on_has_a_report(
    run_copy: Path, fake_run: FakeRun, without_figures: None
) -> None:
    (run_copy / "results.json").unlink()
    (run_copy / "arms" / "joint-seed1" / "result.json").unlink()
    written = write_report([run_copy], run_copy / "page.html", split=fake_run.split)
    assert any(
        line.startswith("demo: no results.json. The run is not finished")
        for line in written.missing
    )
    assert any("demo: no run of joint for seed 1." in line for line in written.missing)
    record = read_run(run_copy)
    assert record.recipe == "collage"  # of the command
    assert record.classes == fake_run.split.classes  # of the counts


def test_a_folder_without_any_arm_has_a_page(run_copy: Path, without_figures: None) -> None:
    for path in (*run_copy.glob("arms/*/result.json"), run_copy / "results.json"):
        path.unlink()
    written = write_report([run_copy], run_copy / "page.html")
    page = written.page.read_text(encoding="utf-8")
    assert "Joint training has no result in this run" in page
    assert "The gallery needs two arms of one seed." in page
    assert "No run has a CRF." in page


def test_other_json_than_ours_is_said(run_copy: Path) -> None:
    (run_copy / "config.json").write_text("[1, 2]")
    (run_copy / "origin.json").write_text('[{"command": "python -m train"}]')
    (run_copy / "arms" / "unary-seed0" / "result.json").write_text('{"arm": "unary"}')
    said = [lack.what for lack in read_run(run_copy).lacks]
    assert said[:2] == [
        "config.json holds no names and values",
        "origin.json lacks what made the run",
    ]
    assert said[2].startswith("result.json lacks seed, network_steps, ")


def test_counts_of_other_images_than_before_the_crf_are_said(run_copy: Path) -> None:
    folder = run_copy / "arms" / "joint-seed0"
    run = next(run for run in read_run(run_copy).runs if run.name == "joint-seed0")
    assert run.before is not None
    run.before.of(run.before.names[1:]).save(folder / "counts-report-before-crf.npz")
    assert "is of other images" in read_run(run_copy).lacks[0].what


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no run folder at .*absent"):
        read_run(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"is no run folder: expected a config\.json or arms/"):
        read_run(tmp_path)


def test_seeds_of_one_recipe_are_one_comparison(run_copy: Path, fake_run: FakeRun) -> None:
    config = json.loads((run_copy / "config.json").read_text())
    first = read_run(fake_run.run_dir)

    def together(changed: dict[str, Any]) -> int:
        (run_copy / "config.json").write_text(json.dumps(changed))
        return len(comparisons([first, read_run(run_copy)]))

    assert together({**config, "seeds": [7], "wandb": "offline"}) == 1
    assert together({**config, "fit": {"steps": 1}}) == 2
    # What cannot be read is not taken for the same.
    (run_copy / "config.json").unlink()
    assert len(comparisons([first, read_run(run_copy)])) == 2


def test_an_arm_in_two_folders_counts_once(run_copy: Path, fake_run: FakeRun) -> None:
    first = read_run(fake_run.run_dir)
    same = comparisons([first, read_run(run_copy)])[0]
    assert len(same.runs) == len(first.runs)
    assert same.lacks == []
    path = run_copy / "arms" / "joint-seed0" / "result.json"
    result: dict[str, Any] = json.loads(path.read_text())
    result["metrics"]["report"]["miou"] = 0.1
    path.write_text(json.dumps(result))
    other = comparisons([first, read_run(run_copy)])[0]
    assert [lack.what for lack in other.lacks] == [
        "also in demo, with other scores: those of demo are shown"
    ]
