"""`python -m eval run` counts on what the whole-image options predict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import data
from data import CollageConfig
from eval.__main__ import main
from eval.checkpoint import load_segmenter, read_checkpoint
from eval.inference import coarse_unaries, evaluate, image_of
from eval.run import count
from eval.whole_image import InferenceConfig, infer
from tests.eval.tiny_checkpoint import tiny_checkpoint

COLLAGE = CollageConfig(size=33, num_train=1, num_tune=3, num_report=3)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "tiny.pt", data=COLLAGE)


def test_without_options_it_counts_what_evaluate_counts(checkpoint: Path) -> None:
    segmenter = load_segmenter(read_checkpoint(checkpoint))
    split = data.build(COLLAGE, "tune")
    found = count(segmenter, split, InferenceConfig(), batch_size=1)
    coarse = coarse_unaries(segmenter, split)
    for kind, counts in found.items():
        expected = evaluate(segmenter, split, coarse, use_crf=kind == "crf")
        assert np.array_equal(counts.confusions, expected.confusions)
        assert np.array_equal(counts.likelihood, expected.likelihood)
    assert list(found) == ["unary", "crf"]


def test_options_change_the_prediction_and_batches_do_not(checkpoint: Path) -> None:
    segmenter = load_segmenter(read_checkpoint(checkpoint))
    split = data.build(COLLAGE, "tune")
    config = InferenceConfig((0.5, 1.0), flip=True)
    alone = count(segmenter, split, config, batch_size=1)
    together = count(segmenter, split, config, batch_size=3)
    sample = split[0]
    ids = infer(segmenter, image_of(sample, segmenter.device), config).logits.argmax(1)[0]
    right = int((ids == sample.mask).sum())
    assert np.trace(alone["crf"].confusions[0]) == right
    for kind in ("unary", "crf"):
        # Rounding may turn a pixel where two classes tie.
        difference = np.abs(alone[kind].confusions - together[kind].confusions).sum()
        assert difference <= 4


def test_the_options_reach_it(checkpoint: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "scores.json"
    words = ["run", str(checkpoint), "--split", "tune", "--out", str(out)]
    main(words)
    plain = out.read_text()
    main([*words, "--scales", "0.5", "1", "--flip", "--batch-size", "2"])
    assert out.read_text() != plain
    with pytest.raises(SystemExit, match="error: scales must be one or more numbers above 0"):
        main([*words, "--scales", "0"])
