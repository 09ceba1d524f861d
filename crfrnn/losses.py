"""Losses for weak supervision: a segmentation pays for cutting what the image joins.

Where few pixels carry a label (scribbles, points), a cross-entropy on those and one of
these on all of them train a network without full masks. With S_l the (N,) probabilities
of label l, K the bilateral kernel and d = K 1,

    dense CRF:       sum_l S_l' K (1 - S_l)                 Tang et al., ECCV 2018
    normalised cut:  sum_l S_l' K (1 - S_l) / (S_l' d)      Tang et al., CVPR 2018

("On Regularized Losses for Weakly-supervised CNN Segmentation" and "Normalized Cut
Loss for Weakly-supervised CNN Segmentation"). Since
S_l' K 1 = S_l' d, the second is the number of labels minus sum_l S_l' K S_l / (S_l' d).

Both orders (i, j) and (j, i) of a pair count, and the self term k(f_i, f_i) = 1 as
everywhere here, so that an undecided pixel pays a little by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from crfrnn.checks import check_choice, check_image, check_mask, check_theta
from crfrnn.filters import NORMALIZATIONS, Filter, Normalization, Normalized
from crfrnn.kernels import GaussianKernel
from crfrnn.ops import rows_softmax

LossForm = Literal["dense_crf", "normalized_cut"]
Reduction = Literal["mean", "sum", "none"]
LossFilterName = Literal["lattice", "exact"]
REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": torch.mean,
    "sum": torch.sum,
    "none": torch.clone,
}


def dense_crf_loss(q: Tensor, kernel: Filter, mask: Tensor | None = None) -> Tensor:
    """sum_l S_l' K (1 - S_l) / N: what an average pixel pays for neighbours of other labels.

    Args:
        q: (B, N, L) probabilities S, pixel-major.
        kernel: K on those rows, symmetric or not.
        mask: (B, N) bool, True where a pixel is valid; None: everywhere. The others
            neither send nor receive, and N counts the valid ones.

    Returns:
        (B,), in kernel mass per valid pixel, whatever the size of the image. With K
        normalised "after" that is a share, 0..1: the chance that a neighbour drawn by
        the kernel has another label. 0 for an image without a valid pixel.
    """
    s, valid = valid_rows(q, mask)
    cut, _ = cut_and_volume(s, kernel, valid)
    return cut.sum(-1) / valid.sum((1, 2)).clamp_min(1)


def normalized_cut_loss(q: Tensor, kernel: Filter, mask: Tensor | None = None) -> Tensor:
    """sum_l S_l' K (1 - S_l) / (S_l' d), d = K 1: each label pays by its own volume.

    Args:
        q: (B, N, L) probabilities S, pixel-major.
        kernel: K on those rows, symmetric or not; its scale cancels.
        mask: (B, N) bool, True where a pixel is valid; None: everywhere.

    Returns:
        (B,), a sum of L shares, 0..L: a ratio needs no mean over pixels. A label of
        volume 0 is absent: it pays nothing and gets no gradient.
    """
    s, valid = valid_rows(q, mask)
    cut, volume = cut_and_volume(s, kernel, valid)
    present = volume > torch.finfo(volume.dtype).tiny
    return (cut / volume.where(present, 1.0)).where(present, 0.0).sum(-1)


def valid_rows(q: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """q with the rows of invalid pixels at 0, (B, N, L), and the 1s and 0s, (B, N, 1)."""
    if mask is None:
        return q, q.new_ones(*q.shape[:2], 1)
    return q.masked_fill(~mask[..., None], 0.0), mask[..., None].to(q.dtype)


def cut_and_volume(s: Tensor, kernel: Filter, valid: Tensor) -> tuple[Tensor, Tensor]:
    """S_l' K (1 - S_l) and S_l' d of each label, (B, L) each, over valid pixels.

    s is 0 wherever a pixel is invalid, so S_l' (...) also silences it as a receiver.
    """
    degree = kernel(valid)  # d = K 1, of the pixels that send
    cut = (s * (degree - kernel(s))).sum(1)
    return cut, (s * degree).sum(1)


class DenseCrfLoss(nn.Module):
    """The regularised losses of Tang et al. on the bilateral kernel of an image.

    The gradient reaches the logits, and an image that requires one, through the true
    transpose of the filter.

    Args:
        form: "dense_crf" (`dense_crf_loss`) or "normalized_cut" (`normalized_cut_loss`).
        theta_alpha: kernel, position, pixels of the grid of the logits.
        theta_beta: kernel, colour, grey levels of 0..255. The defaults, 100 and 15, are
            those of the authors' README.
        normalization: of K. None is "symmetric" for the dense CRF and "none" for the
            normalised cut, which divides by volumes itself. The papers use "none" for
            both; but then the dense CRF loss is in kernel mass, which grows with theta
            and carries an arbitrary factor on the lattice, where "symmetric" and "after"
            make it a number of order 0..1 under either filter.
        method: filter, "lattice" or "exact" (O(N^2)).
        reduction: over images: "mean", "sum" or "none".

    Shapes: logits (B, L, H, W), image (B, 3, H, W), mask (B, H, W) -> () or, "none", (B,).
    """

    def __init__(
        self,
        form: LossForm = "dense_crf",
        *,
        theta_alpha: float = 100.0,
        theta_beta: float = 15.0,
        normalization: Normalization | None = None,
        method: LossFilterName = "lattice",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_choice("form", form, get_args(LossForm))
        if normalization is None:
            normalization = "symmetric" if form == "dense_crf" else "none"
        check_choice("normalization", normalization, NORMALIZATIONS)
        check_choice("method", method, get_args(LossFilterName))
        check_choice("reduction", reduction, get_args(Reduction))
        self.form = form
        check_theta("theta_alpha", theta_alpha, "pixels")
        check_theta("theta_beta", theta_beta, "grey levels of 0..255")
        self.kernel = GaussianKernel(
            theta_position=theta_alpha, theta_guide=theta_beta, filter_name=method
        )
        self.normalization = normalization
        self.method = method
        self.reduction = reduction

    def forward(self, logits: Tensor, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of a batch of segmentations.

        Args:
            logits: (B, L, H, W), any floating dtype, not probabilities: the softmax is
                taken here, in at least float32.
            image: (B, 3, H, W) RGB in 0..255, uint8 or floating point, also where invalid.
            mask: (B, H, W) bool, True where a pixel is valid (not padding); None:
                everywhere. Invalid pixels neither send nor receive.

        Returns:
            () or, for reduction "none", (B,); in the unit of the plain function of `form`.

        Raises:
            ValueError: shapes or devices that differ, values that are not finite, an image
                that cannot be 0..255, a width too small for the lattice.
            TypeError: no tensor, a dtype that is not as above.
        """
        check_logits(logits)
        check_image(image, logits, "0..255")
        check_mask(mask, logits)
        with torch.autocast(logits.device.type, enabled=False):
            precise = torch.promote_types(logits.dtype, torch.float32)
            q = rows_softmax(logits.to(precise).flatten(2).transpose(1, 2), "automatic")
            valid = None if mask is None else mask.flatten(1)
            kernel = self.build_kernel(image.to(precise), valid)
            loss = dense_crf_loss if self.form == "dense_crf" else normalized_cut_loss
            each = loss(q, kernel, valid)
        return REDUCTIONS[self.reduction](each)

    def build_kernel(self, image: Tensor, mask: Tensor | None = None) -> Filter:
        """The normalised bilateral filter of a batch of images.

        Args:
            image: (B, 3, H, W) floating point RGB in 0..255.
            mask: (B, HW) bool, or None.
        """
        batch, _, *shape = image.shape
        valid = image.new_ones(batch, math.prod(shape), 1)
        if mask is not None:
            valid = mask[..., None].to(valid.dtype)
        masked = mask is not None
        kernel = self.kernel(shape, image, valid, masked=masked)
        return Normalized(kernel, self.normalization, valid, masked=masked)

    def extra_repr(self) -> str:
        """The configuration in the words of the constructor."""
        return f"{self.form!r}, normalization={self.normalization!r}, reduction={self.reduction!r}"


def check_logits(logits: object) -> None:
    """Raise unless logits are (B, L, H, W), floating point and finite."""
    if not isinstance(logits, Tensor):
        raise TypeError(f"logits must be a torch.Tensor (B, L, H, W), got {type(logits).__name__}.")
    if logits.ndim != 4 or logits.numel() == 0:
        raise ValueError(
            f"logits must be (B, L, H, W) with at least one pixel, got {tuple(logits.shape)}. "
            "The label axis is axis 1; logits[None] adds a batch axis."
        )
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point (higher = likelier), got {logits.dtype}.")
    if not torch.isfinite(logits).all():
        raise ValueError(
            "logits must be finite, got NaN or infinite values. Of probabilities, pass "
            "p.clamp_min(1e-5).log()."
        )
