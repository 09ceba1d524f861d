"""The arithmetic in plain PyTorch, the specification of every faster path: rows and filters.

Functions of the same names in `cpu.py` and `gpu/` compute the same; `ops.py` chooses. The
permutohedral lattice is in `lattice.py`. All rows are pixel-major: v is (B, N, L).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product as cartesian_product

import torch
import torch.nn.functional as F
from torch import Tensor

from crfrnn.lattice import build_lattice, lattice_filter, lattice_weights_grad

__all__ = [
    "build_lattice",
    "exact_features_grad",
    "exact_filter",
    "exact_order",
    "gaussian_features_grad",
    "inner",
    "lattice_filter",
    "lattice_weights_grad",
    "product",
    "separable_filter",
    "separable_theta_grad",
    "softmax",
    "window_filter",
]

# Products of pixel rows with small matrices, the same bits however the work is split.
#
# One large product is cut up by the number of threads and of images, and the cuts show in the
# last bits. Here every product is of CHUNK rows of one image, and a sum over pixels is a sum
# over chunks. Two chunks at least: a batch of one takes another path through the library.

CHUNK = 512  # rows in one product
ALIGNMENT = 64  # bytes


def product(v: Tensor, matrix: Tensor) -> Tensor:
    """v @ matrix for rows v (B, N, L) and a small matrix (L, K): (B, N, K)."""
    out = v.new_empty(*v.shape[:2], matrix.shape[1])
    for rows, result in zip(v, out, strict=True):
        body, rest = split(aligned(rows))
        if body.shape[0]:
            whole = result[: body.shape[0] * CHUNK].view(*body.shape[:2], matrix.shape[1])
            matrices = matrix.expand(body.shape[0], -1, -1)
            if is_aligned(whole):
                torch.bmm(body, matrices, out=whole)
            else:
                whole.copy_(torch.bmm(body, matrices))
        remaining = result[body.shape[0] * CHUNK :]
        small = torch.bmm(rest, matrix.expand(2, -1, -1)).flatten(0, 1)
        remaining.copy_(small[: remaining.shape[0]])
    return out


def inner(a: Tensor, b: Tensor) -> Tensor:
    """sum_i a_i b_i' over all rows of a (B, N, L) and b (B, N, K): (L, K)."""
    sums = []
    for a_rows, b_rows in zip(a, b, strict=True):
        chunks = zip(split(aligned(a_rows)), split(aligned(b_rows)), strict=True)
        for a_chunks, b_chunks in chunks:
            sums.append(torch.bmm(a_chunks.transpose(1, 2), b_chunks).sum(0))
    return torch.stack(sums).sum(0)


def aligned(x: Tensor) -> Tensor:
    """x, copied where its memory begins at another place than memory of its own would.

    An image in the middle of a batch does, and the sums of the library depend on that, too.
    """
    return x if is_aligned(x) else x.clone()


def is_aligned(x: Tensor) -> bool:
    """Tell whether the memory of x begins at a multiple of ALIGNMENT, as a new tensor's does."""
    return x.data_ptr() % ALIGNMENT == 0


def split(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (N, L) as whole chunks (C, CHUNK, L), a view, and the rest (2, CHUNK, L) with zeros."""
    count = rows.shape[0] // CHUNK
    count = count if count > 1 else 0
    body, rest = rows[: count * CHUNK], rows[count * CHUNK :]
    rest = F.pad(rest, (0, 0, 0, 2 * CHUNK - rest.shape[0]))
    width = rows.shape[1]
    return body.reshape(count, CHUNK, width), rest.reshape(2, CHUNK, width)


def softmax(logits: Tensor) -> Tensor:
    """softmax over the last axis, contiguous: any shape."""
    return logits.softmax(dim=-1).contiguous()


def softmax_grad(q: Tensor, grad: Tensor) -> Tensor:
    """Return what logits receive from the gradient of q = softmax(logits) over the last axis.

    The backward of torch's own softmax is another for one thread than for several.
    """
    return q * (grad - (q * grad).sum(-1, keepdim=True))


# The derivative of a Gaussian kernel, and the kernel summed exactly:
#
#     (K v)_i = sum_j exp(-|f_i - f_j|^2 / 2) v_j,   j = i included
#
# O(N^2) time and O(N) memory, on any device, in any floating dtype.

TILE = 2048  # pixels on each side of the part of K that is held at a time: 16 MB in float32


def gaussian_features_grad(
    forward: Callable[[Tensor], Tensor],
    transposed: Callable[[Tensor], Tensor],
    features: Tensor,
    v: Tensor,
    grad: Tensor,
) -> Tensor:
    """d <grad, K v> / d features of a Gaussian kernel, by filters alone: (B, N, d).

        d/df_i = sum_j k_ij (f_j - f_i) (grad_i . v_j + v_i . grad_j)

    and sum_j k_ij f_j v_j is the filter applied to f v: 2 d + 2 filters in all. Exact for the
    exact sum; for an approximation of it, it approximates the Gaussian's own derivative.

    Args:
        forward: v -> K v on (B, N, L).
        transposed: v -> K' v.
        features: (B, N, d).
        v: (B, N, L).
        grad: (B, N, L), of K v.
    """
    # Positions count from the middle: the two terms below cancel, and the less the better.
    features = features - features.mean(1, keepdim=True)
    smooth_v, smooth_grad = forward(v), transposed(grad)
    columns = []
    for f in torch.split(features, 1, dim=2):
        received = grad * (forward(f * v) - f * smooth_v)
        sent = v * (transposed(f * grad) - f * smooth_grad)
        columns.append((received + sent).sum(2))
    return torch.stack(columns, dim=2)


def exact_filter(
    features: Tensor, v: Tensor, order: Tensor | None = None, epsilon: float = 0.0
) -> Tensor:
    """K v, tile by tile. K is symmetric: this is K' v as well.

    Args:
        features: (B, N, d), already divided by theta.
        v: (B, N, L).
        order: of `exact_order`, for a faster path, as is epsilon.
        epsilon: see `filters.ExactFilter`.

    Returns:
        (B, N, L).
    """
    return torch.stack([_one_image(f, x) for f, x in zip(features, v, strict=True)])


def exact_order(features: Tensor) -> Tensor:
    """The order in which a faster path takes the pixels, (B, N); here it is their own.

    Args:
        features: (B, N, d).
    """
    batch, num_pixels, _ = features.shape
    return torch.arange(num_pixels, device=features.device).repeat(batch, 1)


def exact_features_grad(
    features: Tensor, v: Tensor, grad: Tensor, order: Tensor | None = None, epsilon: float = 0.0
) -> Tensor:
    """d <grad, K v> / d features: (B, N, d)."""

    def kernel(x: Tensor) -> Tensor:
        return exact_filter(features, x)

    return gaussian_features_grad(kernel, kernel, features, v, grad)


def _one_image(features: Tensor, v: Tensor) -> Tensor:
    """K v of one image, (N, L); the order of every sum is fixed by TILE alone.

    Each tile is two products at once: a single one would be cut up by the number of threads.
    """
    out = torch.zeros_like(v)
    for receivers, total in zip(torch.split(features, TILE), torch.split(out, TILE), strict=True):
        half = -(-receivers.shape[0] // 2)
        even = F.pad(receivers, (0, 0, 0, 2 * half - receivers.shape[0]))
        for senders, sent in zip(torch.split(features, TILE), torch.split(v, TILE), strict=True):
            tile = gaussian(even, senders).reshape(2, half, -1)
            total += torch.bmm(tile, sent.expand(2, -1, -1)).flatten(0, 1)[: total.shape[0]]
    return out


def gaussian(a: Tensor, b: Tensor) -> Tensor:
    """exp(-|a_i - b_j|^2 / 2) of (M, d) and (N, d): (M, N).

    The difference is taken before the square: |a|^2 + |b|^2 - 2ab cancels badly
    in float32 once positions reach hundreds of theta.
    """
    squared = a.new_zeros(a.shape[0], b.shape[0])
    for a_k, b_k in zip(a.unbind(1), b.unbind(1), strict=True):
        difference = a_k[:, None] - b_k
        squared.addcmul_(difference, difference)
    return squared.mul_(-0.5).exp_()


# The Gaussian kernel cut to a window: the neighbourhood of ConvCRF and PAC-CRF.
#
#     (K v)_i = sum_{j in W(i)} exp(-|f_i - f_j|^2 / 2) v_j
#
# W(i) holds the pixels whose distance from i along each axis is 0, s, 2s, ..., r s, with the
# dilation s and the radius r; pixels outside the grid do not exist. Teichmann and Cipolla,
# "Convolutional CRFs for Semantic Segmentation", BMVC 2019, section 4; Su et al.,
# "Pixel-Adaptive Convolutional Neural Networks", CVPR 2019, section 4.2 (dilation).


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
    for offset in cartesian_product(*([o for o in steps if abs(o) < n] for n in shape)):
        here = [slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, shape, strict=True)]
        there = [slice(max(0, o), n + min(0, o)) for o, n in zip(offset, shape, strict=True)]
        yield (slice(None), *here), (slice(None), *there)


# The spatial Gaussian on a pixel grid, exact and separable.
#
# exp(-|p_i - p_j|^2 / (2 theta^2)) is a product over axes, so K is a convolution along one
# axis after the other. The sum stops at the image's border, as the exact O(N^2) sum does:
# nothing is padded, mirrored or renormalised.


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
        radius = size - 1
        if radius > 4 * width:  # else the farthest tap is above exp(-8), and none is left out
            reach = math.ceil(width * math.sqrt(-2 * math.log(epsilon)))
            half = [math.exp(-0.5 * (r / width) ** 2) for r in range(reach + 1)]
            total, left_out = 2 * sum(half) - 1, 0.0
            while reach > 0 and 2 * (left_out + half[reach]) <= epsilon * total:
                left_out += half[reach]
                reach -= 1
            radius = min(reach, size - 1)
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
