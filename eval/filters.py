"""How close each filter comes to the exact sum, and what it costs beside the standard lattice.

On the photographs inside the scikit-image package: nothing is downloaded.

    error   relative L2 of K v / K 1 to the exact sum's, beside its deviation from the mean
    cost    of building the filter and of applying it once, in seconds, all filters in turn
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from scipy import ndimage
from torch import Tensor

from crfrnn.filtering import (
    ExactFilter,
    Filter,
    LatticeFilter,
    SeparableFilter,
    WindowFilter,
)
from eval.filter_gradients import FORMS, gradient_errors
from runtime.provenance import provenance

EXACT = "exact"
BASELINE = "lattice"

Shape = tuple[int, int]  # (H, W)


@dataclass(frozen=True)
class Kernel:
    """A Gaussian kernel over positions, or over positions and colours.

    Attributes:
        theta_position: theta_alpha or theta_gamma, pixels.
        theta_colour: theta_beta, grey levels of 0..255; None for the spatial kernel.
    """

    theta_position: float
    theta_colour: float | None = None


KERNELS = (
    # The published settings from dense to sparse features, and two extremes.
    Kernel(80, 13),
    Kernel(49, 5),
    Kernel(67, 3),
    Kernel(160, 3),
    Kernel(32, 13),
    Kernel(4, 5),
    Kernel(3),
)


@dataclass(frozen=True)
class FiltersOptions:
    """Measure error and cost of the filters.

    Attributes:
        out: the JSON file to write.
        photos: files of scikit-image's folder of data.
        gradient_shape: height and width at which gradients are measured.
        error_shape: height and width at which errors, and the exact sum's time, are measured.
        time_shape: height and width at which the other filters are timed.
        labels: channels of a timed input.
        repeats: timed rounds over all filters, after one that is dropped.
    """

    out: Path
    photos: tuple[str, ...] = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
    gradient_shape: Shape = (48, 64)
    error_shape: Shape = (150, 200)
    time_shape: Shape = (342, 500)
    labels: int = 21
    repeats: int = 7


def measure(options: FiltersOptions, kernels: tuple[Kernel, ...] = KERNELS) -> dict[str, Any]:
    """Errors and times of every kernel and filter, with what made them.

    Returns:
        The content of a results file of the kind "filters".
    """
    if options.repeats < 1:
        raise ValueError(f"repeats is at least 1, got {options.repeats}.")
    started, began = datetime.now(timezone.utc).isoformat(timespec="seconds"), time.perf_counter()
    origin = provenance()
    config = {key: value for key, value in asdict(options).items() if key != "out"}
    return {
        "kind": "filters",
        "name": options.out.stem,
        **origin,
        "started": started,
        "config": config,
        "gradients": [
            gradients(kernel, options)
            for kernel in _shown("gradients", kernels)
            if kernel.theta_colour is not None
        ],
        "kernels": [
            {
                **asdict(kernel),
                **errors(kernel, options),
                "seconds": {
                    _size(options.error_shape): seconds(kernel, options, options.error_shape),
                    _size(options.time_shape): seconds(
                        kernel, options, options.time_shape, without=(EXACT,)
                    ),
                },
            }
            for kernel in _shown("errors and times", kernels)
        ],
        "wall_seconds": time.perf_counter() - began,
    }


def _shown(description: str, kernels: tuple[Kernel, ...]) -> Iterable[Kernel]:
    return track(kernels, description, console=Console(stderr=True))


def gradients(kernel: Kernel, options: FiltersOptions) -> dict[str, Any]:
    """`gradient_errors` on a small image, theta_alpha shrunk with it, mean over all cases."""
    assert kernel.theta_colour is not None
    shrunk = kernel.theta_position * options.gradient_shape[0] / options.error_shape[0]
    cases = [
        gradient_errors(photograph(photo, options.gradient_shape), shrunk, kernel.theta_colour, v)
        for photo in options.photos
        for v in inputs(options.gradient_shape).values()
    ]
    means: dict[str, Any] = {
        form: {key: float(np.mean([case[form][key] for case in cases])) for key in cases[0][form]}
        for form in FORMS
    }
    return {**asdict(kernel), **means}


@torch.no_grad()
def errors(kernel: Kernel, options: FiltersOptions) -> dict[str, Any]:
    """Error of each filter on each photograph and input, and its vertices a pixel.

    Returns:
        errors: {filter: {photo: {input: relative L2}}}.
        vertices: {lattice: {photo: vertices a pixel}}.
    """
    height, width = options.error_shape
    v = inputs(options.error_shape)
    ones = torch.ones(1, height * width, 1)
    stacked = torch.cat([ones, *v.values()], dim=2)
    found: dict[str, dict[str, dict[str, float]]] = {}
    vertices: dict[str, dict[str, float]] = {}
    for photo in options.photos if kernel.theta_colour is not None else options.photos[:1]:
        filters = builders(kernel, photograph(photo, options.error_shape))
        exact = _normalized(filters.pop(EXACT)(), stacked, v)
        for name, build in filters.items():
            filter_ = build()
            result = _normalized(filter_, stacked, v)
            found.setdefault(name, {})[photo] = {
                key: relative_error(result[key], exact[key]) for key in v
            }
            if isinstance(filter_, LatticeFilter):
                count = filter_.num_vertices / (height * width)
                vertices.setdefault(name, {})[photo] = count
    return {"errors": found, "vertices": vertices}


@torch.no_grad()
def seconds(
    kernel: Kernel, options: FiltersOptions, shape: Shape, without: tuple[str, ...] = ()
) -> dict[str, dict[str, list[float]]]:
    """Wall times on the first photograph, every filter once in each round.

    Returns:
        {filter: {"build": [s, ...], "apply": [s, ...]}}, one number for each round.
    """
    filters = builders(kernel, photograph(options.photos[0], shape))
    generator = torch.Generator().manual_seed(0)
    v = torch.rand(1, shape[0] * shape[1], options.labels, generator=generator)
    times: dict[str, dict[str, list[float]]] = {
        name: {"build": [], "apply": []} for name in filters if name not in without
    }
    for _ in range(1 + options.repeats):
        for name, taken in times.items():
            start = time.perf_counter()
            filter_ = filters[name]()
            built = time.perf_counter()
            filter_(v)
            taken["build"].append(built - start)
            taken["apply"].append(time.perf_counter() - built)
    return {
        name: {stage: all_[1:] for stage, all_ in taken.items()} for name, taken in times.items()
    }


def builders(kernel: Kernel, image: Tensor) -> dict[str, Callable[[], Filter]]:
    """The ways to compute a kernel on an image (H, W, 3), float32, 0..255, by name."""
    height, width, _ = image.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    parts = [torch.stack([columns, rows], dim=2) / kernel.theta_position]
    if kernel.theta_colour is not None:
        parts.append(image / kernel.theta_colour)
    features = torch.cat(parts, dim=2).reshape(1, height * width, -1)
    ways: dict[str, Callable[[], Filter]] = {
        BASELINE: lambda: LatticeFilter(features),
        "lattice, fine": lambda: LatticeFilter(features, accuracy="fine"),
        "window 7 x 7": lambda: WindowFilter(features, (height, width), radius=3),
    }
    if kernel.theta_colour is None:
        theta = image.new_full((2,), kernel.theta_position)
        ways["separable"] = lambda: SeparableFilter(theta, (height, width))
    ways[EXACT] = lambda: ExactFilter(features)
    return ways


def photograph(name: str, shape: Shape) -> Tensor:
    """A photograph of the scikit-image package, resized: (H, W, 3), float32, 0..255."""
    with as_file(files("skimage") / "data" / name) as path, Image.open(path) as image:
        height, width = shape
        resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized, dtype=np.float32))


def inputs(shape: Shape) -> dict[str, Tensor]:
    """What is filtered, from rough to smooth, each (1, N, C), of unit variance.

    White noise, noise blurred with standard deviations in pixels, and class probabilities with
    smooth borders, as a CRF filters them.
    """
    generator = np.random.default_rng(0)

    def noise(width: float, channels: int) -> Any:
        white = generator.standard_normal((*shape, channels))
        blurred = ndimage.gaussian_filter(white, (width, width, 0))
        return blurred / blurred.std()

    maps = {"white noise": noise(0, 2)}
    maps |= {f"noise blurred by {width} px": noise(width, 2) for width in (2, 8, 30)}
    exponentials = np.exp(4 * noise(5, 5))
    maps["softmax"] = exponentials / exponentials.sum(2, keepdims=True)
    return {
        name: torch.from_numpy((map_ / map_.std()).astype(np.float32)).flatten(0, 1)[None]
        for name, map_ in maps.items()
    }


def relative_error(result: Tensor, exact: Tensor) -> float:
    """|result - exact| / |exact - its mean over the pixels|, for (1, N, C)."""
    deviation = (exact - exact.mean(1, keepdim=True)).norm()
    return float((result - exact).norm() / deviation)


def _normalized(filter_: Filter, stacked: Tensor, v: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """K v / K 1 of every input, from one application to (1, v_1, v_2, ...)."""
    channels = [1, *(each.shape[2] for each in v.values())]
    degree, *results = torch.split(filter_(stacked), channels, dim=2)
    return {key: result / degree for key, result in zip(v, results, strict=True)}


def _size(shape: Shape) -> str:
    return f"{shape[1]} x {shape[0]}"
