"""Stored experiments, the document that is written from them, and the check of every number."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from eval.__main__ import main
from eval.metrics import Bootstrap, SplitCounts, harm_rate, score_named
from eval.results.store import Store, digest_of_counts
from tests.eval.results.study import counts_of, row_of


def test_the_document_has_the_scores_of_the_counts(published: Path, fake_run) -> None:
    text = (published / "RESULTS.md").read_text()
    runs = counts_of(fake_run, "joint")
    values = [100 * score_named("miou")(run, run.all_once())[0] for run in runs]
    row = row_of(text, "joint", 0)
    assert row[2:4] == ["2", f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"]
    before = counts_of(fake_run, "joint", "counts-report-before-crf")
    harm = np.mean([harm_rate(b, a) for b, a in zip(before, runs, strict=True)])
    assert row[-1] == f"{100 * harm:.0f}"
    alone = [100 * score_named("miou")(run, run.all_once())[0] for run in before]
    row = row_of(text, "joint, before its CRF", 0)
    assert row[3] == f"{np.mean(alone):.2f} ± {np.std(alone, ddof=1):.2f}"
    assert row_of(text, "start", 0)[2] == "1"
    for word in (
        "A first study",
        "Is it so?",
        "It may be.",
        "(experiments/first/runs)",
        "a processor",
    ):
        assert word in text


def test_differences_are_paired_by_image_and_seed(published: Path, fake_run) -> None:
    text = (published / "RESULTS.md").read_text()
    base = counts_of(fake_run, "post-hoc")
    score = score_named("trimap_miou", "3")
    for arm in ("joint", "start"):
        runs = counts_of(fake_run, arm)
        runs = runs * 2 if arm == "start" else runs  # it stands against every seed
        found = Bootstrap(len(base[0])).difference(runs, base, score)
        assert found is not None
        value, low, high = (f"{100 * v:+.2f}" for v in found)
        row = row_of(text, arm, 1)
        assert (row[2], row[5]) == ("2", f"{value} [{low}, {high}]")
        each = [
            score(a, a.all_once()) - score(b, b.all_once()) for a, b in zip(runs, base, strict=True)
        ]
        assert row[-1] == ", ".join(f"{100 * difference[0]:+.2f}" for difference in each)
    assert text.count("| recipe | post-hoc | 2 |") == 2  # not against itself


def test_every_scored_class_has_its_iou(published: Path, fake_run) -> None:
    text = (published / "RESULTS.md").read_text()
    runs = counts_of(fake_run, "joint")
    names = [runs[0].classes[k] for k in runs[0].scored]
    assert f"|  | arm | n | {' | '.join(names)} |" in text
    score = score_named("iou_per_class", names[-1])
    values = [100 * score(run, run.all_once())[0] for run in runs]
    row = row_of(text, "joint", 2)
    assert row[-1] == f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def test_what_was_published_passes_the_check(published: Path, capsys) -> None:
    main(["results", "check"])
    assert "every number follows" in capsys.readouterr().out


@pytest.mark.parametrize("pattern", [r"\d\.\d\d ±", r"\d\.\d\d \[", r"0\.\d{4} ±"])
def test_a_changed_digit_of_the_document_fails_the_check(
    published: Path, capsys, pattern: str
) -> None:
    path = published / "RESULTS.md"
    text = path.read_text()
    found = re.search(pattern, text)
    assert found is not None
    at = next(k for k in range(found.start(), found.end()) if text[k].isdigit())
    path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
    with pytest.raises(SystemExit) as stopped:
        main(["results", "check"])
    assert stopped.value.code == 1
    assert "RESULTS.md is not what experiments gives" in capsys.readouterr().out


@pytest.mark.parametrize("key", ["scores", "scores_before", "harm_rate"])
def test_a_changed_score_of_a_run_fails_the_check(published: Path, capsys, key: str) -> None:
    path = published / "experiments" / "first" / "runs" / "recipe.joint.seed1.json"
    record = json.loads(path.read_text())
    if key == "harm_rate":
        record[key] += 0.125
    else:
        record[key]["trimap_miou"]["5"] += 1e-6
    path.write_text(json.dumps(record))
    with pytest.raises(SystemExit):
        main(["results", "check"])
    out = capsys.readouterr().out
    assert f"first, recipe, joint-seed1: {key}" in out


def test_changed_counts_fail_the_check(published: Path, capsys) -> None:
    folder = published / "experiments" / "counts"
    first, second = sorted(folder.glob("*.npz"))[:2]
    shutil.copyfile(first, second)
    (folder / "0123456789abcdef.npz").write_bytes(first.read_bytes())
    with pytest.raises(SystemExit):
        main(["results", "check"])
    out = capsys.readouterr().out
    assert f"its content has the digest {first.stem}" in out
    assert "0123456789abcdef.npz belongs to no run" in out


def test_a_changed_block_of_the_readme_fails_the_check(published: Path, capsys, fake_run) -> None:
    results = published / "results"
    results.mkdir()
    shutil.copyfile(fake_run.run_dir / "results.json", results / "demo.json")
    readme = published / "README.md"
    readme.write_text("<!-- results:demo -->\n<!-- /results:demo -->\n")
    main(["readme", "results/demo.json"])
    main(["results", "check"])
    readme.write_text(readme.read_text().replace("| 300 |", "| 301 |", 1))
    with pytest.raises(SystemExit):
        main(["results", "check"])
    assert "the block 'demo' is not what its results give" in capsys.readouterr().out


def test_a_digest_is_of_the_content(fake_run, tmp_path: Path) -> None:
    (first, second) = counts_of(fake_run, "joint")
    first.save(tmp_path / "again.npz")
    assert digest_of_counts(SplitCounts.load(tmp_path / "again.npz")) == digest_of_counts(first)
    assert digest_of_counts(first) != digest_of_counts(second)
    assert digest_of_counts(first.of(first.names[::-1])) != digest_of_counts(first)


def test_counts_are_stored_once(published: Path) -> None:
    # Before the CRF, post-hoc and crf-only are unary; so is joint in the fake run.
    study = Store(published / "experiments").study("first")
    arms = {r["arm"]: r for r in study.records if r["seed"] == 0}
    assert {arms[arm]["counts_before"] for arm in ("post-hoc", "crf-only", "joint")} == {
        arms["unary"]["counts"]
    }
    assert len(list((published / "experiments" / "counts").iterdir())) == 9


def test_the_images_of_a_part_have_tables_of_their_own(place: Path, fake_run) -> None:
    path = place / "experiments" / "first" / "study.json"
    about = json.loads(path.read_text()) | {"parts": {"All": "", "One": "scene-003"}}
    path.write_text(json.dumps(about))
    add = ["results", "add", str(fake_run.run_dir), "--study", "first", "--label", "recipe"]
    main([*add, "--arms", "start"])
    main(["results", "write"])
    text = Path("RESULTS.md").read_text()
    _, first, second = re.split(r"^### .*$", text, flags=re.MULTILINE)
    run = counts_of(fake_run, "start")[0]
    for part, counts in ((first, run), (second, run.of(("scene-003",)))):
        value = 100 * score_named("miou")(counts, counts.all_once())[0]
        assert row_of(part, "start", 0)[3] == f"{value:.2f}"
    path.write_text(json.dumps(about | {"parts": {"None": "other"}}))
    with pytest.raises(SystemExit, match="begins with 'other'"):
        main(["results", "write"])


def test_a_study_may_have_no_runs_yet(place: Path) -> None:
    main(["results", "write"])
    assert "Not run yet." in Path("RESULTS.md").read_text()
    main(["results", "check"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--study", "second"], "no study 'second'"),
        (["--study", "first"], "--label WORDS"),
        (["--study", "first", "--label", "x", "--arms", "none"], "no finished run of none"),
    ],
)
def test_what_cannot_be_added_is_named(
    place: Path, fake_run, arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        main(["results", "add", str(fake_run.run_dir), *arguments])


def test_paths_of_a_machine_and_other_splits_are_refused(place: Path, run_copy: Path) -> None:
    add = ["results", "add", str(run_copy), "--study", "first", "--label", "x"]
    config = json.loads((run_copy / "config.json").read_text())
    (run_copy / "config.json").write_text(json.dumps(config | {"model": {"weights": "/a/b"}}))
    with pytest.raises(SystemExit, match=r"--model\.weights /a/b"):
        main(add)
    (run_copy / "config.json").write_text(json.dumps(config))
    signed = (run_copy / "origin.json").read_text()
    entries = [
        {**entry, "command": entry["command"] + " --out=/a/b"} for entry in json.loads(signed)
    ]
    (run_copy / "origin.json").write_text(json.dumps(entries))
    with pytest.raises(SystemExit, match="was run with --out=/a/b"):
        main(add)
    (run_copy / "origin.json").write_text(signed)
    path = run_copy / "arms" / "unary-seed0" / "result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"metrics": {"tune": {}}}))
    with pytest.raises(SystemExit, match="not scored on the report split"):
        main(add)


def test_folders_that_are_none_are_named(place: Path) -> None:
    with pytest.raises(SystemExit, match=r"neither config\.json nor results\.json"):
        main(["results", "add", str(place), "--study", "first", "--label", "x"])
    with pytest.raises(SystemExit, match="no study in nowhere"):
        main(["results", "write", "--experiments", "nowhere"])
    path = place / "experiments" / "first" / "study.json"
    path.write_text("{}")
    with pytest.raises(SystemExit, match="lacks 'title'"):
        main(["results", "write"])
    path.write_text("{")
    with pytest.raises(SystemExit, match="is no JSON"):
        main(["results", "write"])
