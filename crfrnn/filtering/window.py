"""The Gaussian kernel cut to a window: the neighbourhood of ConvCRF and PAC-CRF.

    (K v)_i = sum_{j in W(i)} exp(-|f_i - f_j|^2 / 2) v_j

W(i) holds the pixels whose distance from i along each axis is 0, s, 2s, ..., r s, with the
dilation s and the radius r; pixels outside the grid do not exist. Teichmann and Cipolla,
"Convolutional CRFs for Semantic Segmentation", BMVC 2019, section 4; Su et al.,
"Pixel-Adaptive Convolutional Neural Networks", CVPR 2019, section 4.2 (dilation).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor


def window_filter(
    features: Tensor, v: Tensor, shape: Sequence[int], radius: int, dilation: int
) -> Tensor:
    """K v, one offset of the window at a time: O(N (2r + 1)^ndim L) time, O(N L) memory.

    K is symmetric, because the window is: this is K' v as well.

    Args:
        features: (B, N, d), already divided by theta; N = the grid in row-major order.
        v: (B, N, L).
        shape: the grid, for example (H, W).
        radius: r, steps on each side of a pixel.
        dilation: s, pixels in a step.

    Returns:
        (B, N, L).
    """
    guide = features.reshape(features.shape[0], *shape, -1)
    source = v.reshape(v.shape[0], *shape, -1)
    out = torch.zeros_like(source)
    for here, there in window(shape, radius, dilation):
        distance = (guide[here] - guide[there]).square_().sum(-1, keepdim=True)
        out[here] += distance.mul_(-0.5).exp_() * source[there]
    return out.reshape(v.shape)


Slices = tuple[slice, ...]


def window(shape: Sequence[int], radius: int, dilation: int) -> Iterator[tuple[Slices, Slices]]:
    """For each offset of the window, the pixels that have such a neighbour, and the neighbours."""
    steps = range(-radius * dilation, radius * dilation + 1, dilation)
    for offset in product(*([o for o in steps if abs(o) < n] for n in shape)):
        here = [slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, shape, strict=True)]
        there = [slice(max(0, o), n + min(0, o)) for o, n in zip(offset, shape, strict=True)]
        yield (slice(None), *here), (slice(None), *there)
