"""Peaks of memory, which take a process of their own each."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import crf, networks
from benchmarks.measure import in_process

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux counts the peak"
)


def test_the_peak_of_a_crf_is_a_multiple_of_its_marginals() -> None:
    problem = crf.Problem((150, 200), 21, iterations=1)
    peak = in_process(crf.peak_of, "crfrnn", problem, 1)
    q_bytes = 4 * problem.unary.numel()
    assert peak is not None
    assert q_bytes < peak < 30 * q_bytes


def test_training_takes_more_memory_than_inference_and_all_more_than_the_weights() -> None:
    options = networks.NetworksOptions(
        out=Path("out.json"), size=65, repeats=1, limit=1e-9, threads=1, device="cpu"
    )
    rows = in_process(networks.speeds, "deeplab_v3plus_mobilenetv2", options)
    inference, training = (row["peak_bytes"] for row in rows[:2])
    weights = 4 * 2_700_000  # parameters of this network, float32
    # Training holds weights, gradients and momentum.
    assert training > inference > weights
    assert training > 3 * weights
