"""The commands that measure: small problems, one round, and the tables made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from eval.__main__ import main
from eval.benchmark import BenchmarkOptions, run
from eval.benchmark.builder import Work, measure_builder
from eval.benchmark.paths import NATIVE, PLAIN
from eval.benchmark.problem import Problem
from eval.filter_table import markdown_table
from eval.filters import FiltersOptions, Kernel, measure
from eval.networks import flops
from eval.readme import block_of
from models.describe import shell

PROBLEM = Problem((20, 24), 3, (10.0, 20.0), 3.0, 5)


def test_the_crf_is_timed_in_every_sweep_and_shown(monkeypatch, tmp_path: Path) -> None:
    if NATIVE.missing() is not None:
        pytest.skip("the native library is not built")
    monkeypatch.setattr(run, "PATHS", (NATIVE, PLAIN))  # whatever is installed
    monkeypatch.setattr(run, "measure_first_call", lambda problem, options: [])
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    options = BenchmarkOptions(
        out=tmp_path / "tiny.json", repeats=1, shape=(20, 24), labels=3, thetas=((10.0, 20.0),),
        sizes=((10, 12), (20, 24)), label_counts=(2,), batches=(1, 2), iterations=2,
        train_iterations=1, memory=False,
    )  # fmt: skip
    results = json.loads(json.dumps(run.benchmark(options)))
    sweeps = [row["sweep"] for row in results["times"]]
    # Two paths; two numbers of threads; with and without theta.
    counts = {"inference": 4, "training": 8, "labels": 2, "batch": 2, "pixels": 4}
    assert {sweep: sweeps.count(sweep) for sweep in sweeps} == counts
    assert all(gate["largest_difference"] <= 1e-4 for gate in results["gate"])


def test_a_path_that_computes_something_else_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(type(PLAIN), "infer", lambda self, problem: problem.unary.softmax(1))
    with pytest.raises(ValueError, match="does not compute the same CRF"):
        run.agreement(PLAIN, PROBLEM)


def test_every_task_of_a_network_is_timed() -> None:
    work = Work(
        "deeplab_v3plus_mobilenetv2", size=65, repeats=1, seconds=1e-9, threads=1, device="cpu"
    )
    rows = [(row["task"], row["crf"]) for row in measure_builder(work)]
    assert rows == [(t, crf) for crf in (False, True) for t in ("inference", "training")]


def test_filters_are_measured_in_their_order() -> None:
    options = FiltersOptions(
        out=Path("filters.json"), photos=("coffee.png", "chelsea.png"), gradient_shape=(12, 16),
        error_shape=(24, 32), time_shape=(30, 40), labels=3, repeats=1,
    )  # fmt: skip
    results: dict[str, Any] = measure(options, (Kernel(12, 13), Kernel(3)))
    _, spatial = results["kernels"]
    worst = {
        name: max(error for found in photos.values() for error in found.values())
        for name, photos in spatial["errors"].items()
    }
    # The separable filter is exact up to float32: 1e-4 leaves room for smooth inputs, whose
    # deviation from the mean is small beside their values.
    assert worst["separable"] < 1e-4 < worst["lattice, fine"] < worst["lattice"]
    assert markdown_table(results) in block_of(results)


def test_flops_of_a_network_are_those_counted_by_hand(tmp_path: Path, capsys) -> None:
    """VGG-16 with LargeFOV at 33 x 33 pixels: grids of 33, 17, 9 and 5, for good."""
    layers = [
        (33, 3, 64), (33, 64, 64), (17, 64, 128), (17, 128, 128), (9, 128, 256), (9, 256, 256),
        (9, 256, 256), *[(5, 256, 512)], *[(5, 512, 512)] * 5, (5, 512, 1024),
    ]  # fmt: skip
    multiplications = sum(side**2 * 9 * into * out for side, into, out in layers)
    multiplications += 5**2 * (1024 * 1024 + 1024 * 21)
    name, out = "deeplab_v1_largefov", tmp_path / "networks.json"
    assert flops(shell(name), 33) == 2 * multiplications
    main(["networks", "--out", str(out), "--names", name, "--size", "33"])
    (row,) = json.loads(out.read_text())["networks"]
    assert (row["flops"], row["receptive_field"]) == (2 * multiplications, 435)
    assert f"| `{name}` | 20,505,429 |" in capsys.readouterr().out
