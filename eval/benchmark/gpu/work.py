"""Bytes and operations of a CRF, counted by formula: what a time is held against.

Letters: P = B N pixels of the batch, M vertices, L labels, d features, D = d + 1, T iterations.
A row is L numbers of 4 bytes, an index or a weight one of 4. Every array that a stage reads or
writes is counted once for that stage: what has to cross the memory's bus where stages are not
fused and caches are perfect. So a rate above the copying ceiling means that stages were fused or
stayed in a cache; one far below, that something waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from crfrnn.filtering.separable import gaussian_taps
from eval.benchmark.problem import Problem

KERNELS = 2  # spatial and bilateral
BILATERAL_FEATURES = 5  # x, y, red, green, blue
BLUR_ENTRIES = 3  # behind, ahead, itself


@dataclass(frozen=True)
class Work:
    """What a computation moves and does.

    Attributes:
        bytes: read and written.
        flops: additions, multiplications and exponentials, one each.
    """

    bytes: float
    flops: float

    def __add__(self, other: Work) -> Work:
        return Work(self.bytes + other.bytes, self.flops + other.flops)

    def __mul__(self, times: float) -> Work:
        return Work(self.bytes * times, self.flops * times)


def lattice_filter_work(pixels: int, vertices: int, labels: int, dim: int) -> Work:
    """K v on the lattice.

    splat: P rows and P D entries (index, weight) in, M rows out; a multiply-add an entry and label.
    blur, D times: M rows in and out, M (index, index, index); 3 multiply-adds a vertex and label.
    slice: M rows and P D entries in, P rows out; as splat.
    """
    size = dim + 1
    rows = 4 * labels
    ends = pixels * rows + pixels * size * 8 + vertices * rows
    blur = 2 * vertices * rows + vertices * BLUR_ENTRIES * 4
    flops = 2 * (2 * pixels * size * labels) + size * vertices * labels * 2 * BLUR_ENTRIES
    return Work(2 * ends + size * blur, flops)


def separable_filter_work(pixels: int, taps: Sequence[int], labels: int) -> Work:
    """K v of the spatial Gaussian: for each axis P rows in and out, and a multiply-add a tap.

    Args:
        pixels: P.
        taps: of each axis, those that rounding does not lose.
        labels: L.
    """
    return Work(len(taps) * 2 * pixels * 4 * labels, sum(taps) * 2 * pixels * labels)


def exact_filter_work(images: int, pixels: int, labels: int, dim: int) -> Work:
    """K v by the sum over all pairs, B N^2 of them.

    A pair: d + 2 multiply-adds for the exponent of augmented features, one exponential, L
    multiply-adds. In memory: features and rows in, rows out, once.
    """
    pairs = images * pixels**2
    return Work(images * pixels * (4 * dim + 8 * labels), pairs * (2 * (dim + 2) + 1 + 2 * labels))


def lattice_build_work(pixels: int, vertices: int, dim: int) -> Work:
    """The tables, written once from features read once; the passes of a sort are not counted.

    For a pixel: d features in; D times vertex, weight and rank of the slice, pixel and weight of
    the splat out. For a vertex: its offset, and 3 indices for each of D directions. Elevation:
    about 4 operations a feature.
    """
    size = dim + 1
    of_pixels = pixels * (4 * dim + size * (4 + 4 + 1 + 4 + 4))
    return Work(of_pixels + vertices * (4 + size * BLUR_ENTRIES * 4), 4 * pixels * dim)


def update_work(filters: Work, pixels: int, labels: int) -> Work:
    """One mean-field update around its filters; a step of its backward pass moves as much.

    In: logits; out: a weighted row for each kernel. In: unary and every filtered row; out:
    logits. Softmax 4 operations a number, the (L, L) penalty of a kernel 2 L, two factors of its
    normalisation 2, and the sum 1.
    """
    rows = pixels * 4 * labels
    moved = (1 + KERNELS) * rows + (1 + KERNELS + 1) * rows
    return filters + Work(moved, pixels * labels * (4 + KERNELS * (2 * labels + 2 + 1)))


def crf_work(problem: Problem, vertices: int | None) -> Work:
    """Inference from image and unary to q, or forward and backward: build, normalisers, updates.

    Backward is a step of the adjoint for each update, and two more products with (L, L) for the
    penalties' gradient. Of the widths' gradient nothing is counted.

    Args:
        problem: what is computed.
        vertices: M of the whole batch; None: the bilateral kernel is summed over all pairs.
    """
    one = problem.shape[0] * problem.shape[1]
    pixels, labels = problem.batch * one, problem.labels
    taps = spatial_taps(problem)

    def filters(channels: int) -> Work:
        spatial = separable_filter_work(pixels, taps, channels)
        if vertices is None:
            return spatial + exact_filter_work(problem.batch, one, channels, BILATERAL_FEATURES)
        return spatial + lattice_filter_work(pixels, vertices, channels, BILATERAL_FEATURES)

    total = filters(1) + update_work(filters(labels), pixels, labels) * problem.iterations
    if vertices is not None:
        total += lattice_build_work(pixels, vertices, BILATERAL_FEATURES)
    if not problem.training:
        return total + Work(2 * pixels * 4 * labels, 4 * pixels * labels)  # q of the last logits
    penalties = Work(0, KERNELS * 2 * pixels * labels**2)
    backward = update_work(filters(labels), pixels, labels) + penalties
    return total + backward * problem.iterations


def spatial_taps(problem: Problem) -> list[int]:
    """Number of taps along each axis, as the plain path has them."""
    theta = torch.full((2,), problem.theta_gamma)
    return [taps.numel() for taps in gaussian_taps(theta, problem.shape)]
