"""Objective values against direct computations: counts, bands and likelihood."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar

from data import VOID, build
from eval.metrics import Scorer
from eval.metrics import scores as scores_of
from eval.tuning.filtered import by_widths
from eval.tuning.objective import LOG_SCALES, Measured, Scores, likelihood_curve, total
from eval.tuning.picture import LIKELIHOOD_STRIDE, measure, measure_network, prepare
from models import CrfConfig
from tests.eval.tuning_case import FORM, SCENES, hint, network

SETTING = CrfConfig(
    **{**asdict(FORM), "theta_alpha": 10.0, "theta_beta": 10.0, "bilateral_weight": 2.0}
)


def pictures(segmenter, floor: float, resolution: int = 1):
    split = build(SCENES, "tune")
    for sample in (split[k] for k in range(3)):
        coarse = hint(sample, len(split.classes))
        yield (
            sample,
            coarse,
            prepare(
                segmenter,
                sample,
                coarse,
                band="edge",
                width=2,
                floor=floor,
                resolution=resolution,
            ),
        )


@pytest.mark.parametrize("resolution", [1, 2])
def test_scores_are_those_of_the_segmenter_with_that_crf(resolution: int) -> None:
    setting = replace(SETTING, resolution=resolution)
    segmenter = network()
    split = build(SCENES, "tune")
    refining = segmenter.with_crf(setting).eval()
    scorer = Scorer(split.classes, split.scored, [2], band="edge")
    found, rows, labels = [], [], []
    for sample, coarse, picture in pictures(segmenter, 0.0, resolution):
        ((_, one),) = measure(segmenter, picture, [setting])
        found.append(one)
        image = sample.image[None].float()
        with torch.no_grad():
            logits = refining.refine(segmenter.enlarge(coarse, image.shape[2:]), image)
        scorer.update(sample.name, logits.argmax(1)[0], sample.mask)
        labelled = (sample.mask != VOID).flatten().nonzero()[::LIKELIHOOD_STRIDE, 0]
        rows.append(logits[0].flatten(1).t()[labelled].double())
        labels.append(sample.mask.flatten()[labelled])
    scores = total(found, split.scored)
    expected = scores_of(scorer.counts())
    assert scores.miou == pytest.approx(expected["miou"], abs=1e-12)
    assert scores.trimap_miou == pytest.approx(expected["trimap_miou"]["2"], abs=1e-12)
    fitted = minimize_scalar(
        lambda log_scale: F.cross_entropy(
            torch.cat(rows) * math.exp(log_scale), torch.cat(labels)
        ).item(),
        bounds=(-4.8, 0.6),
        method="bounded",
    )
    assert scores.nll == pytest.approx(fitted.fun, abs=1e-4)  # of the spline, see objective.py
    assert scores.output_scale == pytest.approx(math.exp(fitted.x), rel=0.03)  # the top is flat


def test_the_network_alone_is_scored_without_a_crf() -> None:
    segmenter = network()
    split = build(SCENES, "tune")
    scorer = Scorer(split.classes, split.scored, [2], band="edge")
    found = []
    for sample, coarse, picture in pictures(segmenter, 0.05):
        found.append(measure_network(segmenter, picture))
        logits = segmenter.enlarge(coarse, sample.mask.shape)
        scorer.update(sample.name, logits.argmax(1)[0], sample.mask)
    assert total(found, split.scored).miou == pytest.approx(
        scores_of(scorer.counts())["miou"], abs=1e-12
    )


@pytest.mark.parametrize("normalization", ["after", "symmetric", "none"])
@pytest.mark.parametrize("resolution", [1, 2])
def test_labels_left_out_come_back_for_the_likelihood(normalization, resolution: int) -> None:
    """Where they are nearly impossible, nothing changes but rounding and their share of q."""
    setting = replace(SETTING, normalization=normalization, resolution=resolution)
    if normalization == "none":  # K 1 counts hundreds of pixels
        setting = replace(setting, bilateral_weight=0.004, spatial_weight=0.1)
    segmenter = network()
    split = build(SCENES, "tune")
    for sample in (split[k] for k in range(2)):
        coarse = hint(sample, len(split.classes))
        coarse[:, 3:] -= 25.0  # q of these labels is about e-25
        whole, part = (
            prepare(
                segmenter,
                sample,
                coarse,
                band="edge",
                width=2,
                floor=floor,
                resolution=resolution,
            )
            for floor in (0.0, 1e-4)
        )
        assert (len(whole.rest), len(part.rest)) == (0, len(split.classes) - 3)
        ((_, a),) = measure(segmenter, whole, [setting])
        ((_, b),) = measure(segmenter, part, [setting])
        np.testing.assert_array_equal(a.counts, b.counts)
        # float32 logits of up to about 50: rounding of 4e-6 in each.
        np.testing.assert_allclose(b.curve, a.curve, rtol=1e-4, atol=1e-3)


def test_settings_of_the_same_widths_are_together() -> None:
    settings = [
        replace(SETTING, theta_alpha=alpha, bilateral_weight=w)
        for w in (1.0, 2.0)
        for alpha in (5.0, 9.0)
    ]
    groups = by_widths(settings)
    assert [len(group) for group in groups] == [2, 2]
    assert all(len({s.theta_alpha for s in group}) == 1 for group in groups)


def test_the_curve_and_its_slope_are_those_of_the_cross_entropy() -> None:
    rows, truth = torch.randn(50, 4), torch.randint(0, 4, (50,))
    curve = likelihood_curve(rows, truth)
    for k in (0, 9, 16):
        scale = torch.tensor(float(np.exp(LOG_SCALES[k])), dtype=torch.float64).log()
        scale.requires_grad_()
        nll = F.cross_entropy(rows.double() * scale.exp(), truth, reduction="sum")
        (slope,) = torch.autograd.grad(nll, scale)
        assert curve[0, k] == pytest.approx(nll.item(), rel=1e-5)  # float32
        assert curve[1, k] == pytest.approx(slope.item(), rel=1e-4, abs=1e-4)


def test_an_objective_without_anything_to_count_is_the_worst() -> None:
    empty = Measured(np.zeros((2, 3, 3), dtype=np.int64), np.zeros((2, len(LOG_SCALES))), 0)
    scores = total([empty], (0, 1))
    assert scores == Scores(None, None, None, 1.0)
    assert scores.value("miou") == scores.value("nll") == -math.inf


def test_the_likelihood_is_maximised_by_its_negative() -> None:
    scores = Scores(miou=0.5, trimap_miou=0.25, nll=2.0, output_scale=0.3)
    assert [scores.value(name) for name in ("miou", "trimap", "nll")] == [0.5, 0.25, -2.0]
