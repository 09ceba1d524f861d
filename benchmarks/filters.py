"""Measure how close each filter comes to the exact sum, what it costs, and the lattice's gradients.

    python -m benchmarks.filters --out results/filters.json

On photographs inside the scikit-image package:

    error      relative L2 of K v / K 1 to the exact sum's, beside its deviation from the mean
    cost       of building the filter and of applying it once, all filters in turn
    gradient   what widths and image receive, beside the exact kernel's: the derivative of the
               lattice itself is exact for the approximation, but piecewise constant in the
               features; that of the Gaussian, filtered by the lattice, approximates the right thing
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from scipy import ndimage
from torch import Tensor

from benchmarks import measure as m
from benchmarks.measure import Results, Shape, size
from crfrnn.filters import (
    ExactFilter,
    FeaturesGradient,
    Filter,
    LatticeFilter,
    Normalized,
    SeparableFilter,
    WindowFilter,
)
from crfrnn.kernels import positions
from eval.tables import ABSENT, factor, markdown

Kernel = tuple[float, float | None]
"""theta_alpha or theta_gamma in pixels; theta_beta in grey levels, None for the spatial kernel."""

KERNELS: tuple[Kernel, ...] = (
    # The published settings from dense to sparse features, and two extremes.
    (80, 13), (49, 5), (67, 3), (160, 3), (32, 13), (4, 5), (3, None),
)  # fmt: skip
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
EXACT, BASELINE = "exact", "lattice"
FORMS: tuple[FeaturesGradient, ...] = ("gaussian", "lattice")


@dataclass(frozen=True)
class FiltersOptions(m.Options):
    """Measure error and cost of the filters and their gradients.

    Attributes:
        photos: files of scikit-image's folder of data.
        gradient_shape: height and width at which gradients are measured.
        error_shape: height and width at which errors, and the exact sum's time, are measured.
        time_shape: height and width at which the other filters are timed.
        labels: channels of a timed input.
    """

    photos: tuple[str, ...] = PHOTOS
    gradient_shape: Shape = (48, 64)
    error_shape: Shape = (150, 200)
    time_shape: Shape = (342, 500)
    labels: int = 21


def measure(options: FiltersOptions) -> Iterator[tuple[str, Any]]:
    """Yield gradients of the bilateral kernels, and errors and times of all."""
    gradients, rows = [], []
    for kernel in track(KERNELS, "filters", console=Console(stderr=True)):
        name = {"theta_position": kernel[0], "theta_colour": kernel[1]}
        if kernel[1] is not None:
            gradients.append(name | gradient_means(kernel, options))
        small, large = options.error_shape, options.time_shape
        costs = {size(small): seconds(kernel, options, small)}
        costs[size(large)] = seconds(kernel, options, large, without=EXACT)
        rows.append({**name, **errors(kernel, options), "seconds": costs})
        yield "gradients", gradients
        yield "kernels", rows


def builders(kernel: Kernel, image: Tensor) -> dict[str, Callable[[], Filter]]:
    """List the ways to compute a kernel on an image (H, W, 3), float32, 0..255, by name."""
    shape, (theta, colour) = image.shape[:2], kernel
    parts = [positions(shape, image) / theta]
    if colour is not None:
        parts.append(image.flatten(0, 1) / colour)
    features = torch.cat(parts, dim=1)[None]
    ways: dict[str, Callable[[], Filter]] = {
        BASELINE: lambda: LatticeFilter(features),
        "lattice, fine": lambda: LatticeFilter(features, accuracy="fine"),
        "window 7 x 7": lambda: WindowFilter(features, shape, radius=3),
    }
    if colour is None:
        ways["separable"] = lambda: SeparableFilter(image.new_full((2,), theta), shape)
    ways[EXACT] = lambda: ExactFilter(features)
    return ways


def inputs(shape: Shape) -> dict[str, Tensor]:
    """Make what is filtered, from rough to smooth, each (1, N, C), of unit variance.

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


@torch.no_grad()
def errors(kernel: Kernel, options: FiltersOptions) -> dict[str, Any]:
    """Compare each filter with the exact sum on each photograph and input.

    Returns:
        errors: {filter: {photo: {input: relative L2}}}.
        vertices: {lattice: {photo: vertices a pixel}}.
    """
    v = inputs(options.error_shape)
    pixels = options.error_shape[0] * options.error_shape[1]
    stacked = torch.cat([torch.ones(1, pixels, 1), *v.values()], dim=2)
    channels = [1, *(each.shape[2] for each in v.values())]

    def normalized(filter_: Filter) -> list[Tensor]:
        """K v / K 1 of every input, from one application."""
        degree, *results = torch.split(filter_(stacked), channels, dim=2)
        return [result / degree for result in results]

    every: dict[str, dict[str, dict[str, float]]] = {}
    vertices: dict[str, dict[str, float]] = {}
    for photo in options.photos if kernel[1] is not None else options.photos[:1]:
        filters = builders(kernel, m.photograph(photo, options.error_shape))
        exact = normalized(filters.pop(EXACT)())
        for name, build in filters.items():
            own = normalized(filter_ := build())
            pairs = zip(v, own, exact, strict=True)
            every.setdefault(name, {})[photo] = {k: relative_error(a, b) for k, a, b in pairs}
            if isinstance(filter_, LatticeFilter):
                vertices.setdefault(name, {})[photo] = filter_.num_vertices / pixels
    return {"errors": every, "vertices": vertices}


def relative_error(result: Tensor, exact: Tensor) -> float:
    """Compute |result - exact| / |exact - its mean over the pixels|, for (1, N, C)."""
    deviation = (exact - exact.mean(1, keepdim=True)).norm()
    return float((result - exact).norm() / deviation)


@torch.no_grad()
def seconds(
    kernel: Kernel, options: FiltersOptions, shape: Shape, without: str = ""
) -> dict[str, dict[str, list[float]]]:
    """Time build and application on the first photograph, every filter once in each round.

    Returns:
        {filter: {"build": [s, ...], "apply": [s, ...]}}, one number for each round.
    """
    filters = builders(kernel, m.photograph(options.photos[0], shape))
    filters.pop(without, None)
    generator = torch.Generator().manual_seed(0)
    v = torch.rand(1, shape[0] * shape[1], options.labels, generator=generator)
    taken: dict[str, dict[str, list[float]]] = {n: {"build": [], "apply": []} for n in filters}
    for _ in range(1 + options.repeats):
        for name, build in filters.items():
            start = time.perf_counter()
            filter_ = build()
            built = time.perf_counter()
            filter_(v)
            taken[name]["build"].append(built - start)
            taken[name]["apply"].append(time.perf_counter() - built)
    return {name: {k: values[1:] for k, values in own.items()} for name, own in taken.items()}


def gradient_means(kernel: Kernel, options: FiltersOptions) -> dict[str, Any]:
    """Average `gradient_errors` over photographs and inputs, theta_alpha shrunk with the image."""
    shape = options.gradient_shape
    small = (kernel[0] * shape[0] / options.error_shape[0], kernel[1])
    cases = [
        gradient_errors(small, m.photograph(photo, shape), v)
        for photo in options.photos
        for v in inputs(shape).values()
    ]
    return {
        form: {key: float(np.mean([case[form][key] for case in cases])) for key in cases[0][form]}
        for form in FORMS
    }


def gradient_errors(kernel: Kernel, photo: Tensor, v: Tensor) -> dict[str, dict[str, float]]:
    """Compare each form's gradient with the exact kernel's, behind a random loss.

    Returns:
        By form: "cosine" of the image's gradient with the exact one, and the "theta" error
        |g - g_exact| / |g_exact| of (log theta_alpha, log theta_beta).
    """
    weights = torch.randn(v.shape, generator=torch.Generator().manual_seed(0))

    def received(build: Callable[[Tensor], Filter]) -> tuple[Tensor, Tensor]:
        """The gradients of the image and of the logarithms of both widths."""
        image, log_theta = photo.clone(), torch.tensor(kernel).log()
        alpha, beta = log_theta.requires_grad_().exp()
        place = positions(photo.shape[:2], photo) / alpha
        colour = image.requires_grad_().flatten(0, 1) / beta
        features = torch.cat([place, colour], dim=1)[None]
        normalized = Normalized(build(features), "symmetric", torch.ones_like(v[..., :1]))
        grads = torch.autograd.grad((normalized(v) * weights).sum(), (image, log_theta))
        return cast(tuple[Tensor, Tensor], grads)

    exact_image, exact_theta = received(ExactFilter)
    compared: dict[str, dict[str, float]] = {}
    for form in FORMS:
        image, theta = received(lambda features, form=form: LatticeFilter(features, gradient=form))  # type: ignore[misc]
        compared[form] = {
            "cosine": F.cosine_similarity(image.flatten(), exact_image.flatten(), dim=0).item(),
            "theta": ((theta - exact_theta).norm() / exact_theta.norm()).item(),
        }
    return compared


# Tables.

LEGEND = """\
kernel: theta_alpha / theta_beta or theta_gamma, pixels and grey levels; error: relative L2 to the
exact sum, beside its deviation from the mean, of the normalised output at {small}, in per cent,
geometric mean over photographs and inputs from white noise to smooth; worst: its largest value;
closer: error of the lattice over that of the filter; vertices: of the lattice, for each pixel;
build, apply: time over that of the lattice, median of the rounds, with the lattice's own in
brackets."""

GRADIENT_LEGEND = """\
What widths and guide receive through the lattice, beside the exact kernel's gradient, on a small
image with theta_alpha shrunk in proportion: cosine of the image's gradient, relative error of that
of (theta_alpha, theta_beta), means over photographs and inputs; gaussian: the Gaussian's own
derivative, filtered by the lattice (the default); lattice: the derivative of the lattice itself."""


def table(results: Results) -> str:
    """Write errors and costs, then gradients, as Markdown."""
    config = results["config"]
    small, large = size(config["error_shape"]), size(config["time_shape"])
    titles = ["kernel", "filter", "error", "worst", "closer", "vertices", f"build, {large}",
              f"apply, {large}", f"apply, {small}"]  # fmt: skip
    rows = [row for kernel in results["kernels"] for row in _rows(kernel, small, large)]
    pairs = [[f"{form}: cosine", "theta error"] for form in FORMS]
    gradients = [
        [_name(row)] + [f"{row[form][k]:{width}}" for form in FORMS
                        for k, width in (("cosine", ".2f"), ("theta", ".2g"))]
        for row in results["gradients"]
    ]  # fmt: skip
    remark = (
        f"photographs of scikit-image: {', '.join(config['photos'])}; {config['repeats']} rounds "
        f"over all filters; {config['labels']} labels; float32"
    )
    return "\n\n".join(
        [
            m.origin(results, remark),
            markdown(titles, rows, left=2),
            LEGEND.format(small=small),
            markdown(["kernel", *pairs[0], *pairs[1]], gradients),
            GRADIENT_LEGEND,
        ]
    )


def _rows(kernel: Results, small: str, large: str) -> Iterator[list[str]]:
    every = {
        name: [error for of_photo in photos.values() for error in of_photo.values()]
        for name, photos in kernel["errors"].items()
    }
    means = {name: statistics.geometric_mean(values) for name, values in every.items()}
    for name in kernel["seconds"][small]:
        quality = ["0", "0", ABSENT]
        if name != EXACT:
            closer = ABSENT if name == BASELINE else factor(means[BASELINE] / means[name])
            quality = [_percent(means[name]), _percent(max(every[name])), closer]
        count = kernel["vertices"].get(name)
        vertices = ABSENT if count is None else factor(statistics.fmean(count.values()))
        costs = [(large, "build"), (large, "apply"), (small, "apply")]
        yield [_name(kernel), name, *quality, vertices,
               *(_cost(kernel["seconds"][at], name, stage) for at, stage in costs)]  # fmt: skip


def _name(row: Results) -> str:
    if row["theta_colour"] is None:
        return f"spatial {row['theta_position']:g}"
    return f"bilateral {row['theta_position']:g}/{row['theta_colour']:g}"


def _cost(taken: Mapping[str, Any], name: str, stage: str) -> str:
    """A filter's time over the baseline's of the same rounds."""
    if name not in taken:
        return ABSENT
    own, baseline = taken[name][stage], taken[BASELINE][stage]
    return f"1 ({m.milliseconds(own)} ms)" if name == BASELINE else factor(m.ratio(own, baseline))


def _percent(error: float) -> str:
    """An error as "3.4"; one of rounding alone keeps its power of ten."""
    return f"{100 * error:.1f}" if error >= 5e-4 else f"{100 * error:.0e}"


if __name__ == "__main__":
    m.main(FiltersOptions, measure, table)
