"""Studies of several labels, what their rows are compared with, and the overview of all."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from eval.__main__ import main
from eval.metrics import Bootstrap, SplitCounts, score_named
from eval.results.overview import anchor
from tests.eval.results.study import counts_of, row_of


def change_study(root: Path, **values: Any) -> None:
    """Other values in study.json."""
    path = root / "experiments" / "first" / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def exchange(run: Path, one: str, other: str) -> None:
    """Let two arms of a run folder have each other's results."""
    for seed in (0, 1):
        folders = [run / "arms" / f"{arm}-seed{seed}" for arm in (one, other)]
        aside = run / "aside"
        for source, target in zip((*folders, aside), (aside, *folders), strict=True):
            source.rename(target)
        for folder, arm in zip(folders, (one, other), strict=True):
            result = json.loads((folder / "result.json").read_text())
            (folder / "result.json").write_text(json.dumps(result | {"arm": arm}))


def test_a_study_may_be_compared_with_more_than_one_arm(published: Path, fake_run) -> None:
    change_study(published, also=[["recipe", "crf-only"]])
    main(["results", "write"])
    text = (published / "RESULTS.md").read_text()
    _, first, second = re.split("Differences to .* of “recipe”:", text)
    runs, base = counts_of(fake_run, "joint"), counts_of(fake_run, "crf-only")
    found = Bootstrap(len(base[0])).difference(runs, base, score_named("miou"))
    assert found is not None
    cell = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*(100 * value for value in found))
    assert f"| recipe | joint | 2 | {cell} |" in second
    assert cell not in first


def test_arms_may_be_compared_with_themselves_under_another_label(
    published: Path, fake_run, run_copy: Path
) -> None:
    exchange(run_copy, "joint", "crf-only")
    for label in ("exchanged", "again"):
        add = ["results", "add", str(run_copy), "--study", "first", "--label", label]
        main([*add, "--arms", "joint", "crf-only"])
    change_study(published, against=["recipe"])
    main(["results", "write"])
    text = (published / "RESULTS.md").read_text()
    _, table = text.split("Differences to the same arm of “recipe”:")
    runs, base = counts_of(fake_run, "crf-only"), counts_of(fake_run, "joint")
    found = Bootstrap(len(base[0])).difference(runs, base, score_named("miou"))
    assert found is not None
    cell = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*(100 * value for value in found))
    assert f"| exchanged | joint | 2 | {cell} |" in table
    assert f"| again | joint | 2 | {cell} |" in table
    assert "| recipe | joint | 2 | +" not in table
    assert "| recipe | joint | 2 | -" not in table
    figure = (published / "experiments" / "first" / "labels.svg").read_text()
    assert f"exchanged, joint: {cell.replace(' ', '  ', 1)}" in figure
    assert "exchanged, unary" not in figure
    assert "(experiments/first/labels.svg)" in text
    main(["results", "check"])


@pytest.mark.parametrize("against", ["recipe", [], ["recipe", "joint", "unary"]])
def test_what_cannot_be_compared_with_is_refused(published: Path, against: Any, capsys) -> None:
    change_study(published, against=against)
    with pytest.raises(SystemExit, match=r'"against" is \["LABEL", "ARM"\] or \["LABEL"\]'):
        main(["results", "write"])


def test_a_published_effect_stands_beside_its_row(published: Path) -> None:
    change_study(published, published={"recipe": "Somebody, 2015: +1.2"})
    main(["results", "write"])
    row = row_of((published / "RESULTS.md").read_text(), "joint", 1)
    assert row[-1] == "Somebody, 2015: +1.2"


def test_an_ablation_is_stored_label_by_label_and_failures_with_it(
    place: Path, run_copy: Path
) -> None:
    ablation = run_copy.parent / "ablation"
    ablation.mkdir()
    labels = {"recipe": {"digest": "demo"}, "other": {"digest": "never run"}}
    (ablation / "results.json").write_text(json.dumps({"labels": labels}))
    failed = run_copy / "arms" / "joint-seed1"
    (failed / "result.json").unlink()
    (failed / "failed.json").write_text(json.dumps({"error": "ValueError: no"}))
    main(["results", "add", str(ablation), "--study", "first", "--arms", "joint"])
    main(["results", "write"])
    text = Path("RESULTS.md").read_text()
    assert "| recipe | joint | failed | ValueError: no |" in text
    assert row_of(text, "joint", 0)[2] == "1"
    assert "post-hoc |" not in text
    main(["results", "check"])


def test_the_overview_has_the_learnt_arms_of_all_studies(published: Path) -> None:
    main(["results", "write"])
    text = (published / "RESULTS.md").read_text()
    overview, first = text.split("\n## A first study\n")
    _, *rows = [line for line in overview.splitlines() if line.startswith("|")][1:]
    for row, arm in zip(rows, ("crf-only", "joint"), strict=True):
        title, name, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert title == ("[A first study](#a-first-study)" if arm == "crf-only" else "")
        found = row_of(first, arm, 1)
        assert [name, *cells] == [arm, found[2], found[3], found[5], *found[9:11]]
    change_study(published, against=["recipe", "unary"])
    main(["results", "write"])
    assert "How far the CRFs" not in (published / "RESULTS.md").read_text()


def test_a_title_links_to_its_heading() -> None:
    assert anchor("CamVid, ImageNet backbone: a context_kernel") == (
        "camvid-imagenet-backbone-a-context_kernel"
    )


def test_the_commands_that_make_the_rows_again_are_named(published: Path) -> None:
    main(["results", "write"])
    assert "stands in [its file](experiments/first/runs)" in Path("RESULTS.md").read_text()
    change_study(published, commands=["python -m train compare collage --out runs/demo"])
    main(["results", "write"])
    assert (
        "```\npython -m train compare collage --out runs/demo\n```"
        in (published / "RESULTS.md").read_text()
    )


def test_what_all_studies_say_comes_first(published: Path) -> None:
    (published / "experiments" / "says.md").write_text("It may be so.\n")
    main(["results", "write"])
    head, _ = (published / "RESULTS.md").read_text().split("Scores in per cent")
    assert head.endswith("It may be so.\n\n")


def test_start_is_compared_with_every_seed(published: Path, fake_run) -> None:
    change_study(published, against=["recipe", "start"])
    main(["results", "write"])
    runs, base = counts_of(fake_run, "joint"), 2 * counts_of(fake_run, "start")
    found = Bootstrap(len(base[0])).difference(runs, base, score_named("miou"))
    assert found is not None
    cell = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*(100 * value for value in found))
    assert row_of((published / "RESULTS.md").read_text(), "joint", 1)[2:4] == ["2", cell]


def test_runs_of_other_images_are_not_paired(published: Path, run_copy: Path, capsys) -> None:
    for path in run_copy.glob("arms/joint-seed*/counts-report*.npz"):
        counts = SplitCounts.load(path)
        counts.of(counts.names[1:]).save(path)
    add = ["results", "add", str(run_copy), "--study", "first", "--label", "fewer"]
    main([*add, "--arms", "joint"])
    with pytest.raises(SystemExit, match="fewer, joint and recipe, post-hoc: cannot be paired"):
        main(["results", "write"])


def test_a_class_that_no_image_has_is_absent(published: Path) -> None:
    change_study(published, parts={"One image": "scene-003"})
    main(["results", "write"])
    text = (published / "RESULTS.md").read_text()
    assert "nan" not in text
    main(["results", "check"])


def test_labels_of_one_file_name_are_refused(place: Path, fake_run) -> None:
    add = ["results", "add", str(fake_run.run_dir), "--study", "first", "--arms", "joint"]
    main([*add, "--label", "b = +1"])
    with pytest.raises(SystemExit, match="differs from 'b = -1' in signs alone"):
        main([*add, "--label", "b = -1"])
