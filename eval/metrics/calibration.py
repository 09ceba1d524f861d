"""What probabilities are worth: negative log-likelihood, Brier score, calibration error.

Sums over the labelled pixels of an image, which add up over images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data.dataset import VOID
from eval.metrics.confusion import Floats, ratio

NUM_BINS = 15  # of confidence, equally wide, as in Guo et al.


class CalibrationCounts(NamedTuple):
    """The sums of one image, or of N stacked.

    Attributes:
        nll: sum of -log p(truth).
        brier: sum over pixels and labels of (p(l) - [l = truth])^2.
        bins: (15, 3) by confidence max_l p(l): pixels, right ones, sum of the confidence.
    """

    nll: npt.NDArray[np.float64]
    brier: npt.NDArray[np.float64]
    bins: npt.NDArray[np.float64]


def calibration_counts(logits: Tensor, mask: Tensor) -> CalibrationCounts:
    """The sums of one image.

    Args:
        logits: (L, H, W), of any scale that softmax makes probabilities of.
        mask: (H, W) ids, 255 = void.
    """
    logits = logits.float()
    log_sum = logits.logsumexp(0)  # Z below: p(l) = exp(logits_l) / Z
    labelled = mask != VOID
    truth = torch.where(labelled, mask, 0).to(logits.device)
    at_truth = logits.gather(0, truth[None])[0] - log_sum
    sum_of_squares = (logits * 2).logsumexp(0) - 2 * log_sum  # log sum_l p(l)^2
    highest, label = logits.max(0)
    # From here on one number a pixel, summed in float64.
    nll, brier, confidence, right = (
        values.cpu()[labelled].double()
        for values in (
            -at_truth,
            sum_of_squares.exp() - 2 * at_truth.exp() + 1,
            (highest - log_sum).exp(),
            label == truth,
        )
    )
    number = (confidence * NUM_BINS).ceil().long().clamp(1, NUM_BINS) - 1  # bins (k, k + 1] / 15
    bins = torch.stack(
        [
            torch.bincount(number, minlength=NUM_BINS).double(),
            torch.bincount(number, right, NUM_BINS),
            torch.bincount(number, confidence, NUM_BINS),
        ],
        dim=1,
    )
    return CalibrationCounts(
        np.asarray(nll.sum().item()), np.asarray(brier.sum().item()), bins.numpy()
    )


def num_pixels(bins: Floats) -> Floats:
    """How many pixels were counted: (..., 15, 3) -> (...)."""
    return np.asarray(bins[..., 0].sum(-1))


def expected_calibration_error(bins: Floats) -> Floats:
    """sum_b |right_b - confidence_b| / pixels, (..., 15, 3) -> (...), in 0..1.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 5.
    """
    return ratio(np.abs(bins[..., 1] - bins[..., 2]).sum(-1), num_pixels(bins))
