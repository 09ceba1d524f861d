"""Labels that no pixel gives a chance are left out, within the bound that the docstring proves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crfrnn import CrfRnn, refine
from crfrnn import densecrf as dcrf
from crfrnn.filters import Normalization

LABELS, FLOOR = 12, 1e-3


def problem(batch: int = 2) -> tuple[Tensor, Tensor]:
    """Logits of which each image has five likely labels of its own, and an image with edges."""
    unary = 2 * torch.randn(batch, LABELS, 20, 24)
    for b in range(batch):
        for label in range(LABELS):
            if (label - b) % LABELS >= 5:
                unary[b, label] = -12 + torch.rand(20, 24)
    blocks = 255 * torch.rand(batch, 3, 4, 4)
    return unary, blocks.repeat_interleave(5, 2).repeat_interleave(6, 3)


def layer(normalization: Normalization = "after", **options: Any) -> CrfRnn:
    everything: dict[str, Any] = {
        "theta_alpha": 10.0, "bilateral_weight": 4.0, "spatial_weight": 1.0,
        "kernel_weights": "scalar", "compatibility": "potts", "normalization": normalization,
    }  # fmt: skip
    return CrfRnn(LABELS, **everything | options).eval()


@torch.no_grad()
def test_what_is_left_out_could_not_have_passed_the_bound() -> None:
    """q_l <= eps exp(e w eps) in the whole problem, and others move by at most s e eps a step."""
    unary, image = problem()
    q, floored = (layer(label_floor=f)(unary, image).softmax(1) for f in (0.0, FLOOR))
    peak = unary.softmax(1).amax((2, 3))
    out = peak < FLOOR
    assert out.sum(1).tolist() == [7, 7]
    weight = 5.0
    bound = peak * math.exp(weight * math.e * FLOOR)
    assert (q.amax((2, 3)) <= bound)[out].all()
    assert (floored.amax((2, 3)) <= peak * (1 + 1e-4))[out].all()  # they keep their probability
    # Ten steps, each of which may carry what came before with w / 2; seen: 1e-4.
    assert (q - floored).abs().max() < 7 * math.e * FLOOR
    assert not torch.equal(q, floored)
    torch.testing.assert_close(floored.sum(1), torch.ones(2, 20, 24))


@torch.no_grad()
@pytest.mark.parametrize("normalization", ["symmetric", "before"])
def test_labels_are_those_of_the_whole_problem_and_of_an_image_its_own(
    normalization: Normalization,
) -> None:
    unary, image = problem()
    whole, crf = (layer(normalization, label_floor=f) for f in (0.0, FLOOR))
    both = crf(unary, image)
    assert torch.equal(whole(unary, image).argmax(1), both.argmax(1))
    for b in range(2):
        alone = crf(unary[b : b + 1], image[b : b + 1])
        # A softmax over more labels, with zeros, sums in another order.
        torch.testing.assert_close(both[b : b + 1], alone, rtol=1e-5, atol=1e-4)


def test_training_and_gradients_are_of_the_whole_problem() -> None:
    unary, image = problem(1)
    whole, floored = (layer(label_floor=f, num_iterations=10) for f in (0.0, FLOOR))
    assert torch.equal(floored(unary, image), whole(unary, image))
    with torch.no_grad():
        assert torch.equal(floored.train()(unary, image), whole.train()(unary, image))


def test_the_drop_in_and_refine() -> None:
    unary, image = problem(1)
    p = unary.softmax(1)[0].numpy()
    rgb = image[0].permute(1, 2, 0).numpy().astype(np.uint8)
    marginals = []
    for floor in (0.0, FLOOR):
        d = dcrf.DenseCRF2D(24, 20, LABELS, label_floor=floor)
        d.setUnaryEnergy(dcrf.unary_from_softmax(p))
        d.addPairwiseBilateral(10, 13, rgb, 4)
        marginals.append(d.inference(10))
    assert 0 < np.abs(marginals[0] - marginals[1]).max() < 7 * math.e * FLOOR
    by_default, whole = (refine(p, rgb, output="mask", label_floor=f) for f in (None, 0.0))
    np.testing.assert_array_equal(by_default, whole)
    q, floored = (refine(p, rgb, label_floor=f) for f in (None, FLOOR))
    assert not np.array_equal(q, floored)
