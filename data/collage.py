"""The embedded data set: collages of shapes and textures, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from math import cos, pi, sin
from typing import ClassVar

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import uniform_filter
from scipy.special import ndtri

from data.dataset import (
    VOID,
    LabelSet,
    Sample,
    SegmentationDataset,
    Split,
    check_split,
    label_set_of,
)

# Where the pixels of a collage come from: the pictures inside the scikit-image package, of which
# only those that every wheel since 0.22 carries are named. A picture is cut into boxes, and a box
# belongs to one split, so no pixel of a picture is ever seen by two splits. The docstrings of
# `skimage.data` give the origin and the licence of every picture.

Box = tuple[int, int, int, int]
"""top, left, bottom, right, in pixels of the file; bottom and right are excluded."""

CLASSES = (
    "background", "brick", "grass", "gravel", "cat", "retina", "stars", "tissue", "page",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """One picture of one class.

    Attributes:
        label: the name of the class, one of `CLASSES`.
        file: its name in the package's folder `skimage/data`.
        shrink: the picture is reduced by this whole factor (block means) before it is used.
        tint: per-channel factor, RGB. Several textures are photographs without colour; a factor
            colours them like their material and leaves their structure alone.
        train, tune, report: the boxes of each split.
    """

    label: str
    file: str
    shrink: int
    tint: tuple[float, float, float]
    train: tuple[Box, ...]
    tune: tuple[Box, ...]
    report: tuple[Box, ...]

    def boxes(self, split: Split) -> tuple[Box, ...]:
        """Return the boxes from which a split may take pixels."""
        boxes: tuple[Box, ...] = getattr(self, split)
        return boxes


PLAIN = (1.0, 1.0, 1.0)
# Homogeneous 512 x 512 textures: the left half trains, the right quarters tune and report.
QUARTERS = (((0, 0, 512, 256),), ((0, 256, 256, 512),), ((256, 256, 512, 512),))

SOURCES = (
    Source("background", "moon.png", 2, PLAIN, *QUARTERS),
    # The evening sky between the towers.
    Source("background", "rocket.jpg", 1, PLAIN,
           ((0, 90, 180, 305),), ((0, 355, 130, 440),), ((0, 465, 130, 560),)),
    Source("brick", "brick.png", 2, (1.45, 0.78, 0.62), *QUARTERS),
    Source("grass", "grass.png", 2, (0.85, 1.1, 0.5), *QUARTERS),
    Source("gravel", "gravel.png", 2, (0.85, 0.98, 1.2), *QUARTERS),
    Source("cat", "chelsea.png", 1, PLAIN,
           ((0, 60, 150, 350),), ((160, 0, 300, 120),), ((160, 140, 290, 270),)),
    Source("retina", "retina.jpg", 4, PLAIN,
           ((250, 250, 1150, 700),), ((250, 710, 690, 1150),), ((710, 710, 1150, 1150),)),
    Source("stars", "hubble_deep_field.jpg", 2, PLAIN,
           ((0, 0, 872, 500),), ((0, 500, 436, 1000),), ((436, 500, 872, 1000),)),
    # The stained glands, without the white tissue between them.
    Source("tissue", "ihc.png", 2, PLAIN,
           ((0, 0, 250, 256), (330, 20, 512, 150)), ((10, 300, 230, 440),),
           ((315, 260, 475, 380),)),
    Source("page", "page.png", 1, (1.1, 1.1, 1.05),
           ((0, 0, 191, 190),), ((0, 192, 95, 384),), ((96, 192, 191, 384),)),
)  # fmt: skip


@dataclass(frozen=True)
class Patch:
    """The pixels of one box, reduced and tinted.

    Attributes:
        pixels: (h, w, 3) float32, RGB in 0..255.
        mean: (3,) float32, its mean colour.
    """

    pixels: NDArray[np.float32]
    mean: NDArray[np.float32]


@cache
def read_picture(file: str) -> NDArray[np.uint8]:
    """Read a picture that scikit-image ships: (H, W, 3) uint8 RGB; a missing one is an error."""
    path = files("skimage") / "data" / file
    if not path.is_file():
        raise FileNotFoundError(
            f"scikit-image should carry the picture {path}, which is absent. The collage uses only "
            "pictures inside the wheel: install an unmodified scikit-image >= 0.22."
        )
    with path.open("rb") as stream, Image.open(stream) as picture:
        return np.asarray(picture.convert("RGB"))


def shrink(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.float32]:
    """Reduce (H, W, 3) by a whole factor: means of factor x factor blocks, the rest cut off."""
    height, width = (n // factor * factor for n in pixels.shape[:2])
    blocks = pixels[:height, :width].reshape(
        height // factor, factor, width // factor, factor, pixels.shape[2]
    )
    means: NDArray[np.float32] = blocks.mean(axis=(1, 3), dtype=np.float32)
    return means


def read_patches(split: Split) -> tuple[tuple[Patch, ...], ...]:
    """Read the patches of a split: one tuple per class, in the order of `CLASSES`, none empty."""
    patches: dict[str, list[Patch]] = {label: [] for label in CLASSES}
    for source in SOURCES:
        picture = read_picture(source.file)
        for top, left, bottom, right in source.boxes(split):
            # Cut first, reduce after: a block mean must not reach across the border of its box.
            pixels = shrink(picture[top:bottom, left:right], source.shrink)
            tinted = np.minimum(pixels * np.array(source.tint, dtype=np.float32), np.float32(255))
            patches[source.label].append(Patch(tinted, tinted.mean(axis=(0, 1))))
    return tuple(tuple(patches[label]) for label in CLASSES)


# Random silhouettes in integer arithmetic: blobs, strokes, wheels, rings and fences.
#
# A mask must have the same bits on every machine, and floating point does not promise that: one
# different last place flips a pixel on a boundary. So lengths are int64 in sub-pixels (`SUB` to a
# pixel; the centre of pixel (y, x) lies at (SUB * y + SUB / 2, SUB * x + SUB / 2)), directions
# are rational points of the circle, and smooth noise is a cubic B-spline with whole weights.

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]
Point = tuple[int, int]

SUB = 8  # sub-pixels in a pixel
TURN = 256  # directions in a full turn
THINNEST = 5 * SUB // 4  # the thinnest pen: 1.25 pixels, below which lines have holes


def between(rng: RandomState, low: int, high: int) -> int:
    """Draw an integer in low..high, both included, from a stream whose width is fixed."""
    return int(rng.randint(low, high + 1, dtype=np.int64))


def direction(turn: int) -> Point:
    """Return the vector (dy, dx) of length SUB * 128 that points `turn` / TURN of a circle.

    On a quarter it is ((2 t, 1 - t^2) / (1 + t^2)) for t = 0..1, rounded down.
    """
    quarter, k = divmod(turn % TURN, TURN // 4)
    n = TURN // 4
    length = SUB * 128
    dy, dx = 2 * k * n * length // (n * n + k * k), (n * n - k * k) * length // (n * n + k * k)
    for _ in range(quarter):
        dy, dx = dx, -dy
    return dy, dx


def step(start: Point, turn: int, length: int) -> Point:
    """Go `length` sub-pixels from `start` in a direction."""
    dy, dx = direction(turn)
    return start[0] + dy * length // (SUB * 128), start[1] + dx * length // (SUB * 128)


@lru_cache(maxsize=16)
def spline_weights(size: int, cells: int) -> NDArray[np.float64]:
    """Compute cubic B-spline weights from `cells + 3` control values to `size` pixels.

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
    """Draw noise over size / cells pixels: (size, size) int64 in -1024..1024, mean about 0."""
    weights = spline_weights(size, cells)
    values = rng.randint(-1024, 1025, size=(cells + 3, cells + 3), dtype=np.int64)
    # Floating point only in name, for BLAS: whole numbers whose sums stay below 2^53 are exact in
    # whatever order they are added.
    noise: Ints = (weights @ values.astype(np.float64) @ weights.T).astype(np.int64) >> 20
    return noise


def squared_distance(size: int, centre: Point) -> Ints:
    """Measure (size, size) squared distances from `centre`, in sub-pixels."""
    at = np.arange(size, dtype=np.int64) * SUB + SUB // 2
    squared: Ints = ((at - centre[0]) ** 2)[:, None] + ((at - centre[1]) ** 2)[None, :]
    return squared


def blob(rng: RandomState, size: int, centre: Point, radius: int) -> Mask:
    """Draw a disc whose boundary smooth noise has pushed in and out."""
    coarse, fine = smooth_noise(rng, size, 5), smooth_noise(rng, size, 13)
    # The squared radius is scaled by 1 + (coarse + fine / 4) / 512: the spline shrinks the noise to
    # a third or so, which moves the outline by up to a half of the radius.
    reach = radius * radius * (2048 + 4 * coarse + fine)
    inside: Mask = squared_distance(size, centre) * 2048 < reach
    return inside


def line(start: Point, end: Point) -> Ints:
    """List (2, n) points from start to end, at most half a pixel apart along each axis."""
    dy, dx = end[0] - start[0], end[1] - start[1]
    n = max(abs(dy), abs(dx)) * 2 // SUB + 1
    t = np.arange(n + 1, dtype=np.int64)
    return np.stack((start[0] + dy * t // n, start[1] + dx * t // n))


def curve(start: Point, bend: Point, end: Point) -> Ints:
    """List (2, n) points of a quadratic Bezier curve, about half a pixel apart or closer."""
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
    """Draw (2, n) points, in sub-pixels, with a round pen of that width, in place."""
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
    """Draw a circle with a pen of `width` sub-pixels."""
    squared = squared_distance(size, centre) * 4
    band: Mask = (squared >= (2 * radius - width) ** 2) & (squared <= (2 * radius + width) ** 2)
    return band


def wheel(rng: RandomState, size: int, centre: Point, radius: int, width: int) -> Mask:
    """Draw a ring with a hub and 5..9 spokes."""
    mask = ring(size, centre, radius, width)
    mask |= squared_distance(size, centre) <= (width + SUB) ** 2
    spokes, first = between(rng, 5, 9), between(rng, 0, TURN - 1)
    rims = [step(centre, first + k * TURN // spokes, radius) for k in range(spokes)]
    draw(mask, np.hstack([line(centre, rim) for rim in rims]), max(THINNEST, width - SUB // 2))
    return mask


def fence(rng: RandomState, size: int, centre: Point, reach: int, width: int) -> Mask:
    """Draw 5..8 slightly leaning posts joined by two rails."""
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
    """Draw a free curved line that extends `reach` to both sides of `centre`."""
    turn = between(rng, 0, TURN - 1)
    start, end = step(centre, turn, reach), step(centre, turn + TURN // 2, reach)
    bend = step(centre, turn + TURN // 4, between(rng, -8, 8) * reach // 8)
    mask = np.zeros((size, size), dtype=np.bool_)
    draw(mask, curve(start, bend, end), width)
    return mask


def limbs(rng: RandomState, size: int, centre: Point, radius: int, width: int) -> Mask:
    """Draw 2..4 curved strokes that leave a body of `radius`: tails, legs, stalks, wires."""
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


# Which silhouettes a scene has, of which class, and in which order they cover one another.


@dataclass(frozen=True)
class Layer:
    """One thing in a scene: its class id, and the (size, size) pixels that it covers."""

    label: int
    mask: Mask


def _thin(rng: RandomState, size: int, centre: Point) -> Mask:
    """Draw a free-standing thin thing with a pen of 1.5..4 pixels."""
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
    """Draw a blob (4 in 10), a blob with limbs of 1.25..4 pixels (4), or something thin (2)."""
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


def frontmost(layers: list[Layer]) -> Ints:
    """Return (size, size) int64, which layer shows at every pixel."""
    front = np.zeros(layers[0].mask.shape, dtype=np.int64)
    for k, layer in enumerate(layers):
        front[layer.mask] = k
    return front


def label_map(layers: list[Layer]) -> Ints:
    """Return (size, size) int64, the class of the frontmost layer at every pixel."""
    labels: Ints = np.array([layer.label for layer in layers], dtype=np.int64)[frontmost(layers)]
    return labels


def click_map(rng: RandomState, layers: list[Layer], clicks: int, radius: int) -> Ints:
    """Label only the pixels near clicks on every layer that shows; all others are void.

    Args:
        rng: draws the clicks, each at any pixel of its layer.
        layers: from `draw_layers`.
        clicks: on each layer.
        radius: of the disc that a click labels, as far as its layer shows there, pixels.

    Returns:
        (size, size) int64.
    """
    front = frontmost(layers)
    labels = np.full(front.shape, VOID, dtype=np.int64)
    for k, layer in enumerate(layers):
        rows, columns = np.nonzero(front == k)
        for _ in range(clicks if len(rows) else 0):
            at = rng.randint(len(rows), dtype=np.int64)
            near = (rows - rows[at]) ** 2 + (columns - columns[at]) ** 2 <= radius * radius
            labels[rows[near], columns[near]] = layer.label
    return labels


# From silhouettes and patches to something that looks photographed.
#
# Every layer gets a randomly turned, scaled and coloured piece of its patch, uneven light, and a
# soft shadow on what lies behind it; the whole then passes a lens (slight blur) and a sensor
# (noise). The image is floating point until the end: equal on two machines up to rounding, unlike
# the mask, which is equal to the bit.

Floats = NDArray[np.float32]


def _mirror(position: Floats, length: int) -> Floats:
    """Fold positions into 0..length - 1 by mirroring at both ends, so that a patch has no seam."""
    period = 2 * (length - 1)
    folded = np.mod(position, np.float32(period))
    return np.minimum(folded, np.float32(period) - folded)


def sample_patch(rng: RandomState, pixels: Floats, rows: Floats, columns: Floats) -> Floats:
    """Read a patch (h, w, 3) through a random rotation, zoom and offset, bilinearly.

    Returns:
        (n, 3) colours, 0..255, of the (n,) rows and columns of the scene.
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
    """Draw a (size, size) factor around 1 that varies slowly over the scene."""
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
    """Compute (256,) float32: a standard normal variable, one value for every byte."""
    quantiles: Floats = ndtri((np.arange(256) + 0.5) / 256).astype(np.float32)
    return quantiles


def grain(rng: RandomState, shape: tuple[int, ...]) -> Floats:
    """Draw standard normal noise from one random byte a value (10 x the speed of exact normals)."""
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
        patches: of every class.
        noise: the largest standard deviation of the sensor noise, grey levels of 0..255.

    Returns:
        (size, size, 3) uint8, RGB.
    """
    size = layers[0].mask.shape[0]
    front = frontmost(layers)
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


# The embedded data set: an endless supply of composed scenes, cut to the size one asks for.

_STREAM = {"train": 0, "tune": 1, "report": 2}


@dataclass(frozen=True)
class CollageConfig:
    """The collage, as numbers.

    Attributes:
        size: side of the square scenes, pixels.
        num_train, num_tune, num_report: scenes in each split.
        seed: another seed gives other scenes from the same pictures.
        min_things, max_things: how many things lie in front of the backmost layer.
        noise: largest standard deviation of the sensor noise, grey levels of 0..255.

    Raises:
        ValueError: a value that makes no scene; the message names the field.
    """

    kind: ClassVar[str] = "collage"

    size: int = 97
    num_train: int = 4000
    num_tune: int = 100
    num_report: int = 200
    seed: int = 0
    min_things: int = 2
    max_things: int = 5
    noise: float = 5.0

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 1024:
            raise ValueError(f"size must be 16..1024 pixels, got {self.size}")
        for field in ("num_train", "num_tune", "num_report"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be 0..2**32 - 1, got {self.seed}")
        if not 0 <= self.min_things <= self.max_things:
            raise ValueError(
                f"expected 0 <= min_things <= max_things, got {self.min_things}, {self.max_things}"
            )
        if not self.noise >= 0:
            raise ValueError(f"noise must be at least 0 grey levels, got {self.noise}")

    def label_set(self) -> LabelSet:
        """Describe the 9 ids."""
        return label_set_of(CLASSES)


@dataclass(frozen=True)
class CollageClicksConfig(CollageConfig):
    """The collage with weak labels: the masks of train are void but near a few clicks.

    Every thing that shows, and what lies behind them all, is clicked on, at places that are the
    same in every epoch. The images, and the whole masks of tune and report, are those of the
    collage.

    Attributes:
        clicks: on each thing.
        radius: of the disc that a click labels, within its thing, pixels.
    """

    kind: ClassVar[str] = "collage-clicks"

    clicks: int = 2
    radius: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clicks < 1 or self.radius < 0:
            raise ValueError(
                f"expected clicks of at least 1 and radius of at least 0, got {self.clicks}, "
                f"{self.radius}"
            )


class Collage(SegmentationDataset):
    """Scenes composed of the pictures that scikit-image ships; nothing is downloaded or stored.

    Scene i of a split is a pure function of (seed, split, i) and the config. Its mask comes from
    integers and frozen random streams alone and has the same bits on every machine; its image is
    the same up to the rounding of floating point and of JPEG decoders. Masks are exact and have no
    void. The splits use disjoint regions of every picture (`data.collage`).

    Args:
        config: sizes, counts, seed.
        split: "train", "tune" or "report".
    """

    def __init__(self, config: CollageConfig, split: Split) -> None:
        check_split(split)
        self.config = config
        self.split = split
        labels = config.label_set()
        self.classes, self.scored, self.palette = labels.classes, labels.scored, labels.palette
        self.has_void = False
        count = getattr(config, f"num_{split}")
        self.names = tuple(f"{split}-{i:05d}" for i in range(count))
        self.patches = read_patches(split)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)} in split {self.split!r}")
        config = self.config
        # Two streams, so that how a scene looks can change without moving a boundary.
        key = [config.seed, _STREAM[self.split], index]
        form, look = RandomState([*key, 0]), RandomState([*key, 1])
        layers = draw_layers(form, config.size, len(CLASSES), config.min_things, config.max_things)
        image = paint(look, layers, self.patches, config.noise)
        mask = label_map(layers)
        if isinstance(config, CollageClicksConfig) and self.split == "train":
            mask = click_map(RandomState([*key, 2]), layers, config.clicks, config.radius)
        return Sample(
            name=self.names[index],
            image=torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            mask=torch.from_numpy(mask),
        )

    def __repr__(self) -> str:
        return f"Collage(split={self.split!r}, scenes={len(self)}, {self.config})"
