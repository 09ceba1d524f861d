"""A run folder in any state: every file absent or cut off in turn, said and survived."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.report.comparison import comparisons
from eval.report.reading import read_run
from tests.eval.fake_run import FakeRun


@pytest.mark.parametrize("damage", ["removed", "cut off"])
@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "origin.json",
        "results.json",
        "arms/joint-seed0/result.json",
        "arms/joint-seed0/metrics.jsonl",
        "arms/joint-seed0/counts-report.npz",
        "arms/joint-seed0/counts-report-before-crf.npz",
    ],
)
def test_a_lost_file_is_said_and_the_rest_is_read(name: str, damage: str, run_copy: Path) -> None:
    path = run_copy / name
    content = path.read_bytes()
    path.unlink()
    if damage == "cut off":
        path.write_bytes(content[:-20])
    record = read_run(run_copy)
    (lack,) = record.lacks
    said = f"no {path.name}" if damage == "removed" else f"{path.name} is damaged"
    assert lack.what.startswith(said)
    assert lack.where == ("demo/joint-seed0" if "joint" in name else "demo")
    names = [run.name for run in record.runs]
    assert len(names) == (8 if path.name == "result.json" else 9)
    joint = next(run for run in record.runs if run.name.startswith("joint"))
    if path.name == "metrics.jsonl":
        assert len(joint.history) == (0 if damage == "removed" else 30)
    assert (joint.counts is None) == (path.name == "counts-report.npz")
    assert (joint.before is None) == (path.name == "counts-report-before-crf.npz")


def test_a_whole_run_lacks_nothing(fake_run: FakeRun) -> None:
    record = read_run(fake_run.run_dir)
    assert record.lacks == ()
    assert (record.recipe, record.seeds) == ("collage", (0, 1))
    assert [run.name for run in record.runs][:3] == ["start-seed0", "unary-seed0", "unary-seed1"]
    assert all(run.counts is not None for run in record.runs)


def test_without_results_names_are_those_of_command_and_counts(
    run_copy: Path, fake_run: FakeRun
) -> None:
    (run_copy / "results.json").unlink()
    record = read_run(run_copy)
    assert record.recipe == "collage"
    assert record.classes == fake_run.split.classes


def test_other_content_than_ours_is_said(run_copy: Path) -> None:
    folder = run_copy / "arms" / "joint-seed0"
    run = next(run for run in read_run(run_copy).runs if run.name == "joint-seed0")
    assert run.before is not None
    run.before.of(run.before.names[1:]).save(folder / "counts-report-before-crf.npz")
    (run_copy / "config.json").write_text("[1, 2]")
    (run_copy / "origin.json").write_text('[{"command": "python -m train"}]')
    (run_copy / "arms" / "unary-seed0" / "result.json").write_text('{"arm": "unary"}')
    said = [lack.what for lack in read_run(run_copy).lacks]
    for words, what in zip(
        ("config.json holds no", "origin.json lacks", "result.json lacks seed", "of other images"),
        said,
        strict=True,
    ):
        assert words in what


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
    (lack,) = comparisons([first, read_run(run_copy)])[0].lacks
    assert "also in demo, with other scores" in lack.what
