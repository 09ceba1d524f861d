"""Kernel features for a grid of any dimension, and the widths that scale them.

exp(-|f_i - f_j|^2 / 2) over these features is the spatial kernel or the bilateral kernel of
Krahenbuhl and Koltun (NIPS 2011, section 2); `DenseCRF.addPairwiseEnergy` takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from crfrnn.arrays import Array, Floats, check_array
from crfrnn.checks import check_count, check_positive

Widths: TypeAlias = float | np.number[Any] | Sequence[float] | Array


def create_pairwise_gaussian(sdims: Widths, shape: Sequence[int] | Array) -> Floats:
    """Features of the spatial kernel: positions / theta.

    Args:
        sdims: theta for each axis of `shape`, in its order, in pixels: (y, x) for an image,
            where `sxy` of `DenseCRF2D` is (x, y). A number stands for all axes.
        shape: the grid, for example (H, W) or (D, H, W).

    Returns:
        (d, N) float32, d axes and N grid points in row-major order.

    Raises:
        ValueError: a shape without axes, as many widths as there are not axes, or a width
            that is not above 0.
    """
    grid = _grid(shape)
    return _scaled(grid, widths("sdims", sdims, len(grid), "axes of shape"))


def create_pairwise_bilateral(sdims: Widths, schan: Widths, img: Array, chdim: int = -1) -> Floats:
    """Features of the bilateral kernel: positions / theta_alpha, values / theta_beta.

    Args:
        sdims: theta_alpha for each axis of the grid, in the array's order, in pixels.
        schan: theta_beta for each channel, in the unit of `img`.
        img: any number of axes, any real dtype, not modified.
        chdim: the channel axis; -1 (the default) says that `img` HAS NONE and is one grey
            channel. An (H, W, 3) image needs chdim=2.

    Returns:
        (d, N) float32: the grid's axes, then the channels.

    Raises:
        ValueError: as many widths as there are not axes or channels, an axis that does not
            exist, values that are not finite.
        TypeError: no array of real numbers.
    """
    check_array("img", img, "of any shape")
    if img.dtype.kind not in "biuf":
        raise TypeError(f"img must hold real numbers, got {img.dtype}.")
    if not -img.ndim <= chdim < img.ndim:
        raise ValueError(
            f"chdim must be an axis of an img of shape {img.shape} (or -1: no channel axis), "
            f"got {chdim}."
        )
    channels = img[np.newaxis] if chdim == -1 else np.moveaxis(img, chdim, 0)
    if not np.isfinite(channels).all():
        raise ValueError("img must be finite, got NaN or infinite values: fill them first.")
    grid = _grid(channels.shape[1:])
    axes = f"axes of an img of shape {img.shape} with chdim={chdim}"
    if chdim == -1:
        axes += f" (-1: no channel axis; pass chdim={img.ndim - 1} where the last axis is one)"
    positions = _scaled(grid, widths("sdims", sdims, len(grid), axes))
    values = _scaled(channels, widths("schan", schan, len(channels), "channels"))
    return np.concatenate([positions, values])


def widths(name: str, value: Widths, count: int, what: str) -> tuple[float, ...]:
    """One width per axis or channel; a number stands for all of them."""
    given = np.asarray(value)
    if given.shape not in {(), (count,)}:
        raise ValueError(
            f"{name} must be a number or {count}, one for each of the {what}; got shape "
            f"{given.shape}."
        )
    for theta in given.flat:
        check_positive(name, theta, "one standard deviation")
    return tuple(float(theta) for theta in np.broadcast_to(given, (count,)))


def _grid(shape: Sequence[int] | Array) -> Array:
    """Row-major coordinates of each point, (d, *shape)."""
    if len(shape) == 0:
        raise ValueError("shape must have at least one axis, for example (H, W), got none.")
    for size in shape:
        check_count("shape", size, 1)
    return np.indices(tuple(int(size) for size in shape), dtype=np.float32)


def _scaled(values: Array, thetas: tuple[float, ...]) -> Floats:
    """Each row of (d, ...) divided by its theta: (d, N) float32."""
    rows = values.reshape(len(values), -1).astype(np.float32)
    return rows / np.array(thetas, dtype=np.float32)[:, np.newaxis]
