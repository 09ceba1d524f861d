"""The figures of a study and its gallery."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.__main__ import main


def test_figures_are_drawn_from_what_is_stored(published: Path) -> None:
    text = (published / "RESULTS.md").read_text()
    for name in ("trimap", "trimap-difference", "learning"):
        figure = published / "experiments" / "first" / f"{name}.svg"
        assert f"(experiments/first/{name}.svg)" in text
        assert "joint" in figure.read_text()
        assert figure.stat().st_size < 100_000
    runs = published / "experiments" / "first" / "runs"
    record = json.loads((runs / "recipe.joint.seed0.json").read_text())
    assert [line["step"] for line in record["history"]] == list(range(10, 301, 10))
    shutil.rmtree(runs)
    main(["results", "write"])
    assert not list((published / "experiments" / "first").glob("*.svg"))
    assert ".svg" not in (published / "RESULTS.md").read_text()


def test_curves_need_two_arms_to_compare(place: Path, fake_run) -> None:
    add = ["results", "add", str(fake_run.run_dir), "--study", "first", "--label", "recipe"]
    main([*add, "--arms", "post-hoc"])
    main(["results", "write"])
    assert not list((place / "experiments" / "first").glob("*.svg"))
    main([*add, "--arms", "unary"])
    main(["results", "write"])
    assert (place / "experiments" / "first" / "trimap.svg").is_file()


def test_the_learning_of_another_label_may_be_drawn(place: Path, fake_run) -> None:
    path = place / "experiments" / "first" / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"learning": "widths learn"}))
    add = ["results", "add", str(fake_run.run_dir), "--study", "first"]
    main([*add, "--label", "recipe", "--arms", "unary", "post-hoc"])
    main([*add, "--label", "widths learn", "--arms", "crf-only"])
    main(["results", "write"])
    drawn = (place / "experiments" / "first" / "learning.svg").read_text()
    assert "crf-only" in drawn
    assert "joint" not in drawn
    assert "by training step, of “widths learn”](" in Path("RESULTS.md").read_text()


def test_what_the_context_kernel_has_learnt_is_drawn(place: Path, run_copy: Path) -> None:
    path = run_copy / "arms" / "joint-seed0" / "result.json"
    result = json.loads(path.read_text())
    crf = result["crf"]
    size = len(crf["compatibility"])
    # Label 0 pays 3 for label 1, all pay 2 for label 2: only the first tells them apart.
    matrix = np.zeros((size, size))
    matrix[0, 1] = 3.0
    matrix[:, 2] = 2.0
    crf["compatibility"] = np.eye(size).tolist()
    crf["kernel_weights"]["context"] = matrix.tolist()
    path.write_text(json.dumps(result))
    main(["results", "add", str(run_copy), "--study", "first", "--label", "recipe"])
    main(["results", "write"])
    runs = place / "experiments" / "first" / "runs"
    context = json.loads((runs / "recipe.joint.seed0.json").read_text())["context"]
    first, second, third, *_ = names = list(context)
    assert len(names) == size
    assert context[first][second] == pytest.approx(3 - 3 / size, rel=1e-3)
    assert context[second][second] == pytest.approx(-3 / size, rel=1e-3)
    assert not any(paid[third] for paid in context.values())
    assert json.loads((runs / "recipe.joint.seed1.json").read_text())["context"] is None
    drawn = (place / "experiments" / "first" / "context.svg").read_text()
    assert f"{first}, {second}: {3 - 3 / size:.4g}" in drawn
    assert "(experiments/first/context.svg)" in Path("RESULTS.md").read_text()
    main(["results", "check"])


def test_the_gallery_shows_what_the_arms_predict(published: Path, fake_run) -> None:
    draw = ["results", "gallery", str(fake_run.run_dir), "--study", "first", "--count"]
    main([*draw, "3"])
    path = published / "experiments" / "first" / "gallery.png"
    pixels = np.asarray(Image.open(path).convert("RGB"))
    items = sorted((fake_run.run_dir / "predictions" / "joint-seed0").glob("*.png"))
    colours = {tuple(c) for c in np.unique(pixels.reshape(-1, 3), axis=0)}
    shown = {tuple(c) for f in items for c in np.asarray(Image.open(f).convert("RGB"))[20]}
    assert len(shown & colours) > 1
    main([*draw, "6"])
    taller = np.asarray(Image.open(path))
    assert taller.shape[1] == pixels.shape[1]
    assert taller.shape[0] > 1.6 * pixels.shape[0]
    main(["results", "write"])
    assert "(experiments/first/gallery.png)" in (published / "RESULTS.md").read_text()
    main(["results", "check"])


def test_a_gallery_of_nothing_is_refused(place: Path, run_copy: Path, capsys) -> None:
    draw = ["results", "gallery", str(run_copy), "--study", "first"]
    with pytest.raises(SystemExit):
        main([*draw, "--count", "0"])
    assert "at least 1 image" in capsys.readouterr().err
    shutil.rmtree(run_copy / "predictions" / "unary-seed0")
    with pytest.raises(SystemExit, match="no prediction at"):
        main(draw)
    for arm in run_copy.glob("arms/*"):
        if not arm.name.startswith("start"):
            shutil.rmtree(arm)
    with pytest.raises(SystemExit, match="two arms of one seed"):
        main(draw)
