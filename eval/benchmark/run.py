"""The sweeps: which problems, timed how, and the gate that every path must pass first."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from crfrnn import CrfRnn
from crfrnn.native import instructions
from eval.benchmark.memory import measure_first_call, measure_memory
from eval.benchmark.options import BenchmarkOptions
from eval.benchmark.paths import NATIVE, PATHS, PLAIN, Path, layer_options, plain_paths
from eval.benchmark.problem import Problem
from runtime.provenance import provenance

LARGEST_DIFFERENCE = 1e-4  # of q, native against plain
SMALLEST_AGREEMENT = 0.99  # of the argmax, a peer against our lattice

FIRST_SHAPE = (64, 64)  # small, so that what a first call does besides is most of it

Case = tuple[str, Problem, Sequence[Path], int]  # sweep, problem, paths, threads


def benchmark(options: BenchmarkOptions) -> dict[str, Any]:
    """Gate, times, memory: the content of a results file of the kind "benchmark".

    Raises:
        ValueError: the native library is not there to be measured; or a path does not compute
            what the others do, so that its time would mean nothing.
    """
    if (reason := NATIVE.missing()) is not None:
        raise ValueError(f"the benchmark measures the native path, which is {reason}.")
    started, began = datetime.now(timezone.utc).isoformat(timespec="seconds"), time.perf_counter()
    origin = provenance()
    console = Console(stderr=True)
    missing = {path.name: reason for path in PATHS if (reason := path.missing()) is not None}
    for name, reason in missing.items():
        console.print(f"{name}: left out, {reason}")
    paths = [path for path in PATHS if path.name not in missing]
    base = _base(options)
    config = {key: value for key, value in asdict(options).items() if key != "out"}
    results = {
        "kind": "benchmark",
        "name": options.out.stem,
        **origin,
        "started": started,
        "config": config,
        "instructions": instructions() or "none",
        "missing": missing,
        "gate": [agreement(path, base) for path in paths if path.same_model],
        "times": [],
        "memory": measure_memory(base, options) if options.memory else [],
        "first_call": measure_first_call(replace(base, shape=FIRST_SHAPE), options),
    }
    slow: set[str] = set()  # too slow for a larger image
    for sweep, problem, wanted, threads in cases(options, paths):
        able = [path for path in wanted if sweep != "pixels" or path.name not in slow]
        rows = timed(sweep, problem, able, threads, options)
        results["times"] += rows
        if sweep == "pixels":
            peers = [row for row in rows if row["path"] != NATIVE.name]
            slow |= {row["path"] for row in peers if min(row["seconds"]) > options.slowest}
        shown = ", ".join(f"{r['path']} {sorted(r['seconds'])[len(r['seconds']) // 2]:.3g} s"
                          for r in rows)  # fmt: skip
        console.print(f"{sweep} {problem.shape} L={problem.labels} {threads} threads: {shown}")
    return results | {"wall_seconds": time.perf_counter() - began}


def cases(options: BenchmarkOptions, paths: Sequence[Path]) -> Iterator[Case]:
    """Every sweep's problems, with the paths that take part and the threads they get."""
    base, most = _base(options), options.threads[-1]
    trains = [path for path in paths if path.trains]
    own = [path for path in paths if path in (NATIVE, PLAIN)]
    for threads in options.threads:
        for thetas in options.thetas:
            # Another model has no bilateral kernel to change.
            able = [path for path in paths if path.same_model or thetas == base.thetas]
            yield "inference", replace(base, thetas=thetas), able, threads
    step = replace(base, iterations=options.train_iterations, training=True)
    for threads in options.threads:
        yield "training", step, trains, threads
        yield "training", replace(step, learn_theta=True), own, threads
    for labels in options.label_counts:
        yield "labels", replace(base, labels=labels, shape=options.sizes[0]), paths, most
    for batch in options.batches:
        yield "batch", replace(base, batch=batch), own[:1], most
    for shape in options.sizes:
        yield "pixels", replace(base, shape=shape), paths, most


def _base(options: BenchmarkOptions) -> Problem:
    return Problem(
        options.shape, options.labels, options.thetas[0], options.theta_gamma, options.iterations
    )


def timed(
    sweep: str, problem: Problem, paths: Sequence[Path], threads: int, options: BenchmarkOptions
) -> list[dict[str, Any]]:
    """Wall times of the paths, in turn in every round; the first round is dropped."""
    seconds: dict[str, list[float]] = {path.name: [] for path in paths}
    torch.set_num_threads(threads)
    try:
        for _ in range(1 + options.repeats):
            for path in paths:
                start = time.perf_counter()
                run(path, problem)
                seconds[path.name].append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(options.threads[-1])
    return [
        {
            "sweep": sweep,
            **asdict(problem),
            "threads": threads if path.threaded else 1,
            "path": path.name,
            "seconds": seconds[path.name][1:],
        }
        for path in paths
    ]


def run(path: Path, problem: Problem) -> Tensor:
    """The task of the problem."""
    return path.train(problem) if problem.training else path.infer(problem)


def agreement(path: Path, problem: Problem) -> dict[str, Any]:
    """The path beside plain PyTorch with its normalisation, and for a peer its spatial lattice.

    Raises:
        ValueError: they differ by more than the two implementations explain.
    """
    own = path in (NATIVE, PLAIN)
    crf = CrfRnn(
        problem.labels,
        kernel_weights="scalar",
        compatibility="potts",
        normalization=path.normalization,
        spatial_filter="separable" if own else "lattice",
        **layer_options(problem),
    ).eval()
    with plain_paths(), torch.inference_mode():
        expected = crf(problem.unary, problem.image).softmax(dim=1)
    q = path.infer(problem)
    difference = (q - expected).abs().max().item()
    same = (q.argmax(1) == expected.argmax(1)).double().mean().item()
    if same < SMALLEST_AGREEMENT or (own and not difference <= LARGEST_DIFFERENCE):
        raise ValueError(
            f"{path.name} does not compute the same CRF: expected q within {LARGEST_DIFFERENCE} "
            f"for a path of this library and at least {SMALLEST_AGREEMENT:.0%} of the labels for "
            f"a peer, got a difference of {difference:.2g} and {same:.2%} of the labels."
        )
    return {"path": path.name, "largest_difference": difference, "same_labels": same}
