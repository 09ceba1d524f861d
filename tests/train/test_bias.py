"""One number that is taken from the logits of every finished arm."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from data import VOID
from eval.inference import coarse_unaries, evaluate
from eval.metrics import SplitCounts, harm_rate, mean_iou, scores
from eval.results.study import runs_of
from eval.search import direction_of
from models import CrfConfig, Segmenter, SegmenterConfig
from runtime.checkpoint import load_segmenter, read_checkpoint
from runtime.run_folder import read_json, split_of
from train.__main__ import main
from train.bias import tried


def test_the_bias_is_taken_in_front_of_the_crf(tiny) -> None:
    segmenter = Segmenter(SegmenterConfig(3, tiny.model.network, CrfConfig(resolution=2))).eval()
    image = torch.rand(1, 3, 33, 35) * 255
    with torch.no_grad():
        before = segmenter(image)
        segmenter.set_label_bias([2.0, 0.0, -1.0])
        after = segmenter(image)
        taken = before.unary - torch.tensor([2.0, 0.0, -1.0])[:, None, None]
        torch.testing.assert_close(after.unary, taken)
        torch.testing.assert_close(after.crf, segmenter.refine(taken, image))
    with pytest.raises(ValueError, match="one number for each of the 3 labels, or none; got 2"):
        segmenter.set_label_bias([1.0, 2.0])


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
    # It can be stored beside the run,
    biased, plain = ([s.result for s in runs_of(r, "x", "report")] for r in (out, trained_run))
    configurations = [{record["configuration"] for record in some} for some in (biased, plain)]
    assert configurations[0].isdisjoint(configurations[1])
    assert all("bias" in record for record in biased)
    # and gone on with.
    made = read_json(out / "origin.json")
    assert made[0] == read_json(trained_run / "origin.json")[0]
    stamp = (out / "arms" / "unary-seed1" / "result.json").stat().st_mtime_ns
    main([*arguments, "start-seed0"])
    assert capsys.readouterr().out.count("b = ") == 1
    assert (out / "arms" / "unary-seed1" / "result.json").stat().st_mtime_ns == stamp
    assert read_json(out / "origin.json")[:-1] == made
    with pytest.raises(SystemExit, match="have a bias already: give the run they are of"):
        main(["bias", str(out), "--out", str(tmp_path / "twice")])


@pytest.mark.parametrize("arm", ["unary", "post-hoc"])
def test_what_is_tried_is_what_is_scored(trained_run: Path, arm: str) -> None:
    checkpoint = read_checkpoint(trained_run / "arms" / f"{arm}-seed1" / "checkpoint.pt")
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
