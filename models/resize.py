"""Between the grids of image, network and CRF."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING_GREY = 128.0  # what the published networks pad with, RGB in 0..255


def pad_to_stride(image: Tensor, stride: int, minimum: int) -> Tensor:
    """Pad with grey at the bottom and right to stride * k + 1, at least `minimum`.

    At these sizes the corners of image and logits coincide.
    """
    height, width = padded_size(image.shape[2:], stride, minimum)
    padding = (0, width - image.shape[3], 0, height - image.shape[2])
    return F.pad(image, padding, value=PADDING_GREY)


def padded_size(size: Sequence[int], stride: int, minimum: int) -> tuple[int, ...]:
    """(H, W) of an image of that size after `pad_to_stride`."""
    return tuple(math.ceil((max(n, minimum) - 1) / stride) * stride + 1 for n in size)


def shrink(x: Tensor, factor: int) -> Tensor:
    """Average to a grid `factor` times coarser: (B, C, ceil(H / factor), ceil(W / factor))."""
    if factor == 1:
        return x
    size = [math.ceil(n / factor) for n in x.shape[2:]]
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)


def shrink_image(image: Tensor, factor: int) -> Tensor:
    """`shrink` for RGB in 0..255: rounding must not leave that range."""
    return shrink(image, factor).clamp(0, 255)


def stretch(x: Tensor, size: torch.Size) -> Tensor:
    """The way back from `shrink`: bilinear, to (H, W)."""
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def subsample_labels(labels: Tensor, stride: int) -> Tensor:
    """Labels of the pixels that logits at a stride sit on: every stride-th, the first included.

    Never interpolated, and exactly where the logits are: "nearest" resizing takes pixels up to
    stride - 1 further on.

    Args:
        labels: (B, H, W) ids.
        stride: of the logits.

    Returns:
        (B, ceil(H / stride), ceil(W / stride)).
    """
    return labels[..., ::stride, ::stride]
