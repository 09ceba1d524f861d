"""One number that is taken from the logits of every finished arm."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from data import VOID
from eval.inference import coarse_unaries, evaluate
from eval.metrics import SplitCounts, harm_rate, mean_iou, scores
from eval.search import direction_of
from runtime.checkpoint import load_segmenter, read_checkpoint
from runtime.run_folder import read_json, split_of
from train.__main__ import main
from train.bias import tried


def test_every_arm_is_scored_with_its_best_bias(trained_run, tmp_path, monkeypatch, capsys) -> None:
    # What is stored with a run must name no full path, as the test run's own command may.
    monkeypatch.setattr("sys.argv", ["train", "bias", "run"])
    out = tmp_path / "biased"
    arguments = ["bias", str(trained_run), "--out", str(out), "--num-images", "3"]
    arguments += ["--values", "-30", "0.7", "--arms", "unary-seed1"]  # 0 would be no bias
    main([*arguments, "post-hoc-seed1"])
    assert capsys.readouterr().out.count("b = ") == 2
    for arm in ("unary", "post-hoc"):
        folder = out / "arms" / f"{arm}-seed1"
        result = json.loads((folder / "result.json").read_text())
        rows = {row["bias"]: row["miou"] for row in result["label_bias"]["tried"]}
        best = result["label_bias"]["bias"]
        assert list(rows) == [-30, 0.7]
        assert rows[best] == max(rows.values())
        checkpoint = read_checkpoint(folder / "checkpoint.pt")
        segmenter = load_segmenter(checkpoint)
        assert segmenter.config.label_bias == pytest.approx((best, *[0.0] * 8))
        report = split_of(checkpoint["data"], "report", None)
        counts = evaluate(segmenter, report, coarse_unaries(segmenter, report))
        kept = SplitCounts.load(folder / "counts-report.npz")
        np.testing.assert_array_equal(counts.confusions, kept.confusions)
        assert result["metrics"]["report"]["miou"] == scores(kept)["miou"]
    before = SplitCounts.load(out / "arms" / "post-hoc-seed1" / "counts-report-before-crf.npz")
    unary = SplitCounts.load(trained_run / "arms" / "unary-seed1" / "counts-report.npz")
    np.testing.assert_array_equal(before.confusions, unary.confusions)
    assert result["harm_rate"]["report"] == harm_rate(before, kept)
    # It can be gone on with.
    made = read_json(out / "origin.json")
    assert made[0] == read_json(trained_run / "origin.json")[0]
    stamp = (out / "arms" / "unary-seed1" / "result.json").stat().st_mtime_ns
    main([*arguments, "start-seed0"])
    assert (out / "arms" / "unary-seed1" / "result.json").stat().st_mtime_ns == stamp
    assert read_json(out / "origin.json")[:-1] == made
    with pytest.raises(SystemExit, match="have a bias already: give the run they are of"):
        main(["bias", str(out), "--out", str(tmp_path / "twice")])


def test_what_is_tried_is_what_is_scored(trained_run: Path) -> None:
    checkpoint = read_checkpoint(trained_run / "arms" / "post-hoc-seed1" / "checkpoint.pt")
    segmenter = load_segmenter(checkpoint)
    tune = split_of(checkpoint["data"], "tune", None)
    biases = [torch.zeros(9), torch.linspace(-0.5, 0.8, 9)]
    for bias, found in zip(biases, tried(segmenter, tune, range(len(tune)), biases), strict=True):
        segmenter.set_label_bias(bias.tolist())
        counts = evaluate(segmenter, tune, coarse_unaries(segmenter, tune))
        assert found == pytest.approx(float(mean_iou(counts.confusions.sum(0), tune.scored)))


def test_the_prior_is_that_of_the_training_pixels(trained_run: Path) -> None:
    checkpoint = read_checkpoint(trained_run / "arms" / "start-seed0" / "checkpoint.pt")
    train = split_of(checkpoint["data"], "train", None)
    masks = np.concatenate([train[k].mask.numpy().ravel() for k in range(len(train))])
    pixels = np.bincount(masks[masks != VOID], minlength=len(train.classes))
    rarest = pixels[pixels > 0].min()
    expected = np.log(np.maximum(pixels, rarest) / rarest)
    np.testing.assert_allclose(direction_of("prior", train).numpy(), expected, rtol=1e-6)
    assert direction_of("background", train).tolist() == [1.0, *[0.0] * 8]


def test_what_cannot_be_biased_is_named(trained_run: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="has no finished arm joint-seed7: expected one of crf-"):
        main(["bias", str(trained_run), *out, "--arms", "joint-seed7"])
    with pytest.raises(SystemExit, match="expected one of a run folder"):
        main(["bias", str(tmp_path), *out])
    assert not (tmp_path / "out").exists()


def test_the_four_cells_and_what_they_are_made_of(trained_run: Path, tmp_path, capsys) -> None:
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    main(["swap", str(run), "--split", "report"])
    found = read_json(run / "swap.json")
    assert found["seeds"] == [0, 1]
    cells = {cell: scores["mIoU"] for cell, scores in found["cells"].items()}
    for cell, arm in (("UU", "post-hoc"), ("JJ", "joint")):
        for seed in (0, 1):
            result = json.loads((run / "arms" / f"{arm}-seed{seed}" / "result.json").read_text())
            assert cells[cell][seed] == result["metrics"]["report"]["miou"]
    uu, uj, ju, jj = (cells[cell][1] for cell in ("UU", "UJ", "JU", "JJ"))
    effects = {name: scores["mIoU"]["by_seed"][1] for name, scores in found["effects"].items()}
    assert effects["network"] == pytest.approx((ju + jj - uu - uj) / 2)
    assert effects["CRF"] == pytest.approx((uj + jj - uu - ju) / 2)
    assert effects["interaction"] == pytest.approx(jj + uu - uj - ju)
    assert effects["network"] + effects["CRF"] == pytest.approx(jj - uu)
    (_, networks) = found["networks"]
    assert networks["unary moved"] > 0
    assert networks["joint moved"] > 0
    assert 0 < networks["same labels"] < 1
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("interaction", "joint moved", "foreground"))
    shutil.rmtree(run / "arms" / "joint-seed1")
    with pytest.raises(SystemExit, match=r"got them for the seeds \[0\]"):
        main(["swap", str(run), "--seeds", "0", "1"])
