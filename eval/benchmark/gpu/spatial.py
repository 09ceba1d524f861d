"""The spatial kernel alone, by each of the ways that `triton_kernels/separable.py` weighs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from crfrnn.filtering import ops
from crfrnn.filtering.separable import convolve_axes, gaussian_taps
from eval.benchmark.gpu.clock import Clock, Entry, rounds
from eval.benchmark.gpu.dense_axes import DenseAxesFilter
from eval.benchmark.gpu.work import separable_filter_work
from eval.benchmark.options import Shape

THETAS = (1.0, 3.0, 10.0)  # pixels


def measure_spatial(
    shape: Shape, labels: int, device: torch.device, clock: Clock, repeats: int
) -> list[dict[str, Any]]:
    """Seconds of one K v for each width and way, and how far each is from the first way."""
    v = torch.rand(1, shape[0] * shape[1], labels, device=device)
    rows = []
    for width in THETAS:
        theta = torch.full((2,), width, device=device)
        every = gaussian_taps(theta, shape)
        ways: dict[str, Callable[[Tensor], Tensor]] = {
            "registered operator": partial(_registered, theta, shape),
            "dense matrices": DenseAxesFilter(theta, shape),
            "depthwise convolution": partial(_convolved, every, shape),
        }
        results = {name: way(v) for name, way in ways.items()}
        first = next(iter(results.values()))
        entries = [Entry(clock, partial(way, v)) for way in ways.values()]
        work = separable_filter_work(v.shape[1], [taps.numel() for taps in every], labels)
        for name, seconds in zip(ways, rounds(entries, repeats), strict=True):
            difference = ((results[name] - first).abs().max() / first.abs().max()).item()
            rows.append({
                "shape": shape, "labels": labels, "theta": width, "way": name, "seconds": seconds,
                "difference": difference, "bytes": work.bytes, "flops": work.flops,
            })  # fmt: skip
    return rows


def _registered(theta: Tensor, shape: Shape, v: Tensor) -> Tensor:
    result: Tensor = ops.separable_filter(theta, v, list(shape))
    return result


def _convolved(every: Sequence[Tensor], shape: Shape, v: Tensor) -> Tensor:
    return convolve_axes(every, v, shape)
