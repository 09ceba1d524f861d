"""Stored experiments, the document that is written from them, and the check of every number."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from eval.__main__ import main
from eval.metrics import SplitCounts, harm_rate, score_named
from eval.results.store import Store
from tests.eval.results.study import (
    add,
    change_study,
    counts_of,
    difference_cell,
    row_of,
    text_of,
)


def mean_and_deviation(counts: list[SplitCounts], *score: str) -> str:
    values = [100 * score_named(*score)(run, run.all_once())[0] for run in counts]
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def fails_the_check(capsys, words: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["results", "check"])
    assert stopped.value.code == 1
    assert words in capsys.readouterr().out


def test_the_document_has_the_scores_of_the_counts(published: Path, fake_run) -> None:
    text = (published / "RESULTS.md").read_text()
    runs = counts_of(fake_run, "joint")
    before = counts_of(fake_run, "joint", "counts-report-before-crf")
    row = row_of(text, "joint", 0)
    assert row[2:4] == ["2", mean_and_deviation(runs, "miou")]
    harm = np.mean([harm_rate(b, a) for b, a in zip(before, runs, strict=True)])
    assert row[-1] == f"{100 * harm:.0f}"
    row = row_of(text, "joint, before its CRF", 0)
    assert row[3] == mean_and_deviation(before, "miou")
    assert row_of(text, "start", 0)[2] == "1"
    last = runs[0].classes[runs[0].scored[-1]]
    assert row_of(text, "joint", 2)[-1] == mean_and_deviation(runs, "iou_per_class", last)
    for words in ("A first study", "Is it so?", "It may be.", "a processor"):
        assert words in text
    change_study(published, published={"recipe": "Somebody, 2015: +1.2"}, commands=["python -m x"])
    (published / "experiments" / "says.md").write_text("All in all.\n")
    text = text_of(published)
    assert row_of(text, "joint", 1)[-1] == "Somebody, 2015: +1.2"
    assert "```\npython -m x\n```" in text
    assert text.index("All in all.") < text.index("A first study")


def test_differences_are_paired_by_image_and_seed(published: Path, fake_run) -> None:
    text = (published / "RESULTS.md").read_text()
    score = score_named("trimap_miou", "3")
    base = counts_of(fake_run, "post-hoc")
    for arm, times in (("joint", 1), ("start", 2)):
        row, runs = row_of(text, arm, 1), counts_of(fake_run, arm) * times
        cell = difference_cell(fake_run, arm, "post-hoc", "trimap_miou", "3")
        assert (row[2], row[5]) == ("2", cell)
        each = [
            (score(a, a.all_once()) - score(b, b.all_once()))[0]
            for a, b in zip(runs, base, strict=True)
        ]
        assert row[-1] == ", ".join(f"{100 * difference:+.2f}" for difference in each)
    assert text.count("| recipe | post-hoc | 2 |") == 2  # not against itself
    change_study(published, against=["recipe", "start"], also=[["recipe", "crf-only"]])
    _, start, crf_only = re.split("Differences to .* of “recipe”:", text_of(published))
    assert difference_cell(fake_run, "joint", "start", "miou") in row_of(start, "joint", 0)
    assert difference_cell(fake_run, "joint", "crf-only", "miou") in row_of(crf_only, "joint", 0)


def test_a_label_may_be_held_against_another_arm_by_arm(published: Path, fake_run) -> None:
    for label in ("again", "and again"):
        add(fake_run.run_dir, "--arms", "joint", "crf-only", label=label)
    change_study(published, against=["recipe"])
    main(["results", "write"])
    text = (published / "RESULTS.md").read_text()
    _, table = text.split("Differences to the same arm of “recipe”:")
    assert row_of(table, "joint", 0, "again")[2:4] == ["2", "+0.00 [+0.00, +0.00]"]
    assert not re.search(r"\| recipe \| joint \| 2 \| [+-]", table)  # not against itself
    for name in ("labels", "trimap", "trimap-difference", "learning"):
        assert f"(experiments/first/{name}.svg)" in text
        assert "joint" in (published / "experiments" / "first" / f"{name}.svg").read_text()
    main(["results", "check"])


def test_what_was_published_passes_the_check_and_is_written_alike(
    published: Path, fake_run, capsys
) -> None:
    main(["results", "check"])
    assert "every number follows" in capsys.readouterr().out

    def stored() -> dict[Path, bytes]:
        files = published.rglob("*.*")
        # Archives hold the time at which they were written.
        return {path: b"" if path.suffix == ".npz" else path.read_bytes() for path in files}

    before = stored()
    assert any(path.suffix == ".svg" for path in before)
    shutil.rmtree(published / "experiments" / "counts")
    add(fake_run.run_dir)
    main(["results", "write"])
    assert stored() == before


def test_whatever_is_changed_by_hand_is_found(published: Path, capsys) -> None:
    path = published / "RESULTS.md"
    text = path.read_text()
    found = re.search(r"\d\.\d(\d) ±", text)
    assert found is not None
    path.write_text(text[: found.start(1)] + str((int(found[1]) + 1) % 10) + text[found.end(1) :])
    fails_the_check(capsys, "RESULTS.md is not what experiments gives")
    path = published / "experiments" / "first" / "runs" / "recipe.joint.seed1.json"
    text = path.read_text()
    for key in ("scores", "scores_before"):
        record = json.loads(text)
        record[key]["trimap_miou"]["5"] += 1e-6
        path.write_text(json.dumps(record))
        fails_the_check(capsys, f"first, recipe, joint-seed1: {key}")
    folder = published / "experiments" / "counts"
    first, second = sorted(folder.glob("*.npz"))[:2]
    shutil.copyfile(first, second)
    fails_the_check(capsys, f"its content has the digest {first.stem}")
    (folder / "0123456789abcdef.npz").write_bytes(first.read_bytes())
    fails_the_check(capsys, "0123456789abcdef.npz belongs to no run")


def test_counts_are_stored_once_by_their_content(published: Path) -> None:
    # Before the CRF, post-hoc and crf-only are unary; so is joint in the fake run.
    study = Store(published / "experiments").study("first")
    arms = {r["arm"]: r for r in study.records if r["seed"] == 0}
    with_crf = {arms[arm]["counts_before"] for arm in ("post-hoc", "crf-only", "joint")}
    assert with_crf == {arms["unary"]["counts"]}
    assert len(list((published / "experiments" / "counts").iterdir())) == 9


def test_parts_of_the_images_have_tables_of_their_own(place: Path, fake_run) -> None:
    assert "Not run yet." in text_of(place)
    change_study(place, parts={"All": "", "One": "scene-003"})
    add(fake_run.run_dir, "--arms", "start")
    text = text_of(place)
    assert "nan" not in text  # of a class that the one image has not
    _, first, second = re.split(r"^### .*$", text, flags=re.MULTILINE)
    run = counts_of(fake_run, "start")[0]
    for part, counts in ((first, run), (second, run.of(("scene-003",)))):
        value = 100 * score_named("miou")(counts, counts.all_once())[0]
        assert row_of(part, "start", 0)[3] == f"{value:.2f}"


def test_the_overview_has_the_learnt_arms_of_all_studies(published: Path) -> None:
    overview, first = text_of(published).split("\n## A first study\n")
    _, _, crf_only, joint = [line for line in overview.splitlines() if line.startswith("|")]
    assert "[A first study](#a-first-study)" in crf_only
    for row, arm in ((crf_only, "crf-only"), (joint, "joint")):
        found = row_of(first, arm, 1)
        for cell in (arm, found[2], found[3], found[5], *found[9:11]):
            assert f"| {cell} |" in row


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
    text = text_of(place)
    assert "| recipe | joint | failed | ValueError: no |" in text
    assert row_of(text, "joint", 0)[2] == "1"
    assert "post-hoc |" not in text


def test_paths_of_a_machine_and_other_splits_are_refused(place: Path, run_copy: Path) -> None:
    config, origin = run_copy / "config.json", run_copy / "origin.json"
    result = run_copy / "arms" / "unary-seed0" / "result.json"
    for path, change, message in (
        (config, {"model": {"weights": "/a/b"}}, r"--model\.weights /a/b"),
        (origin, {"command": "python -m train --out=/a/b"}, "was run with --out=/a/b"),
        (result, {"metrics": {"tune": {}}}, "not scored on the report split"),
    ):
        good = path.read_text()
        values = json.loads(good)
        bad = [values[0] | change] if isinstance(values, list) else values | change
        path.write_text(json.dumps(bad))
        with pytest.raises(SystemExit, match=message):
            add(run_copy)
        path.write_text(good)
    assert not (place / "experiments" / "first" / "runs").exists()


def test_what_is_no_study_and_no_run_is_named(place: Path, fake_run) -> None:
    for words, message in (
        (["--study", "second"], "no study 'second'"),
        (["--study", "first"], "--label WORDS"),
        (["--study", "first", "--label", "x", "--arms", "none"], "no finished run of none"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["results", "add", str(fake_run.run_dir), *words])
    with pytest.raises(SystemExit, match=r"neither config\.json nor results\.json"):
        add(place)
    add(fake_run.run_dir, "--arms", "joint", label="b = +1")
    with pytest.raises(SystemExit, match="differs from 'b = -1' in signs alone"):
        add(fake_run.run_dir, "--arms", "joint", label="b = -1")
    change_study(place, against="recipe")
    with pytest.raises(ValueError, match=r'"against" is \["LABEL", "ARM"\] or \["LABEL"\]'):
        text_of(place)
    (place / "experiments" / "first" / "study.json").write_text("{}")
    with pytest.raises(ValueError, match="lacks 'title'"):
        text_of(place)


def test_runs_of_other_images_are_not_paired(published: Path, run_copy: Path) -> None:
    for path in run_copy.glob("arms/joint-seed*/counts-report*.npz"):
        counts = SplitCounts.load(path)
        counts.of(counts.names[1:]).save(path)
    add(run_copy, "--arms", "joint", label="fewer")
    with pytest.raises(ValueError, match="fewer, joint and recipe, post-hoc: cannot be paired"):
        text_of(published)


def test_what_the_context_kernel_has_learnt_is_stored_and_drawn(
    place: Path, run_copy: Path
) -> None:
    path = run_copy / "arms" / "joint-seed0" / "result.json"
    result = json.loads(path.read_text())
    # Label 0 pays 3 for label 1, all pay 2 for label 2: only the first tells them apart.
    matrix = np.zeros((4, 4))
    matrix[0, 1], matrix[:, 2] = 3.0, 2.0
    result["crf"]["compatibility"] = np.eye(4).tolist()
    result["crf"]["kernel_weights"]["context"] = matrix.tolist()
    path.write_text(json.dumps(result))
    add(run_copy, "--arms", "joint", label="learns")
    change_study(place, against=["learns", "joint"])
    main(["results", "write"])
    folder = place / "experiments" / "first"
    context = json.loads((folder / "runs" / "learns.joint.seed0.json").read_text())["context"]
    first, second, third, _ = context
    assert (context[first][second], context[second][second]) == pytest.approx((9 / 4, -3 / 4))
    assert not any(paid[third] for paid in context.values())
    assert (folder / "context.svg").is_file()
    assert "(experiments/first/context.svg)" in (place / "RESULTS.md").read_text()


def test_the_gallery_is_drawn_of_the_predictions(place: Path, run_copy: Path) -> None:
    draw = ["results", "gallery", str(run_copy), "--study", "first", "--count", "3"]
    main(draw)
    assert "/first/gallery.png)" in text_of(place)
    shutil.rmtree(run_copy / "predictions" / "unary-seed0")
    with pytest.raises(SystemExit, match="no prediction at"):
        main(draw)
