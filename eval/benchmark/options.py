"""What `python -m eval benchmark crf` measures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Shape = tuple[int, int]  # (H, W)
Thetas = tuple[float, float]  # theta_alpha in pixels, theta_beta in grey levels


@dataclass(frozen=True)
class BenchmarkOptions:
    """Time the CRF, forward and backward, beside every peer that is importable.

    Attributes:
        out: the JSON file to write; the two plots go beside it, as PNG and SVG.
        repeats: timed rounds over all paths, after one that is dropped.
        shape: height and width of the photograph, except where it is the size that varies.
        labels: label count, except where it is that which varies.
        thetas: settings of the bilateral kernel; the first serves all other sweeps.
        theta_gamma: of the spatial kernel, pixels.
        threads: numbers of threads; the last serves all other sweeps.
        sizes: heights and widths of the sweep over pixels.
        label_counts: of the sweep over labels, at the first of the sizes.
        batches: of the sweep over batches.
        iterations: T of inference.
        train_iterations: T of a training step.
        slowest: seconds; another path that was slower at one size is left out at larger ones.
        memory: whether to measure peak memory, in processes of their own.
        device: "cpu", or "cuda" for the GPU path beside its ceilings, sparse products and the CPU:
            threads and memory then have no meaning, and there are no plots.
    """

    out: Path
    repeats: int = 7
    shape: Shape = (342, 500)
    labels: int = 21
    thetas: tuple[Thetas, ...] = ((80.0, 13.0), (160.0, 3.0), (49.0, 5.0))
    theta_gamma: float = 3.0
    threads: tuple[int, ...] = (1, 2)
    sizes: tuple[Shape, ...] = (
        (192, 256), (342, 500), (600, 800), (1000, 1000), (1200, 1600), (2400, 3330),
    )  # fmt: skip
    label_counts: tuple[int, ...] = (2, 21, 150)
    batches: tuple[int, ...] = (1, 2, 4, 8)
    iterations: int = 10
    train_iterations: int = 5
    slowest: float = 2.5
    memory: bool = True
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        for name in ("repeats", "labels", "iterations", "train_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, got {getattr(self, name)}.")
        for name in ("thetas", "threads", "sizes", "label_counts", "batches"):
            if not getattr(self, name):
                raise ValueError(f"{name} has at least one value, got none.")
        if 1 not in self.batches:
            raise ValueError(
                f"batches are compared with a single image: expected 1 among them, got "
                f"{self.batches}."
            )
        if len({height * width for height, width in self.sizes}) < 2:
            raise ValueError(
                f"sizes are fitted by a power of the pixels: expected two different numbers of "
                f"pixels, got {self.sizes}."
            )
