"""Stored experiments, the documents that are written from them, and the check of every number."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.__main__ import main
from eval.metrics import Bootstrap, SplitCounts, harm_rate, score_named
from eval.results.document import documents
from eval.results.study import packed, studies, unpacked


def new_study(root: Path) -> Path:
    """A repository with one study that has no runs."""
    study = root / "experiments" / "first"
    study.mkdir(parents=True)
    about = {"title": "A first study", "answer": "It is.", "split": "report"}
    (study / "study.json").write_text(json.dumps({**about, "against": ["recipe", "post-hoc"]}))
    (study / "asked.md").write_text("Is it so?\n")
    (study / "says.md").write_text("It may be.\n")
    return root


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The study without runs, to work in."""
    monkeypatch.chdir(tmp_path)
    return new_study(tmp_path)


@pytest.fixture(scope="module")
def written(finished_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study with the runs of a comparison, and its documents; not to be modified."""
    root = new_study(tmp_path_factory.mktemp("written"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        add(finished_run.run_dir)
        main(["results", "write"])
    return root


@pytest.fixture
def published(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same again, to be damaged."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change(path: Path, values: dict[str, Any]) -> None:
    """Change keys of a JSON object, or of the first object of a list."""
    held = json.loads(path.read_text())
    changed = held | values if isinstance(held, dict) else [held[0] | values]
    path.write_text(json.dumps(changed))


def change_study(root: Path, **values: Any) -> None:
    change(root / "experiments" / "first" / "study.json", values)


def add(run: Path, *words: str, label: str = "recipe") -> None:
    """Store the runs of a folder in the study of the folder that we are in."""
    main(["results", "add", str(run), "--study", "first", "--label", label, *words])


def texts(root: Path) -> tuple[str, str]:
    """RESULTS.md and the study's page as they would be, without drawing the figures anew."""
    experiments = root / "experiments"
    found = documents(studies(experiments), experiments, Path("RESULTS.md"), Path("docs/results"))
    return found[Path("RESULTS.md")], found[Path("docs/results/first.md")]


def row_of(text: str, arm: str, table: int = 0, label: str = "recipe") -> list[str]:
    """The cells of an arm in the first, second or third table that has it."""
    rows = [line for line in text.splitlines() if line.startswith(f"| {label} | {arm} |")]
    return [cell.strip() for cell in rows[table].strip("|").split("|")]


def mean_and_deviation(counts: list[SplitCounts], *score: str) -> str:
    values = [100 * score_named(*score)(run, run.all_once())[0] for run in counts]
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def difference_cell(finished_run, arm: str, base: str, *score: str) -> str:
    """How two arms differ, paired by seed and image; start stands against every seed."""
    runs, others = (finished_run.counts(a) * (2 if a == "start" else 1) for a in (arm, base))
    interval = Bootstrap(len(runs[0])).difference(runs, others, score_named(*score))
    assert interval is not None
    return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*(100 * value for value in interval))


def fails_the_check(capsys, words: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["results", "check"])
    assert stopped.value.code == 1
    assert words in capsys.readouterr().out


def test_what_is_stored_has_the_scores_of_the_counts(finished_run) -> None:
    runs = [*finished_run.counts("joint"), *finished_run.counts("unary")]
    stored = unpacked(packed(runs))
    assert [run.names for run in stored] == [run.names for run in runs]
    bootstrap = Bootstrap(len(runs[0]))
    kinds = (
        ("miou",),
        ("trimap_miou", "3"),
        ("boundary_iou",),
        ("nll",),
        ("iou_per_class", "brick"),
        ("foreground_miou",),
        ("trimap_foreground_miou", "3"),
    )
    for before, after in zip(runs, stored, strict=True):
        for words in kinds:
            score = score_named(*words)
            values, kept = (bootstrap.values([counts], score) for counts in (before, after))
            np.testing.assert_allclose(kept, values, rtol=1e-6)  # NLL is float32; others equal
    assert harm_rate(runs[2], runs[0]) == harm_rate(stored[2], stored[0])
    # Stored again, it is the same.
    for key, array in packed(stored).items():
        np.testing.assert_array_equal(array, packed(runs)[key])
    # Beside runs whose unscored classes are still there, too.
    some = [replace(run, scored=run.scored[1:]) for run in runs]
    mixed = [*unpacked(packed(some[:2])), *some[2:]]
    for key, array in packed(mixed).items():
        np.testing.assert_array_equal(array, packed(some)[key])
    with pytest.raises(ValueError, match="score the same classes"):
        packed([stored[0], some[0]])


def test_the_documents_have_the_scores_of_the_counts(published: Path, finished_run) -> None:
    text, page = texts(published)
    runs = finished_run.counts("joint")
    before = finished_run.counts("joint", "counts-report-before-crf")
    row = row_of(text, "joint")
    assert row[2:4] == ["2", mean_and_deviation(runs, "miou")]
    images_alone = difference_cell(finished_run, "joint", "post-hoc", "miou")
    assert row[6].startswith(f"{images_alone}, [")  # then the interval over seeds and images
    row = row_of(page, "joint")
    assert row[2:5:2] == ["2", mean_and_deviation(runs, "trimap_miou", "3")]
    harm = np.mean([harm_rate(b, a) for b, a in zip(before, runs, strict=True)])
    assert row[-1] == f"{100 * harm:.0f}"
    assert row_of(page, "joint, before its CRF")[3] == mean_and_deviation(before, "miou")
    assert row_of(page, "start")[2] == "1"
    last = runs[0].classes[runs[0].scored[-1]]
    assert row_of(page, "joint", 2)[-1] == mean_and_deviation(runs, "iou_per_class", last)
    overview = text.split("\n## ")[0].splitlines()  # the learnt arms of all studies
    joint, cells = [line for line in overview if line[:1] == "|"][-1], row_of(page, "joint", 1)
    assert all(f"| {cell} |" in joint for cell in (*cells[1:5], *cells[7:9]))
    change_study(published, published={"recipe": "Somebody, 2015: +1.2"}, commands=["python -m x"])
    text, page = texts(published)
    assert row_of(page, "joint", 1)[-1] == "Somebody, 2015: +1.2"
    assert all(words in page for words in ("Is it so?", "It may be.", "python -m x"))


def test_differences_are_paired_by_image_and_seed(published: Path, finished_run) -> None:
    _, page = texts(published)
    score = score_named("trimap_miou", "3")
    base = finished_run.counts("post-hoc")
    for arm, times in (("joint", 1), ("start", 2)):
        row, runs = row_of(page, arm, 1), finished_run.counts(arm) * times
        assert row[4].startswith(difference_cell(finished_run, arm, "post-hoc", "trimap_miou", "3"))
        each = [
            (score(a, a.all_once()) - score(b, b.all_once()))[0]
            for a, b in zip(runs, base, strict=True)
        ]
        assert row[-1] == ", ".join(f"{100 * difference:+.2f}" for difference in each)
    foreground = difference_cell(finished_run, "joint", "post-hoc", "trimap_foreground_miou", "3")
    change_study(published, foreground=True)
    assert any(cell.startswith(foreground) for cell in row_of(texts(published)[1], "joint", 1))
    change_study(published, against=["recipe", "start"], also=[["recipe", "crf-only"]])
    _, start, crf_only = re.split("Differences to .* of “recipe”:", texts(published)[1])
    assert difference_cell(finished_run, "joint", "start", "miou") in start
    assert difference_cell(finished_run, "joint", "crf-only", "miou") in crf_only


def test_what_was_published_passes_the_check_and_is_written_alike(published, finished_run, capsys):
    main(["results", "check"])
    assert "every number follows" in capsys.readouterr().out
    before = {path: path.read_bytes() for path in published.rglob("*.*")}
    (published / "experiments" / "first" / "counts.npz.xz").unlink()
    (published / "experiments" / "first" / "runs.json").unlink()
    add(finished_run.run_dir)
    add(finished_run.run_dir)  # a run is replaced, not doubled
    main(["results", "write"])
    assert {path: path.read_bytes() for path in published.rglob("*.*")} == before


def test_the_check_names_what_does_not_follow(published: Path, capsys) -> None:
    study = published / "experiments" / "first"
    for path, words in (
        (published / "RESULTS.md", "RESULTS.md is not what experiments gives"),
        (published / "docs" / "results" / "first.md", "first.md is not what experiments gives"),
    ):
        good = path.read_text()
        path.write_text(good.replace("±", "+-", 1))
        fails_the_check(capsys, words)
        path.write_text(good)
    (published / "docs" / "results" / "second.md").write_text("")
    fails_the_check(capsys, "second.md belongs to no study")
    (published / "docs" / "results" / "second.md").unlink()
    path = study / "counts.npz.xz"
    path.write_bytes(path.read_bytes()[:-20])
    fails_the_check(capsys, "counts.npz.xz is damaged")


def test_parts_of_the_images_have_tables_of_their_own(place: Path, finished_run) -> None:
    assert "Not run yet." in texts(place)[1]
    change_study(place, parts={"All": "", "One": "report-00001"})
    add(finished_run.run_dir, "--arms", "start")
    _, page = texts(place)
    assert "nan" not in page  # of a class that the one image has not
    _, first, second, _ = re.split(r"^## .*$", page.partition("\n")[2], flags=re.MULTILINE)[:4]
    run = finished_run.counts("start")[0]
    for part, counts in ((first, run), (second, run.of(("report-00001",)))):
        value = 100 * score_named("miou")(counts, counts.all_once())[0]
        assert row_of(part, "start")[3] == f"{value:.2f}"


def test_an_ablation_is_stored_label_by_label_and_failures_with_it(place, run_copy) -> None:
    ablation = run_copy.parent / "ablation"
    ablation.mkdir()
    labels = {"recipe": {"digest": "demo"}, "other": {"digest": "never run"}}
    (ablation / "results.json").write_text(json.dumps({"labels": labels}))
    failed = run_copy / "arms" / "joint-seed1"
    (failed / "result.json").unlink()
    (failed / "failed.json").write_text(json.dumps({"error": "ValueError: no"}))
    main(["results", "add", str(ablation), "--study", "first", "--arms", "joint"])
    _, page = texts(place)
    assert "| recipe | joint | failed | ValueError: no |" in page
    assert row_of(page, "joint")[2] == "1"
    assert "post-hoc |" not in page


def test_labels_are_drawn_side_by_side(published: Path, finished_run) -> None:
    for label in ("again", "and again"):
        add(finished_run.run_dir, "--arms", "joint", "crf-only", label=label)
    main(["results", "write"])
    drawn = (published / "docs" / "results" / "first-labels.svg").read_text()
    assert "joint" in drawn
    assert "foreground" not in drawn  # which this study does not ask for
    assert "(docs/results/first-labels.svg)" in (published / "RESULTS.md").read_text()
    main(["results", "check"])


def test_paths_of_a_machine_and_other_splits_are_refused(place: Path, run_copy: Path) -> None:
    config, origin = run_copy / "config.json", run_copy / "origin.json"
    result = run_copy / "arms" / "unary-seed0" / "result.json"
    for path, bad, message in (
        (config, {"model": {"weights": "/a/b"}}, r"--model\.weights /a/b"),
        (origin, {"command": "python -m train --out=/a/b"}, "was run with --out=/a/b"),
        (result, {"metrics": {"tune": {}}}, "not scored on the report split"),
    ):
        good = path.read_text()
        change(path, bad)
        with pytest.raises(SystemExit, match=message):
            add(run_copy)
        path.write_text(good)
    assert not (place / "experiments" / "first" / "runs.json").exists()


def test_what_is_no_study_and_no_run_is_named(place: Path, finished_run) -> None:
    for words, message in (
        (["--study", "second"], "no study 'second'"),
        (["--study", "first"], "--label WORDS"),
        (["--study", "first", "--label", "x", "--arms", "none"], "no finished run of none"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["results", "add", str(finished_run.run_dir), *words])
    with pytest.raises(SystemExit, match=r"neither config\.json nor results\.json"):
        add(place)
    change_study(place, against="recipe")
    with pytest.raises(ValueError, match=r'"against" is \["LABEL", "ARM"\]'):
        texts(place)
    (place / "experiments" / "first" / "study.json").write_text("{}")
    with pytest.raises(ValueError, match="lacks 'title'"):
        texts(place)


def test_runs_of_other_images_are_not_stored(published: Path, run_copy: Path) -> None:
    for path in run_copy.glob("arms/joint-seed*/counts-report*.npz"):
        counts = SplitCounts.load(path)
        counts.of(counts.names[1:]).save(path)
    with pytest.raises(SystemExit, match="fewer, joint-seed0 cannot be paired by image"):
        add(run_copy, "--arms", "joint", label="fewer")


def test_what_the_context_kernel_has_learnt_is_stored_and_drawn(place, run_copy) -> None:
    # Label 0 pays 3 for label 1, all pay 2 for label 2: only the first tells them apart.
    matrix = np.zeros((9, 9))
    matrix[0, 1], matrix[:, 2] = 3.0, 2.0
    crf = {"compatibility": np.eye(9).tolist(), "kernel_weights": {"context": matrix.tolist()}}
    change(run_copy / "arms" / "joint-seed0" / "result.json", {"crf": crf})
    add(run_copy, "--arms", "joint", label="learns")
    change_study(place, against=["learns", "joint"])
    main(["results", "write"])
    runs = json.loads((place / "experiments" / "first" / "runs.json").read_text())["runs"]
    context = runs[0]["context"]
    first, second, third, *_ = context
    assert (context[first][second], context[second][second]) == pytest.approx(
        (8 / 3, -1 / 3), abs=1e-3
    )
    assert not any(row[third] for row in context.values())
    assert (place / "docs" / "results" / "first-context.svg").is_file()
    assert "(first-context.svg)" in (place / "docs" / "results" / "first.md").read_text()


def test_the_gallery_is_drawn_of_the_predictions(place: Path, run_copy: Path) -> None:
    draw = ["results", "gallery", str(run_copy), "--study", "first", "--count", "3"]
    main(draw)
    assert "(first-gallery.png)" in texts(place)[1]
    shutil.rmtree(run_copy / "predictions" / "unary-seed0")
    with pytest.raises(SystemExit, match="no prediction at"):
        main(draw)
