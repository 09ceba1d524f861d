"""What is counted of every image: calibration by hand, files, sets of images, and harm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from eval.metrics import Scorer, SplitCounts, gains, harm_rate, joined, scores
from eval.metrics.boundary import boundary_f
from eval.metrics.confusion import class_accuracy, frequency_weighted_iou
from eval.metrics.scores import calibration_counts, expected_calibration_error, num_pixels

CLASSES = ("sky", "cow", "grass")


def test_likelihood_and_calibration_are_those_of_torch_and_torchmetrics() -> None:
    logits, mask = 2 * torch.randn(5, 30, 40), torch.randint(0, 5, (30, 40))
    mask[torch.rand(30, 40) < 0.1] = 255
    counts, labelled = calibration_counts(logits, mask), mask != 255
    # float32 rounding of each pixel's term, 2^-23 of it
    nll = F.cross_entropy(logits.double()[None], mask[None], ignore_index=255, reduction="sum")
    assert counts.nll == pytest.approx(float(nll), rel=1e-6)
    p = logits.double().softmax(0)[:, labelled]
    one_hot = F.one_hot(mask[labelled], 5).T
    assert counts.brier == pytest.approx(float((p - one_hot).square().sum()), rel=1e-6)
    assert num_pixels(counts.bins) == labelled.sum()
    expected = multiclass_calibration_error(
        logits[None], mask[None], num_classes=5, n_bins=15, ignore_index=255
    )
    # torchmetrics sums in float32
    assert float(expected_calibration_error(counts.bins)) == pytest.approx(
        float(expected), abs=1e-5
    )


def test_certainty_does_not_overflow_and_void_counts_nothing() -> None:
    logits = torch.tensor([[[1e4]], [[-1e4]]])
    for truth, nll, brier, last in (
        (0, 0.0, 0.0, [1, 1, 1]),
        (1, 2e4, 2.0, [1, 0, 1]),
        (255, 0, 0, [0] * 3),
    ):
        found = calibration_counts(logits, torch.tensor([[truth]]))
        assert (float(found.nll), float(found.brier), found.bins[-1].tolist()) == (nll, brier, last)


def counts_of(seeds: list[int], *, shift: int = 1, with_logits: bool = True) -> SplitCounts:
    scorer = Scorer(CLASSES, (0, 1), trimap_widths=(1, 3))
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        mask = torch.randint(0, 3, (8, 9 + seed), generator=generator).sort(1).values
        mask[0] = 255
        logits = torch.randn(3, *mask.shape, generator=generator)
        prediction = mask.clamp(max=2).roll(shift, 1)
        scorer.update(f"image {seed}", prediction, mask, logits if with_logits else None)
    return scorer.counts()


def test_bands_add_up_to_the_confusion() -> None:
    counts = counts_of([0, 1])
    assert counts.confusions.sum() == 7 * 9 + 7 * 10
    rings = counts.rings.toarray().sum(0).reshape(3, 3, 3)  # ring, truth, prediction
    assert counts.within(3).sum(0).tolist() == (rings[0] + rings[1]).tolist()
    with pytest.raises(ValueError, match=r"no trimap width of 2 px: counted were \(1, 3\)"):
        counts.within(2)


def test_every_score_is_made_of_its_own_counts() -> None:
    counts = counts_of([0, 1, 2])
    result, bins, summed = scores(counts), counts.bins.sum(0), counts.confusions.sum(0)
    both, either = counts.boundary.sum(0)[:2].T  # of the scored classes
    nll, brier = counts.likelihood.sum(0) / num_pixels(bins)
    expected = {
        **{"nll": nll, "brier": brier, "ece": expected_calibration_error(bins)},
        **{"boundary_iou": (both / either).mean(), "fwiou": frequency_weighted_iou(summed)},
        "boundary_f": np.nanmean(boundary_f(counts.contours), axis=0)[:2].mean(),
        **{"class_accuracy": class_accuracy(summed, (0, 1))},
    }
    # Other orders of a few float64 sums.
    assert {key: result[key] for key in expected} == pytest.approx(
        {key: float(value) for key, value in expected.items()}, rel=1e-12
    )


def test_parts_join_and_some_images_are_those_images_and_a_file_gives_all_back(tmp_path) -> None:
    def same(a: SplitCounts, b: SplitCounts) -> bool:
        return scores(a) == scores(b) and a.names == b.names and a.widths == b.widths

    whole = counts_of([0, 1, 2, 3])
    parts = [counts_of(seeds) for seeds in ([0, 2], [1, 3], [])]
    assert same(joined(parts, whole.names), whole)
    with pytest.raises(ValueError, match="scored more than once: image 0"):
        joined([parts[0], parts[0]], whole.names)
    assert same(whole.of(["image 2", "image 0"]), counts_of([2, 0]))
    path = tmp_path / "folder" / "counts-report.npz"
    with pytest.raises(FileNotFoundError, match="no counts at"):
        SplitCounts.load(path)
    whole.save(path)
    assert same(SplitCounts.load(path), whole)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    stored = path.read_bytes()
    for damaged in (b"", stored[: len(stored) // 2], stored[:-5], b"not an archive"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"is damaged: .*Score the run again"):
            SplitCounts.load(path)
    np.savez(path, format=0)
    with pytest.raises(ValueError, match="counts of format 0, this version reads 1"):
        SplitCounts.load(path)


def test_without_logits_there_is_no_likelihood_and_they_fit_the_mask() -> None:
    result = scores(counts_of([0], with_logits=False))
    assert (result["nll"], result["brier"], result["ece"]) == (None, None, None)
    assert result["miou"] is not None
    mask = torch.zeros(4, 5).long()
    with pytest.raises(ValueError, match=r"cow7: expected logits \(3, 4, 5\), got \(2, 4, 5\)"):
        Scorer(CLASSES, (0,)).update("cow7", mask, mask, torch.zeros(2, 4, 5))


def test_harm_is_counted_by_image() -> None:
    before = counts_of([0, 1, 2], shift=1)
    better, worse = (counts_of([0, 1, 2], shift=shift) for shift in (0, 3))
    assert harm_rate(before, better) == 0.0
    assert harm_rate(before, worse) == 1.0
    assert harm_rate(before, before) == 0.0  # no change does no harm
    strength, gained = gains(before, better)
    assert (strength + gained).tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="same images"):
        harm_rate(before, better.of(["image 1", "image 0", "image 2"]))
