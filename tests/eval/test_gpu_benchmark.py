"""`eval benchmark crf --device cuda`, on the CPU: everything but the events and the card."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro

from crfrnn import triton_kernels
from eval import measurements
from eval.__main__ import main
from eval.benchmark.gpu.ceilings import Sizes
from eval.benchmark.gpu.clock import WallClock, clock_of
from eval.benchmark.gpu.goals import GOALS, Goal, measure_goals
from eval.benchmark.gpu.joint import JointStep
from eval.benchmark.gpu.paths import (
    EXACT,
    HALF,
    NATIVE,
    PATHS,
    PLAIN,
    SPARSE,
    TRITON,
    Results,
    without_triton,
)
from eval.benchmark.gpu.run import Plan, agreement, benchmark_gpu, timed
from eval.benchmark.options import BenchmarkOptions
from eval.benchmark.problem import Problem
from eval.readme import block_of, check_block

CPU = torch.device("cpu")
PROBLEM = Problem((20, 24), 3, (10.0, 20.0), 2.0, 2)
TRAINING = replace(PROBLEM, training=True, batch=2, iterations=1)
PLAN = Plan(
    sizes=Sizes(copy_bytes=2**16, side=32),
    goals=(
        Goal("lattice", PROBLEM, TRITON, seconds=1e3, ratio=1e-6),
        Goal("backward", TRAINING, TRITON, seconds=1e-9, bytes=1e9, ratio=1e6),
        Goal("exact", PROBLEM, EXACT, seconds=1e3),
    ),
    joint=JointStep("deeplab_v3plus_mobilenetv2", size=65, batch=1),
    spatial=(20, 24),
    crop=(12, 12),
)
WORDS = (
    "benchmark crf --device cuda --repeats 1 --shape 20 24 --labels 3 --thetas 10 20 "
    "--sizes 10 12 20 24 --label-counts 2 --batches 1 2 --iterations 2 --train-iterations 1"
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes where "cuda" is the CPU."""
    out = tmp_path_factory.mktemp("gpu") / "cuda.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measurements, "device_named", lambda name: CPU)
        patch.setattr(measurements, "Plan", lambda: PLAN)
        main([*WORDS.split(), "--out", str(out)])
    return out


@pytest.fixture(scope="module")
def results(written: Path) -> dict[str, Any]:
    return json.loads(written.read_text())  # type: ignore[no-any-return]


def names(results: dict[str, Any], sweep: str) -> list[str]:
    return [row["path"] for row in results["times"] if row["sweep"] == sweep]


def test_every_sweep_has_its_paths(results: dict[str, Any]) -> None:
    able = [path for path in PATHS if path.missing() is None]
    everyone, trained = (
        [p.name for p in able], [p.name for p in able if p.trains]
    )  # fmt: skip
    assert names(results, "inference") == everyone
    assert names(results, "training") == trained + [n for n in trained if n != SPARSE.name]
    assert names(results, "labels") == everyone
    assert names(results, "batch") == [TRITON.name] * 2
    assert names(results, "pixels") == everyone * 2
    for row in results["times"]:
        assert len(row["seconds"]) == 1
        assert row["bytes"] > 0
        assert row["flops"] > 0
        assert (row["vertices"] is None) == (row["path"] == EXACT.name)


def test_every_path_computes_the_same_and_is_told_from_the_exact(results: dict[str, Any]) -> None:
    gates = {gate["path"]: gate["largest_difference"] for gate in results["gate"]}
    assert 1e-5 < gates.pop(HALF.name) < 2e-2  # a few roundings of 2^-9
    assert gates.pop(EXACT.name) > 1e-3  # the lattice's own error
    assert set(gates) >= {TRITON.name, SPARSE.name}
    assert all(difference < 1e-5 for difference in gates.values())


def test_what_was_measured_stays_when_a_later_part_fails(tmp_path: Path) -> None:
    kept: list[dict[str, Any]] = []

    def stop(partial: dict[str, Any]) -> None:
        kept.append(dict(partial))
        if "goals" in partial:
            raise KeyboardInterrupt

    options = tyro.cli(
        BenchmarkOptions, args=[*WORDS.split()[2:], "--out", str(tmp_path / "x.json")]
    )
    with pytest.raises(KeyboardInterrupt):
        benchmark_gpu(options, CPU, clock_of(CPU), PLAN, keep=stop)
    assert "ceilings" in kept[0]
    assert len(kept[1]["goals"]) == len(PLAN.goals)


def test_goals_are_met_or_not(results: dict[str, Any]) -> None:
    block = block_of(results)
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in block.splitlines()}
    (lattice,) = (line for name, line in lines.items() if name.startswith("lattice: 24 x 20, 3 "))
    assert lattice.endswith("| yes |")
    assert lines["lattice: torch sparse CSR over it"].endswith("| yes |")
    assert lines["lattice: same bits again"].endswith("| yes | yes | yes |")
    assert lines["backward: torch sparse CSR over it"].endswith("| no |")
    assert lines["backward: peak memory"].endswith("| ≤ 1 GB | – | not measured |")
    assert results["exact_error"] < 1e-5


def test_the_block_has_every_table(results: dict[str, Any]) -> None:
    block = block_of(results)
    for part in (
        "ceilings of this card: copying", "joint step of deeplab_v3plus_mobilenetv2",
        "Inference, T = 2", "| 10 / 20 |", "theta learns", "Images in a batch", "24 x 20, 0.00048",
        "| 3 | dense matrices |",
    ):  # fmt: skip
        assert part in block
    assert [row["crf"] for row in results["joint"]] == [False, True]
    assert all(row["difference"] < 1e-5 for row in results["spatial"])


def test_the_readme_takes_the_block(written: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("<!-- awaits:cuda -->\nNothing yet.\n<!-- /awaits:cuda -->\n")
    main(["readme", str(written), "--readme", str(readme)])
    check_block(readme.read_text(), "cuda", block_of(json.loads(written.read_text())))


def test_gradients_of_sparse_products_are_the_layers() -> None:
    """Of the unary and every parameter, in float32."""
    every = []
    for path in (SPARSE, PLAIN):
        with path.active():
            every.append(path.prepare(TRAINING)())
    for found, expected in zip(*every, strict=True):
        scale = expected.abs().max().item()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * scale)


def test_another_result_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(self: Any, crf: Any, problem: Problem, unary: torch.Tensor) -> torch.Tensor:
        return unary

    monkeypatch.setattr(type(SPARSE), "logits", nothing)
    with pytest.raises(ValueError, match="torch sparse CSR does not compute the same CRF"):
        agreement(SPARSE, PROBLEM)


def no_memory(self: Any, problem: Problem) -> Callable[[], Results]:
    def task() -> Results:
        raise torch.OutOfMemoryError("CUDA out of memory")

    return task


def test_want_of_memory_is_said(monkeypatch: pytest.MonkeyPatch, results: dict[str, Any]) -> None:
    monkeypatch.setattr(type(SPARSE), "prepare", no_memory)
    rows, late = timed("pixels", PROBLEM, [PLAIN, SPARSE], WallClock(), 1)
    assert ([row["path"] for row in rows], late) == ([PLAIN.name], [SPARSE.name])
    (goal,) = measure_goals([Goal("x", PROBLEM, PLAIN, 1.0, ratio=5.0)], CPU, WallClock(), 1)
    assert goal["sparse_seconds"] is None
    block = block_of(results | {"goals": [goal], "late": ["torch sparse CSR at (20, 24)"]})
    assert "| x: torch sparse CSR over it | ≥ 5 | found no memory | – |" in block
    assert "- found no memory: torch sparse CSR at (20, 24)" in block


def test_triton_is_hidden_and_comes_back() -> None:
    before = triton_kernels.available()
    with without_triton():
        assert not triton_kernels.available()
        assert PLAIN.missing() is None
        assert TRITON.missing() == "Triton is not installed"
    assert triton_kernels.available() == before


def test_the_goals_are_those_of_the_gpu_path() -> None:
    asked = [(g.problem.shape, g.problem.batch, g.problem.iterations, g.seconds) for g in GOALS]
    assert asked == [
        ((500, 500), 1, 10, 4e-3), ((513, 513), 16, 5, 80e-3), ((375, 500), 1, 10, 150e-3)
    ]  # fmt: skip
    assert [(g.bytes, g.ratio) for g in GOALS] == [(None, 5.0), (12e9, 5.0), (1e9, None)]
    assert NATIVE.placed(replace(PROBLEM, device="meta")).device == "cpu"


def test_without_a_gpu_the_command_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="--device cuda: PyTorch sees no GPU here"):
        main(["benchmark", "crf", "--device", "cuda", "--out", str(tmp_path / "cuda.json")])
    assert not (tmp_path / "cuda.json").exists()
