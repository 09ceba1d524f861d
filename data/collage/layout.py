"""Which silhouettes a scene has, of which class, and in which order they cover one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from data.collage.shapes import (
    SUB,
    THINNEST,
    Mask,
    Point,
    arc,
    between,
    blob,
    fence,
    limbs,
    ring,
    wheel,
)


@dataclass(frozen=True)
class Layer:
    """One thing in a scene: its class id, and the (size, size) pixels that it covers."""

    label: int
    mask: Mask


def _thin(rng: RandomState, size: int, centre: Point) -> Mask:
    """A free-standing thin thing, drawn with a pen of 1.5..4 pixels."""
    radius, width = size * SUB * between(rng, 12, 30) // 100, between(rng, 3 * SUB // 2, 4 * SUB)
    kind = between(rng, 0, 3)
    if kind == 0:
        return ring(size, centre, radius, width)
    if kind == 1:
        return wheel(rng, size, centre, radius, width)
    if kind == 2:
        return fence(rng, size, centre, radius * 3 // 2, width)
    return arc(rng, size, centre, 2 * radius, width)


def _thing(rng: RandomState, size: int) -> Mask:
    """A blob (4 in 10), a blob with limbs of 1.25..4 pixels (4), or something thin alone (2)."""
    centre = (between(rng, 0, size * SUB - 1), between(rng, 0, size * SUB - 1))
    kind = between(rng, 0, 9)
    if kind >= 8:
        return _thin(rng, size, centre)
    radius = size * SUB * between(rng, 12, 32) // 100
    mask = blob(rng, size, centre, radius)
    if kind >= 4:
        mask |= limbs(rng, size, centre, radius, between(rng, THINNEST, 4 * SUB))
    return mask


def draw_layers(
    rng: RandomState, size: int, num_labels: int, min_things: int, max_things: int
) -> list[Layer]:
    """Draw a scene from back to front.

    The backmost layer covers everything; in half of the scenes it is class 0, in the others any
    other class, so that no class is only ever seen in front. Things are of the classes 1..L-1.

    Args:
        rng: where every decision comes from.
        size: the side of the scene, in pixels.
        num_labels: L.
        min_things: fewest layers in front of the backmost.
        max_things: most of them.
    """
    ground = 0 if between(rng, 0, 1) == 0 else between(rng, 1, num_labels - 1)
    layers = [Layer(ground, np.ones((size, size), dtype=np.bool_))]
    for _ in range(between(rng, min_things, max_things)):
        layers.append(Layer(between(rng, 1, num_labels - 1), _thing(rng, size)))
    return layers


def label_map(layers: list[Layer]) -> NDArray[np.int64]:
    """(size, size) int64: the class of the frontmost layer at every pixel."""
    labels = np.zeros(layers[0].mask.shape, dtype=np.int64)
    for layer in layers:
        labels[layer.mask] = layer.label
    return labels
