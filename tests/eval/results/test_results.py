"""Stored experiments, the document that is written from them, and the check of every number."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.__main__ import main
from eval.metrics import SplitCounts, harm_rate, score_named
from eval.results.overview import anchor
from eval.results.store import Store, digest_of_counts
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


def test_differences_are_paired_by_image_and_seed(published: Path, fake_run) -> None:
    text = (published / "RESULTS.md").read_text()
    score = score_named("trimap_miou", "3")
    base = counts_of(fake_run, "post-hoc")
    for arm in ("joint", "start"):
        row = row_of(text, arm, 1)
        cell = difference_cell(fake_run, arm, "post-hoc", "trimap_miou", "3")
        assert (row[2], row[5]) == ("2", cell)
        runs = counts_of(fake_run, arm) * (2 if arm == "start" else 1)
        each = [
            score(a, a.all_once()) - score(b, b.all_once()) for a, b in zip(runs, base, strict=True)
        ]
        assert row[-1] == ", ".join(f"{100 * difference[0]:+.2f}" for difference in each)
    assert text.count("| recipe | post-hoc | 2 |") == 2  # not against itself
    change_study(published, against=["recipe", "start"], also=[["recipe", "crf-only"]])
    _, start, crf_only = re.split("Differences to .* of “recipe”:", text_of(published))
    assert difference_cell(fake_run, "joint", "start", "miou") in row_of(start, "joint", 0)
    assert difference_cell(fake_run, "joint", "crf-only", "miou") in row_of(crf_only, "joint", 0)


def test_arms_may_be_compared_with_themselves_under_another_label(
    published: Path, fake_run, run_copy: Path
) -> None:
    # Let joint and crf-only have each other's results.
    names = {"joint": "crf-only", "crf-only": "joint"}
    for arm in names:
        for folder in (run_copy / "arms").glob(f"{arm}-seed?"):
            folder.rename(folder.with_name(f"{folder.name.replace(arm, names[arm])}-other"))
    for folder in (run_copy / "arms").glob("*-other"):
        result = json.loads((folder / "result.json").read_text())
        changed = result | {"arm": names[result["arm"]]}
        (folder / "result.json").write_text(json.dumps(changed))
        folder.rename(folder.with_name(folder.name.removesuffix("-other")))
    for label in ("exchanged", "again"):
        add(run_copy, "--arms", "joint", "crf-only", label=label)
    change_study(published, against=["recipe"])
    main(["results", "write"])
    text = (published / "RESULTS.md").read_text()
    _, table = text.split("Differences to the same arm of “recipe”:")
    cell = difference_cell(fake_run, "crf-only", "joint", "miou")
    for label in ("exchanged", "again"):
        assert row_of(table, "joint", 0, label)[2:4] == ["2", cell]
    # Each arm is left out against itself: its only other rows have classes' scores, unsigned.
    assert not re.search(r"\| recipe \| joint \| 2 \| [+-]", table)
    figure = (published / "experiments" / "first" / "labels.svg").read_text()
    assert "exchanged" in figure
    assert "(experiments/first/labels.svg)" in text
    main(["results", "check"])


def test_what_was_published_passes_the_check_and_is_written_alike(
    published: Path, tmp_path: Path, fake_run, capsys
) -> None:
    main(["results", "check"])
    assert "every number follows" in capsys.readouterr().out

    def stored() -> dict[Path, bytes]:
        files = sorted(published.rglob("*"))
        return {path: path.read_bytes() for path in files if path.is_file()}

    before = stored()
    assert any(path.suffix == ".svg" for path in before)
    shutil.rmtree(published / "experiments" / "counts")
    add(fake_run.run_dir)
    main(["results", "write"])
    after = stored()
    assert after.keys() == before.keys()
    for path, content in before.items():
        if path.suffix != ".npz":
            assert after[path] == content, path


@pytest.mark.parametrize("pattern", [r"\d\.\d\d ±", r"\d\.\d\d \[", r"0\.\d{4} ±"])
def test_a_changed_digit_of_the_document_is_found(published: Path, capsys, pattern: str) -> None:
    path = published / "RESULTS.md"
    text = path.read_text()
    found = re.search(pattern, text)
    assert found is not None
    at = next(k for k in range(found.start(), found.end()) if text[k].isdigit())
    path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
    fails_the_check(capsys, "RESULTS.md is not what experiments gives")


@pytest.mark.parametrize("key", ["scores", "scores_before", "harm_rate"])
def test_a_changed_score_of_a_run_is_found(published: Path, capsys, key: str) -> None:
    path = published / "experiments" / "first" / "runs" / "recipe.joint.seed1.json"
    record = json.loads(path.read_text())
    if key == "harm_rate":
        record[key] += 0.125
    else:
        record[key]["trimap_miou"]["5"] += 1e-6
    path.write_text(json.dumps(record))
    fails_the_check(capsys, f"first, recipe, joint-seed1: {key}")


def test_changed_and_forgotten_counts_are_found(published: Path, capsys) -> None:
    folder = published / "experiments" / "counts"
    first, second = sorted(folder.glob("*.npz"))[:2]
    shutil.copyfile(first, second)
    fails_the_check(capsys, f"its content has the digest {first.stem}")
    (folder / "0123456789abcdef.npz").write_bytes(first.read_bytes())
    fails_the_check(capsys, "0123456789abcdef.npz belongs to no run")


def test_a_changed_block_of_the_readme_is_found(published: Path, capsys, fake_run) -> None:
    results = published / "results"
    results.mkdir()
    shutil.copyfile(fake_run.run_dir / "results.json", results / "demo.json")
    readme = published / "README.md"
    readme.write_text("<!-- results:demo -->\n<!-- /results:demo -->\n")
    main(["readme", "results/demo.json"])
    main(["results", "check"])
    readme.write_text(readme.read_text().replace("| 300 |", "| 301 |", 1))
    fails_the_check(capsys, "the block 'demo' is not what its results give")


def test_counts_are_stored_once_by_their_content(published: Path, fake_run, tmp_path: Path) -> None:
    first, second = counts_of(fake_run, "joint")
    first.save(tmp_path / "again.npz")
    assert digest_of_counts(SplitCounts.load(tmp_path / "again.npz")) == digest_of_counts(first)
    assert digest_of_counts(first) != digest_of_counts(second)
    assert digest_of_counts(first.of(first.names[::-1])) != digest_of_counts(first)
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
    change_study(place, parts={"None": "other"})
    with pytest.raises(ValueError, match="begins with 'other'"):
        text_of(place)


def test_words_around_the_numbers_come_from_the_study(published: Path) -> None:
    change_study(
        published,
        published={"recipe": "Somebody, 2015: +1.2"},
        commands=["python -m train compare collage --out runs/demo"],
    )
    (published / "experiments" / "says.md").write_text("All in all.\n")
    text = text_of(published)
    assert row_of(text, "joint", 1)[-1] == "Somebody, 2015: +1.2"
    assert "```\npython -m train compare collage --out runs/demo\n```" in text
    assert text.index("All in all.") < text.index("A first study")


def test_the_overview_has_the_learnt_arms_of_all_studies(published: Path) -> None:
    overview, first = text_of(published).split("\n## A first study\n")
    _, *rows = [line for line in overview.splitlines() if line.startswith("|")][1:]
    for row, arm in zip(rows, ("crf-only", "joint"), strict=True):
        title, name, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert title == ("[A first study](#a-first-study)" if arm == "crf-only" else "")
        found = row_of(first, arm, 1)
        assert [name, *cells] == [arm, found[2], found[3], found[5], *found[9:11]]
    assert anchor("CamVid, ImageNet backbone: a context_kernel") == (
        "camvid-imagenet-backbone-a-context_kernel"
    )


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--study", "second"], "no study 'second'"),
        (["--study", "first"], "--label WORDS"),
        (["--study", "first", "--label", "x", "--arms", "none"], "no finished run of none"),
    ],
)
def test_what_cannot_be_added_is_named(place: Path, fake_run, words, message) -> None:
    with pytest.raises(SystemExit, match=message):
        main(["results", "add", str(fake_run.run_dir), *words])


def test_paths_of_a_machine_and_other_splits_are_refused(place: Path, run_copy: Path) -> None:
    config, origin = run_copy / "config.json", run_copy / "origin.json"
    result = run_copy / "arms" / "unary-seed0" / "result.json"
    for path, change, message in (
        (config, {"model": {"weights": "/a/b"}}, r"--model\.weights /a/b"),
        (origin, {"command": "python -m train --out=/a/b"}, "was run with --out=/a/b"),
        (origin, {"command": "python -m train --out /a/b"}, "was run with /a/b"),
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
    with pytest.raises(SystemExit, match=r"neither config\.json nor results\.json"):
        add(place)
    with pytest.raises(SystemExit, match="no study in nowhere"):
        main(["results", "write", "--experiments", "nowhere"])
    add(fake_run.run_dir, "--arms", "joint", label="b = +1")
    with pytest.raises(SystemExit, match="differs from 'b = -1' in signs alone"):
        add(fake_run.run_dir, "--arms", "joint", label="b = -1")
    for against in ("recipe", [], ["recipe", "joint", "unary"]):
        change_study(place, against=against)
        with pytest.raises(ValueError, match=r'"against" is \["LABEL", "ARM"\] or \["LABEL"\]'):
            text_of(place)
    path = place / "experiments" / "first" / "study.json"
    for text, message in (("{}", "lacks 'title'"), ("{", "is no JSON")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            text_of(place)


def test_runs_of_other_images_are_not_paired(published: Path, run_copy: Path) -> None:
    for path in run_copy.glob("arms/joint-seed*/counts-report*.npz"):
        counts = SplitCounts.load(path)
        counts.of(counts.names[1:]).save(path)
    add(run_copy, "--arms", "joint", label="fewer")
    with pytest.raises(ValueError, match="fewer, joint and recipe, post-hoc: cannot be paired"):
        text_of(published)


def test_figures_are_drawn_from_what_is_stored(published: Path) -> None:
    folder = published / "experiments" / "first"
    text = (published / "RESULTS.md").read_text()
    for name in ("trimap", "trimap-difference", "learning"):
        assert f"(experiments/first/{name}.svg)" in text
        assert "joint" in (folder / f"{name}.svg").read_text()
    record = json.loads((folder / "runs" / "recipe.joint.seed0.json").read_text())
    assert [line["step"] for line in record["history"]] == list(range(10, 301, 10))
    for path in folder.glob("runs/*"):
        if "post-hoc" not in path.name:
            path.unlink()
    main(["results", "write"])  # a curve alone has nothing to be held against
    assert not list(folder.glob("*.svg"))
    assert ".svg" not in (published / "RESULTS.md").read_text()


def test_what_the_context_kernel_has_learnt_is_stored_and_drawn(
    place: Path, run_copy: Path
) -> None:
    path = run_copy / "arms" / "joint-seed0" / "result.json"
    result = json.loads(path.read_text())
    # Label 0 pays 3 for label 1, all pay 2 for label 2: only the first tells them apart.
    matrix = np.zeros((4, 4))
    matrix[0, 1] = 3.0
    matrix[:, 2] = 2.0
    result["crf"]["compatibility"] = np.eye(4).tolist()
    result["crf"]["kernel_weights"]["context"] = matrix.tolist()
    path.write_text(json.dumps(result))
    add(run_copy, "--arms", "joint", label="widths learn")
    change_study(place, against=["widths learn", "joint"], learning="widths learn")
    main(["results", "write"])
    folder = place / "experiments" / "first"
    context = json.loads((folder / "runs" / "widths-learn.joint.seed0.json").read_text())["context"]
    first, second, third, _ = context
    assert context[first][second] == pytest.approx(3 - 3 / 4)
    assert context[second][second] == pytest.approx(-3 / 4)
    assert not any(paid[third] for paid in context.values())
    assert (
        json.loads((folder / "runs" / "widths-learn.joint.seed1.json").read_text())["context"]
        is None
    )
    for name in ("context", "learning"):
        assert (folder / f"{name}.svg").is_file()
        assert f"(experiments/first/{name}.svg)" in (place / "RESULTS.md").read_text()


def colours_of(image: Image.Image) -> set[tuple[int, ...]]:
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    return {tuple(colour) for colour in np.unique(pixels, axis=0).tolist()}


def test_the_gallery_shows_what_the_arms_predict(place: Path, run_copy: Path) -> None:
    draw = ["results", "gallery", str(run_copy), "--study", "first"]
    sizes = []
    for count in ("1", "3"):
        main([*draw, "--count", count])
        with Image.open(place / "experiments" / "first" / "gallery.png") as image:
            sizes.append(image.size)
            colours = colours_of(image)
    assert sizes[1][0] == sizes[0][0]
    assert sizes[1][1] > 1.6 * sizes[0][1]
    with Image.open(next(run_copy.glob("predictions/joint-seed0/*.png"))) as image:
        assert len(colours_of(image) & colours) > 1
    assert "/first/gallery.png)" in text_of(place)
    shutil.rmtree(run_copy / "predictions" / "unary-seed0")
    with pytest.raises(SystemExit, match="no prediction at"):
        main(draw)
    for arm in run_copy.glob("arms/*"):
        if not arm.name.startswith("start"):
            shutil.rmtree(arm)
    with pytest.raises(SystemExit, match="two arms of one seed"):
        main(draw)
