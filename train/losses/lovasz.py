"""Lovász-softmax: the Jaccard loss, extended from masks to probabilities.

Berman, Triki and Blaschko, "The Lovász-Softmax Loss: A Tractable Surrogate for the
Optimization of the Intersection-Over-Union Measure in Neural Networks", CVPR 2018.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from data import VOID
from train.losses.reduction import precise

LovaszClasses = Literal["present", "all"]


def lovasz_softmax(
    logits: Tensor,
    labels: Tensor,
    *,
    classes: LovaszClasses = "present",
    per_image: bool = False,
) -> Tensor:
    """The mean over classes c of the Lovász extension of 1 - IoU_c, of every pixel's error.

        m_i = 1 - p_i(c) where y_i = c, else p_i(c),    p = softmax(logits).

    At one-hot p it is the mean of 1 - IoU_c exactly; between, it is piecewise linear in p and the
    tightest convex function through those points. Unlike cross-entropy it weighs a class by its
    union, however few its pixels. Computed in float32 whatever the logits come in.

    Each process takes the loss of its own batch: a Jaccard index does not add up over processes.

    Args:
        logits: (B, L, H, W).
        labels: y, (B, H, W) ids, 255 = void.
        classes: "present" averages over the classes that the labels hold; "all" over all: one
            that is absent costs as much as its surest wrong pixel.
        per_image: the mean of the losses of the images with a labelled pixel, instead of one
            loss over the pixels of the whole batch.

    Returns:
        A scalar; 0 where no pixel is labelled.
    """
    num_classes = logits.shape[1]
    q, ids = precise(logits).softmax(dim=1).flatten(2), labels.flatten(1)
    if not per_image:  # all pixels are one image's
        q, ids = q.transpose(0, 1).reshape(1, num_classes, -1), ids.reshape(1, -1)
    labelled = (ids != VOID)[:, None].expand_as(q)
    foreground = ids[:, None] == torch.arange(num_classes, device=ids.device)[:, None]
    losses = extended_jaccard((foreground.to(q.dtype) - q).abs(), foreground, labelled)

    counted = foreground if classes == "present" else labelled
    of_image = mean_where(losses, counted.any(dim=-1))
    return mean_where(of_image, labelled.any(dim=-1).any(dim=-1))


def extended_jaccard(errors: Tensor, foreground: Tensor, labelled: Tensor) -> Tensor:
    """The Lovász extension of the Jaccard loss of a set of mispredicted pixels.

        sum_k m_(k) (J({1..k}) - J({1..k-1})),    m_(1) >= m_(2) >= ...
        J(M) = |M| / |foreground or M|

    (Berman et al., equation 9). With n the foreground pixels, a the foreground and b the other
    pixels among the first k, J = (a + b) / (n + b), so that the difference is 1 / (n + b) at a
    foreground pixel and (n - a) / ((n + b)(n + b - 1)) at another. Written like this nothing
    cancels: of a million pixels the differences are a millionth, next to J of order one.

    Args:
        errors: m, (..., N), at least 0.
        foreground: (..., N) bool, the pixels of the class.
        labelled: (..., N) bool; the others are left out.

    Returns:
        (...), in [0, 1] where the errors are.
    """
    # Pixels that are left out come last, where they change no difference before them.
    ranked, order = torch.where(labelled, errors, -1).sort(dim=-1, descending=True)
    inside = foreground.gather(-1, order)
    total = (foreground & labelled).sum(dim=-1, keepdim=True)
    missing = total - inside.cumsum(dim=-1)  # n - a
    union = (total + (~inside).cumsum(dim=-1)).to(errors.dtype)  # n + b
    # Without foreground the first pixel is all of the union: J goes from 0 to 1.
    outside = torch.where(union > 1, missing / (union * (union - 1)), 1)
    difference = torch.where(inside, 1 / union, outside)
    return (ranked.clamp(min=0) * difference).sum(dim=-1)


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of the chosen values along the last axis; 0 where none is."""
    return torch.where(chosen, values, 0).sum(dim=-1) / chosen.sum(dim=-1).clamp(min=1)
