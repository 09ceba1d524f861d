"""From silhouettes and patches to something that looks photographed.

Every layer gets a randomly turned, scaled and coloured piece of its patch, uneven light, and a soft
shadow on what lies behind it; the whole then passes a lens (slight blur) and a sensor (noise). The
image is floating point until the end: equal on two machines up to rounding, unlike the mask, which
is equal to the bit.
"""

from __future__ import annotations

from functools import lru_cache
from math import cos, pi, sin

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.special import ndtri

from data.collage.layout import Layer
from data.collage.shapes import Mask, smooth_noise
from data.collage.sources import Patch

Floats = NDArray[np.float32]


def _mirror(position: Floats, length: int) -> Floats:
    """Fold positions into 0..length - 1 by mirroring at both ends, so that a patch has no seam."""
    period = 2 * (length - 1)
    folded = np.mod(position, np.float32(period))
    return np.minimum(folded, np.float32(period) - folded)


def sample_patch(rng: RandomState, pixels: Floats, rows: Floats, columns: Floats) -> Floats:
    """Read a patch through a random rotation, zoom and offset, bilinearly.

    Args:
        rng: where the transform comes from.
        pixels: (h, w, 3), at least 2 x 2.
        rows: (n,) the positions to paint, in pixels of the scene, from the top.
        columns: (n,) the same, from the left.

    Returns:
        (n, 3) colours, 0..255.
    """
    height, width = pixels.shape[:2]
    angle, zoom = rng.uniform(-pi / 6, pi / 6), rng.uniform(0.7, 1.3)
    flip = -1 if rng.uniform() < 0.5 else 1
    dy, dx = np.float32(zoom * cos(angle)), np.float32(zoom * sin(angle))
    y = _mirror(dy * rows + dx * columns + np.float32(rng.uniform(0, 2 * height)), height)
    x = _mirror(flip * (dy * columns - dx * rows) + np.float32(rng.uniform(0, 2 * width)), width)
    top, left = np.minimum(y.astype(np.intp), height - 2), np.minimum(x.astype(np.intp), width - 2)
    down, right = (y - top)[:, None], (x - left)[:, None]
    flat, corner = pixels.reshape(-1, 3), top * width + left
    upper = flat[corner] * (1 - right) + flat[corner + 1] * right
    lower = flat[corner + width] * (1 - right) + flat[corner + width + 1] * right
    colours: Floats = upper * (1 - down) + lower * down
    return colours


def vary_colour(rng: RandomState, colours: Floats, mean: Floats) -> Floats:
    """Change (n, 3) colours a little: contrast about `mean` (3,), brightness, white balance."""
    contrast = np.float32(rng.uniform(0.6, 1.0))
    gain = (rng.uniform(0.8, 1.2) * rng.uniform(0.93, 1.07, size=3)).astype(np.float32)
    varied: Floats = colours * (contrast * gain) + (1 - contrast) * gain * mean
    return varied


def light_field(rng: RandomState, size: int, strength: float) -> Floats:
    """(size, size) factor around 1 that varies slowly over the scene."""
    noise = smooth_noise(rng, size, 2).astype(np.float32)
    field: Floats = 1 + np.float32(strength / 512) * noise
    return field


def cast_shadow(rng: RandomState, canvas: Floats, mask: Mask) -> None:
    """Darken (size, size, 3) `canvas` in and beside `mask`, to one side more than to the other."""
    down, right = (int(v) for v in rng.randint(-3, 4, size=2, dtype=np.int64))
    soft = uniform_filter(mask.astype(np.float32), size=7, origin=(down, right), mode="nearest")
    canvas *= (1 - np.float32(rng.uniform(0.1, 0.4)) * soft)[:, :, None]


def blur(image: Floats, side: float) -> Floats:
    """Convolve (size, size, 3) with (side, 1 - 2 side, side) along both axes, borders repeated."""
    weight = np.float32(side)
    for _ in range(2):
        padded = np.concatenate((image[:1], image, image[-1:]))
        image = (1 - 2 * weight) * image + weight * (padded[:-2] + padded[2:])
        image = image.swapaxes(0, 1)
    return image


@lru_cache(maxsize=1)
def _normal_quantiles() -> Floats:
    """(256,) float32: a standard normal variable, one value for every byte."""
    quantiles: Floats = ndtri((np.arange(256) + 0.5) / 256).astype(np.float32)
    return quantiles


def grain(rng: RandomState, shape: tuple[int, ...]) -> Floats:
    """Standard normal noise from one random byte a value (ten times the speed of exact normals)."""
    count = int(np.prod(shape))
    noise: Floats = _normal_quantiles()[np.frombuffer(rng.bytes(count), dtype=np.uint8)]
    return noise.reshape(shape)


def paint(
    rng: RandomState,
    layers: list[Layer],
    patches: tuple[tuple[Patch, ...], ...],
    noise: float,
) -> NDArray[np.uint8]:
    """Paint the layers from back to front.

    Args:
        rng: where every decision comes from.
        layers: from `draw_layers`, the first covers everything.
        patches: per class, what it may look like.
        noise: the largest standard deviation of the sensor noise, grey levels of 0..255.

    Returns:
        (size, size, 3) uint8, RGB.
    """
    size = layers[0].mask.shape[0]
    front = np.zeros((size, size), dtype=np.int64)  # which layer shows at every pixel
    for k, layer in enumerate(layers):
        front[layer.mask] = k
    canvas = np.zeros((size, size, 3), dtype=np.float32)
    for k, layer in enumerate(layers):
        if k > 0:
            cast_shadow(rng, canvas, layer.mask)
        patch = patches[layer.label][rng.randint(len(patches[layer.label]), dtype=np.int64)]
        rows, columns = np.nonzero(front == k)
        at = rows.astype(np.float32), columns.astype(np.float32)
        colours = vary_colour(rng, sample_patch(rng, patch.pixels, *at), patch.mean)
        light = light_field(rng, size, 0.25)[rows, columns]
        canvas[rows, columns] = colours * light[:, None]
    canvas *= light_field(rng, size, 0.1)[:, :, None]
    canvas = blur(canvas, rng.uniform(0.05, 0.2))
    canvas += np.float32(rng.uniform(0.2, 1.0) * noise) * grain(rng, canvas.shape)
    image: NDArray[np.uint8] = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return image
