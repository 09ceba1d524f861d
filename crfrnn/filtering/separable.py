"""The spatial Gaussian on a pixel grid, exact and separable.

exp(-|p_i - p_j|^2 / (2 theta^2)) is a product over axes, so K is a convolution along one
axis after the other. The sum stops at the image's border, as the exact O(N^2) sum does:
nothing is padded, mirrored or renormalised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from crfrnn.rows import aligned


def separable_filter(theta: Tensor, v: Tensor, shape: Sequence[int]) -> Tensor:
    """K v by one convolution per axis. K is symmetric: this is K' v as well.

    Args:
        theta: (ndim,), one standard deviation per axis, pixels.
        v: (B, N, L), N = the grid in row-major order.
        shape: the grid, for example (H, W).

    Returns:
        (B, N, L).
    """
    if v.shape[0] > 1:
        # The sums of a convolution in float64 depend on the place of the image in its batch.
        return torch.cat([separable_filter(theta, image, shape) for image in v.split(1)])  # type: ignore[no-untyped-call]
    v = aligned(v)
    return convolve_axes(gaussian_taps(theta, shape), v, shape)


def convolve_axes(every: Sequence[Tensor], v: Tensor, shape: Sequence[int]) -> Tensor:
    """One convolution for each axis, with its taps: (B, N, L)."""
    for axis, taps in enumerate(every):
        v = convolve(v, taps, shape, axis)
    return v


def separable_theta_grad(theta: Tensor, v: Tensor, grad: Tensor, shape: Sequence[int]) -> Tensor:
    """d <grad, K v> / d theta: (ndim,)."""
    every = gaussian_taps(theta, shape)
    result = torch.zeros_like(theta)
    for axis, derivative in enumerate(taps_grads(theta, every)):
        filtered = convolve_axes([*every[:axis], derivative, *every[axis + 1 :]], v, shape)
        # Over labels first: the sum of everything at once depends on the number of threads.
        result[axis] = (grad * filtered).sum(2).reshape(-1, v.shape[1]).sum(1).sum()
    return result


def taps_grads(theta: Tensor, every: Sequence[Tensor]) -> list[Tensor]:
    """d taps / d theta along each axis: of exp(-r^2 / (2 theta^2)), r^2 / theta^3 times itself."""
    return [taps * offsets(taps).square() / theta[axis] ** 3 for axis, taps in enumerate(every)]


def gaussian_taps(theta: Tensor, shape: Sequence[int]) -> list[Tensor]:
    """exp(-r^2 / (2 theta^2)) for r = -radius..radius along each axis.

    The taps left out are together below half a unit in the last place of the sum of all: lost in
    rounding. No radius needs to pass the grid's own length.
    """
    epsilon = torch.finfo(theta.dtype).eps / 2
    taps = []
    for width, size in zip(theta.tolist(), shape, strict=True):
        reach = math.ceil(width * math.sqrt(-2 * math.log(epsilon)))
        half = [math.exp(-0.5 * (r / width) ** 2) for r in range(reach + 1)]
        radius, left_out = reach, 0.0
        while radius > 0 and 2 * (left_out + half[radius]) <= epsilon * (2 * sum(half) - 1):
            left_out += half[radius]
            radius -= 1
        radius = min(radius, size - 1)
        position = torch.arange(-radius, radius + 1, dtype=theta.dtype, device=theta.device)
        taps.append((position / width).square_().mul_(-0.5).exp_())
    return taps


def offsets(taps: Tensor) -> Tensor:
    """r of each tap: -radius..radius."""
    radius = taps.numel() // 2
    return torch.arange(-radius, radius + 1, dtype=taps.dtype, device=taps.device)


def convolve(v: Tensor, taps: Tensor, shape: Sequence[int], axis: int) -> Tensor:
    """Correlate v (B, N, L) with taps along one axis of the grid; zero outside it.

    The rows are what torch calls a channels-last picture, of which a depthwise convolution
    is fast and sums in one order whatever the number of threads.
    """
    if v.shape[2] == 1:
        # A picture of one channel takes another path, whose sums depend on the batch.
        return convolve(v.expand(-1, -1, 2), taps, shape, axis)[..., :1].contiguous()
    batch, num_pixels, labels = v.shape
    before, size = batch * math.prod(shape[:axis]), shape[axis]
    picture = v.reshape(before, size, -1, labels).permute(0, 3, 1, 2)
    kernel = taps.reshape(1, 1, -1, 1).expand(labels, -1, -1, -1)
    out = F.conv2d(picture, kernel, padding=(taps.numel() // 2, 0), groups=labels)
    return out.permute(0, 2, 3, 1).reshape(batch, num_pixels, labels)
