"""What a setting is judged by: mean IoU, mean IoU near boundaries, or likelihood.

Every image gives exact counts and a curve; the scores of all images come from their sums,
which do not depend on who added what.

The likelihood is that of the CRF's own output at its best temperature,

    NLL(s) = -mean_i log softmax(s z_i)[y_i],   NLL = min_s NLL(s),

with s the `output_scale` (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017,
section 4.2). At s = 1 it would measure little but how overconfident mean field is. NLL(s) is convex
in s, and known with its derivative at the scales of `LOG_SCALES`; between them a cubic
Hermite spline is off by less than 1e-4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.interpolate import CubicHermiteSpline
from torch import Tensor

from eval.metrics import mean_iou

Counts = npt.NDArray[np.int64]

Objective = Literal["miou", "trimap", "nll"]

LOG_SCALES = math.log(2) * np.arange(-7, 1.5, 0.5)


@dataclass(frozen=True)
class Measured:
    """One image under one setting.

    Attributes:
        counts: (2, L, L) pixels, rows = truth: of the whole image, and of its trimap band.
        curve: (2, S), the summed NLL of the pixels at every scale, and its derivative by log s.
        pixels: how many were summed.
    """

    counts: Counts
    curve: npt.NDArray[np.float64]
    pixels: int


@dataclass(frozen=True)
class Scores:
    """Of all images under one setting.

    Attributes:
        miou, trimap_miou: in 0..1, None where there is nothing to count.
        nll: nats for each pixel, at the best temperature; None without a labelled pixel.
        output_scale: that temperature's inverse.
    """

    miou: float | None
    trimap_miou: float | None
    nll: float | None
    output_scale: float

    def value(self, objective: Objective) -> float:
        """What is maximised; -inf where the objective has nothing to count."""
        found = {"miou": self.miou, "trimap": self.trimap_miou, "nll": self.nll}[objective]
        if found is None:
            return -math.inf
        return -found if objective == "nll" else found


def likelihood_curve(rows: Tensor, truth: Tensor) -> npt.NDArray[np.float64]:
    """`Measured.curve` of logits (P, L) with their labels (P,)."""
    curve = np.zeros((2, len(LOG_SCALES)))
    own = rows.gather(1, truth[:, None])[:, 0]
    for k, scale in enumerate(np.exp(LOG_SCALES)):
        log_q = F.log_softmax(rows * scale, dim=1)
        expected = (log_q.exp() * rows).sum(1)
        curve[0, k] = -log_q.gather(1, truth[:, None]).sum(dtype=torch.float64)
        curve[1, k] = scale * (expected - own).sum(dtype=torch.float64)
    return curve


def total(measured: Sequence[Measured], scored: Sequence[int]) -> Scores:
    """The scores of some images.

    Args:
        measured: of every image, in an order that is always the same.
        scored: ids whose IoU is averaged.
    """
    counts = np.sum([m.counts for m in measured], axis=0)
    miou, trimap_miou = (float(v) if v == v else None for v in mean_iou(counts, scored))
    pixels = sum(m.pixels for m in measured)
    if pixels == 0:
        return Scores(miou, trimap_miou, None, 1.0)
    nll, slope = np.stack([m.curve for m in measured]).sum(0) / pixels
    spline = CubicHermiteSpline(LOG_SCALES, nll, slope)
    flat = spline.derivative().roots(extrapolate=False)
    places = np.concatenate([LOG_SCALES[[0, -1]], flat[np.isfinite(flat)]])
    best = places[np.argmin(spline(places))]
    return Scores(miou, trimap_miou, float(spline(best)), math.exp(best))
