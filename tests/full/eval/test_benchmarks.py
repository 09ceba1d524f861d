"""The benchmarks that take long even when they are small: peak memory, a GPU's, and the race."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eval import measurements
from eval.__main__ import main
from eval.benchmark.builder import Work
from eval.benchmark.builders import measured_apart
from eval.benchmark.gpu.ceilings import Sizes
from eval.benchmark.gpu.goals import Goal
from eval.benchmark.gpu.joint import JointStep
from eval.benchmark.gpu.paths import EXACT, HALF, TRITON
from eval.benchmark.gpu.run import Plan
from eval.benchmark.problem import Problem
from eval.readme import block_of

PROBLEM = Problem((20, 24), 3, (10.0, 20.0), 2.0, 2)
TRAINING = replace(PROBLEM, training=True, batch=2, iterations=1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux counts the peak")
def test_training_takes_more_memory_than_inference_and_all_more_than_the_weights() -> None:
    work = Work(
        "deeplab_v3plus_mobilenetv2", size=65, repeats=1, seconds=1e-9, threads=1, device="cpu"
    )
    inference, training = (row["peak_bytes"] for row in measured_apart(work, limit=300)[:2])
    weights = 4 * 2_700_000  # parameters of this network, float32
    # Training holds weights, gradients and momentum.
    assert training > inference > weights
    assert training > 3 * weights


def test_the_gpus_sweeps_run_on_the_cpu_and_every_path_computes_the_same(
    monkeypatch, tmp_path: Path
) -> None:
    goals = (
        Goal("lattice", PROBLEM, TRITON, seconds=1e3, ratio=1e-6),
        Goal("backward", TRAINING, TRITON, seconds=1e-9, bytes=1e9, ratio=1e6),
    )
    step = JointStep("deeplab_v3plus_mobilenetv2", size=65, batch=1)
    plan = Plan(Sizes(copy_bytes=2**16, side=32), goals, step, spatial=(20, 24), crop=(12, 12))
    monkeypatch.setattr(measurements, "device_named", lambda name: torch.device("cpu"))
    monkeypatch.setattr(measurements, "Plan", lambda: plan)
    out = tmp_path / "cuda.json"
    words = (
        f"benchmark crf --device cuda --out {out} --repeats 1 --shape 20 24 --labels 3 "
        "--thetas 10 20 --sizes 10 12 20 24 --label-counts 2 --batches 1 2 --iterations 2 "
        "--train-iterations 1"
    )
    main(words.split())
    results = json.loads(out.read_text())
    gates = {gate["path"]: gate["largest_difference"] for gate in results["gate"]}
    assert 1e-5 < gates.pop(HALF.name) < 2e-2  # a few roundings of 2^-9
    assert gates.pop(EXACT.name) > 1e-3  # the lattice's own error
    assert all(difference < 1e-5 for difference in gates.values())
    lines = {line.split(" | ")[0]: line for line in block_of(results).splitlines()}
    assert lines["| lattice: torch sparse CSR over it"].endswith("| yes |")
    assert lines["| backward: torch sparse CSR over it"].endswith("| no |")


def test_our_network_races_torchvisions(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    out = tmp_path / "speed.json"
    main(["benchmark", "models", "--out", str(out), "--repeats", "1", "--size", "33"])
    ratio = json.loads(out.read_text())["ratio"]
    assert f"in the same round: {ratio:.3f}" in capsys.readouterr().out
