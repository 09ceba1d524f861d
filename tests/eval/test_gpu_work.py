"""Bytes and operations, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eval.benchmark.gpu.work import (
    Work,
    crf_work,
    exact_filter_work,
    lattice_build_work,
    lattice_filter_work,
    separable_filter_work,
    spatial_taps,
    update_work,
)
from eval.benchmark.problem import Problem

# 3 x 2 pixels, 2 labels; theta_gamma below the width at which a second tap can be seen.
PROBLEM = Problem((3, 2), 2, (1.0, 1.0), 0.1, 1)


def test_lattice_of_two_pixels_on_a_line() -> None:
    """Two pixels of two vertices each, three vertices in two directions, one label."""
    splat = 2 * 4 + 4 * 8 + 3 * 4  # two rows and four entries in, three rows out
    blurs = 2 * (3 * 4 + 3 * 4 + 3 * 3 * 4)  # rows in, rows out, three indices a vertex
    flops = 4 * 2 + 2 * 3 * 6 + 4 * 2
    assert lattice_filter_work(2, 3, 1, 1) == Work(2 * splat + blurs, flops)
    # A pixel: a feature in; two of vertex, weight, rank, pixel, weight out.
    of_pixels = 2 * (4 + 2 * (4 + 4 + 1 + 4 + 4))
    assert lattice_build_work(2, 3, 1) == Work(of_pixels + 3 * (4 + 6 * 4), 8)


def test_separable_and_exact_filters() -> None:
    # Six pixels, two labels: 48 bytes of rows, in and out along each axis.
    assert separable_filter_work(6, [3, 5], 2) == Work(2 * 2 * 48, (3 + 5) * 2 * 12)
    # Nine pairs: three multiply-adds, an exponential, two multiply-adds.
    assert exact_filter_work(1, 3, 2, 1) == Work(3 * (4 + 2 * 8), 9 * (6 + 1 + 4))
    assert exact_filter_work(2, 3, 2, 1) == exact_filter_work(1, 3, 2, 1) * 2


def test_update_of_one_pixel() -> None:
    """Rows of two labels, 8 bytes: one and two, three and one of them."""
    # Softmax 4, sum 1 for each kernel, penalty 4, factors 2: for each label.
    assert update_work(Work(0, 0), 1, 2) == Work(7 * 8, 2 * (4 + 2 * (4 + 2 + 1)))


def test_whole_inference_and_training() -> None:
    assert spatial_taps(PROBLEM) == [1, 1]
    spatial = [separable_filter_work(6, [1, 1], channels) for channels in (1, 2)]
    bilateral = [lattice_filter_work(6, 7, channels, 5) for channels in (1, 2)]
    update = update_work(spatial[1] + bilateral[1], 6, 2)
    start = lattice_build_work(6, 7, 5) + spatial[0] + bilateral[0]
    q = Work(2 * 6 * 8, 4 * 12)
    assert crf_work(PROBLEM, 7) == start + update + q
    assert crf_work(replace(PROBLEM, iterations=3), 7) == start + update * 3 + q
    training = crf_work(replace(PROBLEM, iterations=3, training=True), 7)
    assert training == start + update * 6 + Work(0, 2 * 2 * 6 * 4) * 3
    exact = crf_work(PROBLEM, None)
    assert exact.flops == pytest.approx(
        sum(s.flops for s in spatial) + sum(exact_filter_work(1, 6, c, 5).flops for c in (1, 2))
        + update_work(Work(0, 0), 6, 2).flops + q.flops
    )  # fmt: skip
