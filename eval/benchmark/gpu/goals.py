"""The figures that the GPU path was built for, each as a problem with its limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from crfrnn.filtering import ExactFilter
from crfrnn.filtering.exact import exact_filter
from eval.benchmark.gpu.clock import Clock, Entry, found_memory, rounds
from eval.benchmark.gpu.paths import (
    EXACT,
    SPARSE,
    TRITON,
    DevicePath,
    bilateral_features,
    count_vertices,
)
from eval.benchmark.gpu.work import crf_work
from eval.benchmark.options import Shape
from eval.benchmark.paths import inference_layer
from eval.benchmark.problem import Problem

THETAS = (80.0, 13.0)  # alpha in pixels, beta in grey levels
LARGEST_EXACT_ERROR = 1e-3  # relative, of the exact filter in float32 against float64
LARGEST_SHARE_OF_STEP = 0.25  # what the CRF may add to a training step


@dataclass(frozen=True)
class Goal:
    """A problem, and what it may take.

    Attributes:
        name: in tables.
        problem: what is computed.
        path: which computes it.
        seconds: at most.
        bytes: peak at most, inputs included; None: no limit.
        ratio: how many times faster than sparse products at least; None: not compared.
    """

    name: str
    problem: Problem
    path: DevicePath
    seconds: float
    bytes: float | None = None
    ratio: float | None = None


GOALS = (
    Goal(
        "lattice, inference with its build",
        Problem((500, 500), 21, THETAS, 3.0, 10), TRITON, seconds=4e-3, ratio=5.0,
    ),
    Goal(
        "lattice, forward and backward",
        Problem((513, 513), 21, THETAS, 3.0, 5, batch=16, training=True), TRITON,
        seconds=80e-3, bytes=12e9, ratio=5.0,
    ),
    Goal(
        "exact, inference",
        Problem((375, 500), 21, THETAS, 3.0, 10), EXACT, seconds=150e-3, bytes=1e9,
    ),
)  # fmt: skip


def measure_goals(
    goals: Sequence[Goal], device: torch.device, clock: Clock, repeats: int
) -> list[dict[str, Any]]:
    """A row for each: seconds, peak, sparse products beside it, and whether bits are repeated."""
    return [_measure(goal, device, clock, repeats) for goal in goals]


def _measure(goal: Goal, device: torch.device, clock: Clock, repeats: int) -> dict[str, Any]:
    problem = replace(goal.problem, device=str(device))
    task = goal.path.prepare(problem)
    entries = [Entry(clock, task, goal.path.active)]
    with goal.path.active():
        first, again = task(), task()
    same = all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    del first, again
    compared = goal.ratio is not None and found_memory(
        sparse := Entry(clock, SPARSE.prepare(problem), SPARSE.active)
    )
    if compared:
        entries.append(sparse)
    seconds = rounds(entries, repeats)
    peaks = [entry.peak_bytes() for entry in entries]
    vertices = count_vertices(problem) if goal.path.has_lattice else None
    work = crf_work(problem, vertices)
    return {
        "name": goal.name, **asdict(problem), "path": goal.path.name,
        "seconds": seconds[0], "peak_bytes": peaks[0], "same_bits": same, "vertices": vertices,
        "sparse_seconds": seconds[1] if compared else None,
        "sparse_peak_bytes": peaks[1] if compared else None,
        **asdict(work),
        "limits": {"seconds": goal.seconds, "bytes": goal.bytes, "ratio": goal.ratio},
    }  # fmt: skip


def exact_error(crop: Shape, labels: int, device: torch.device) -> float:
    """Largest error of K v in float32 over the largest value, against float64, on a crop."""
    problem = Problem(crop, labels, THETAS, 3.0, 1, device=str(device))
    features = bilateral_features(inference_layer(problem), problem)
    v = problem.unary.flatten(2).transpose(1, 2).softmax(2).contiguous()
    expected = exact_filter(features.double(), v.double())
    found = ExactFilter(features)(v)
    error: Tensor = (found - expected).abs().max() / expected.abs().max()
    return error.item()
