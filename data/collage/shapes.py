"""Random silhouettes in integer arithmetic: blobs, strokes, wheels, rings and fences.

A mask must have the same bits on every machine, and floating point does not promise that: libm,
BLAS and fused multiply-add differ in the last place, and one such place flips a pixel on a
boundary. So nothing here is rounded by a machine. Lengths are int64 in sub-pixels (`SUB` to a
pixel; the centre of pixel (y, x) lies at (SUB * y + SUB / 2, SUB * x + SUB / 2)), directions are
rational points of the circle, and smooth noise is a cubic B-spline with whole weights.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]
Point = tuple[int, int]

SUB = 8
"""Sub-pixels in a pixel."""

TURN = 256
"""Directions in a full turn."""

THINNEST = 5 * SUB // 4
"""The thinnest pen: 1.25 pixels, below which lines have holes."""


def between(rng: RandomState, low: int, high: int) -> int:
    """A uniform integer in low..high, both included, from a stream whose width is fixed."""
    return int(rng.randint(low, high + 1, dtype=np.int64))


def direction(turn: int) -> Point:
    """The vector (dy, dx) of length SUB * 128 (rounded down) that points `turn` / TURN of a circle.

    On a quarter it is ((2 t, 1 - t^2) / (1 + t^2)) for t = 0..1, which is exact in integers; the
    steps are not quite even (the angle is 2 atan t), which a random shape does not mind.
    """
    quarter, k = divmod(turn % TURN, TURN // 4)
    n = TURN // 4
    length = SUB * 128
    dy, dx = 2 * k * n * length // (n * n + k * k), (n * n - k * k) * length // (n * n + k * k)
    for _ in range(quarter):
        dy, dx = dx, -dy
    return dy, dx


def step(start: Point, turn: int, length: int) -> Point:
    """The point `length` sub-pixels away from `start` in a direction."""
    dy, dx = direction(turn)
    return start[0] + dy * length // (SUB * 128), start[1] + dx * length // (SUB * 128)


@lru_cache(maxsize=16)
def spline_weights(size: int, cells: int) -> NDArray[np.float64]:
    """Cubic B-spline weights from `cells + 3` control values to `size` pixels.

    Returns:
        (size, cells + 3) whole numbers; every row sums to 1024, less what rounding down loses.
    """
    weights = np.zeros((size, cells + 3))
    for i in range(size):
        cell, k = divmod(i * cells, size)
        rest = size - k
        basis = (
            rest**3,
            3 * k**3 - 6 * k * k * size + 4 * size**3,
            3 * rest**3 - 6 * rest * rest * size + 4 * size**3,
            k**3,
        )
        weights[i, cell : cell + 4] = [b * 1024 // (6 * size**3) for b in basis]
    return weights


def smooth_noise(rng: RandomState, size: int, cells: int) -> Ints:
    """Noise that varies over size / cells pixels.

    Returns:
        (size, size) int64 in -1024..1024, mean about 0.
    """
    weights = spline_weights(size, cells)
    values = rng.randint(-1024, 1025, size=(cells + 3, cells + 3), dtype=np.int64)
    # Floating point only in name, for BLAS: whole numbers whose sums stay below 2^53 are exact in
    # whatever order they are added.
    noise: Ints = (weights @ values.astype(np.float64) @ weights.T).astype(np.int64) >> 20
    return noise


def squared_distance(size: int, centre: Point) -> Ints:
    """(size, size) int64: the squared distance of every pixel from `centre`, in sub-pixels."""
    at = np.arange(size, dtype=np.int64) * SUB + SUB // 2
    squared: Ints = ((at - centre[0]) ** 2)[:, None] + ((at - centre[1]) ** 2)[None, :]
    return squared


def blob(rng: RandomState, size: int, centre: Point, radius: int) -> Mask:
    """A disc whose boundary smooth noise has pushed in and out."""
    coarse, fine = smooth_noise(rng, size, 5), smooth_noise(rng, size, 13)
    # The squared radius is scaled by 1 + (coarse + fine / 4) / 512: the spline shrinks the noise to
    # a third or so, which moves the outline by up to a half of the radius.
    reach = radius * radius * (2048 + 4 * coarse + fine)
    inside: Mask = squared_distance(size, centre) * 2048 < reach
    return inside


def line(start: Point, end: Point) -> Ints:
    """(2, n) points from start to end, at most half a pixel apart along each axis."""
    dy, dx = end[0] - start[0], end[1] - start[1]
    n = max(abs(dy), abs(dx)) * 2 // SUB + 1
    t = np.arange(n + 1, dtype=np.int64)
    return np.stack((start[0] + dy * t // n, start[1] + dx * t // n))


def curve(start: Point, bend: Point, end: Point) -> Ints:
    """(2, n) points of a quadratic Bezier curve, about half a pixel apart or closer."""
    n = (
        1
        + sum(abs(a - b) + abs(b - c) for a, b, c in zip(start, bend, end, strict=True)) * 2 // SUB
    )
    t = np.arange(n + 1, dtype=np.int64)
    u = n - t
    y, x = (
        (u * u * a + 2 * t * u * b + t * t * c) // (n * n)
        for a, b, c in zip(start, bend, end, strict=True)
    )
    return np.stack((y, x))


def draw(mask: Mask, points: Ints, width: int) -> None:
    """Draw with a round pen of `width` sub-pixels, in place.

    With points half a pixel apart the line has no holes from width `THINNEST` on.

    Args:
        mask: (size, size).
        points: (2, n), sub-pixels; they may lie outside.
        width: diameter of the pen.
    """
    size, reach = mask.shape[0], width // (2 * SUB) + 1
    around = np.arange(-reach, reach + 1, dtype=np.int64)
    # (2, n, 2 reach + 1): the rows and the columns that the pen can touch at every point.
    near = points[:, :, None] // SUB + around
    squared = (near * SUB + SUB // 2 - points[:, :, None]) ** 2
    touched = 4 * (squared[0][:, :, None] + squared[1][:, None, :]) <= width * width
    inside = (near >= 0) & (near < size)
    touched &= inside[0][:, :, None] & inside[1][:, None, :]
    point, row, column = np.nonzero(touched)
    mask[near[0][point, row], near[1][point, column]] = True


def ring(size: int, centre: Point, radius: int, width: int) -> Mask:
    """A circle drawn with a pen of `width` sub-pixels."""
    squared = squared_distance(size, centre) * 4
    band: Mask = (squared >= (2 * radius - width) ** 2) & (squared <= (2 * radius + width) ** 2)
    return band


def wheel(rng: RandomState, size: int, centre: Point, radius: int, width: int) -> Mask:
    """A ring with a hub and 5..9 spokes."""
    mask = ring(size, centre, radius, width)
    mask |= squared_distance(size, centre) <= (width + SUB) ** 2
    spokes, first = between(rng, 5, 9), between(rng, 0, TURN - 1)
    rims = [step(centre, first + k * TURN // spokes, radius) for k in range(spokes)]
    draw(mask, np.hstack([line(centre, rim) for rim in rims]), max(THINNEST, width - SUB // 2))
    return mask


def fence(rng: RandomState, size: int, centre: Point, reach: int, width: int) -> Mask:
    """5..8 slightly leaning posts joined by two rails."""
    posts, height, lean = between(rng, 5, 8), reach * between(rng, 4, 8) // 8, between(rng, -8, 8)
    across, up = lean, TURN * 3 // 4 + lean + between(rng, -6, 6)
    left = step(centre, across + TURN // 2, reach)
    lines = []
    for k in range(posts):
        foot = step(left, across, 2 * reach * k // (posts - 1))
        lines.append(line(step(foot, up, height), step(foot, up + TURN // 2, height // 2)))
    for level in (height // 5, height * 3 // 5):
        start = step(left, up, level)
        lines.append(line(start, step(start, across, 2 * reach)))
    mask = np.zeros((size, size), dtype=np.bool_)
    draw(mask, np.hstack(lines), width)
    return mask


def arc(rng: RandomState, size: int, centre: Point, reach: int, width: int) -> Mask:
    """A free curved line that extends `reach` to both sides of `centre`."""
    turn = between(rng, 0, TURN - 1)
    start, end = step(centre, turn, reach), step(centre, turn + TURN // 2, reach)
    bend = step(centre, turn + TURN // 4, between(rng, -8, 8) * reach // 8)
    mask = np.zeros((size, size), dtype=np.bool_)
    draw(mask, curve(start, bend, end), width)
    return mask


def limbs(rng: RandomState, size: int, centre: Point, radius: int, width: int) -> Mask:
    """2..4 curved strokes that leave a body of `radius`: tails, legs, stalks, wires."""
    count, first = between(rng, 2, 4), between(rng, 0, TURN - 1)
    curves = []
    for k in range(count):
        turn = first + k * TURN // count + between(rng, -16, 16)
        bend = step(centre, turn + between(rng, -24, 24), radius * 5 // 4)
        end = step(centre, turn + between(rng, -24, 24), radius * between(rng, 13, 20) // 8)
        curves.append(curve(centre, bend, end))
    mask = np.zeros((size, size), dtype=np.bool_)
    draw(mask, np.hstack(curves), width)
    return mask
