"""Everything that is measured on a GPU, in one run: ceilings, goals, sweeps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

import torch
from rich.console import Console

from eval.benchmark.gpu.ceilings import Sizes, measure_ceilings
from eval.benchmark.gpu.clock import Clock, Entry, WallClock, found_memory, rounds
from eval.benchmark.gpu.goals import GOALS, Goal, exact_error, measure_goals
from eval.benchmark.gpu.joint import JointStep, measure_joint
from eval.benchmark.gpu.paths import NATIVE, PATHS, PLAIN, TRITON, DevicePath, count_vertices
from eval.benchmark.gpu.spatial import measure_spatial
from eval.benchmark.gpu.work import crf_work
from eval.benchmark.options import BenchmarkOptions, Shape
from eval.benchmark.problem import Problem
from eval.benchmark.run import SMALLEST_AGREEMENT
from runtime.provenance import provenance

KIND = "benchmark-gpu"

Case = tuple[str, Problem, Sequence[DevicePath]]  # sweep, problem, paths


@dataclass(frozen=True)
class Plan:
    """What is measured besides the sweeps of the options; a test measures less.

    Attributes:
        sizes: of copies and products.
        goals: problems with limits.
        joint: the step of joint training.
        spatial: the grid of the spatial kernel alone.
        crop: on which the exact filter is held against float64.
    """

    sizes: Sizes = field(default_factory=Sizes)
    goals: Sequence[Goal] = GOALS
    joint: JointStep = field(default_factory=JointStep)
    spatial: Shape = (500, 500)
    crop: Shape = (96, 96)


def benchmark_gpu(
    options: BenchmarkOptions,
    device: torch.device,
    clock: Clock,
    plan: Plan,
    *,
    keep: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """The content of a results file of the kind "benchmark-gpu".

    Args:
        options: of the sweeps.
        device: what is measured.
        clock: its own.
        plan: what is measured besides.
        keep: is given what there is after each part: hours of a GPU are not lost to the last one.

    Raises:
        ValueError: a path does not compute what the others do, so that its time would mean nothing.
    """
    started, began = datetime.now(timezone.utc).isoformat(timespec="seconds"), time.perf_counter()
    origin, console, repeats = provenance(), Console(stderr=True), options.repeats
    missing = {path.name: reason for path in PATHS if (reason := path.missing()) is not None}
    for name, reason in missing.items():
        console.print(f"{name}: left out, {reason}")
    paths = [path for path in PATHS if path.name not in missing]
    config = {key: value for key, value in asdict(options).items() if key != "out"}
    base = _base(options, device)
    results: dict[str, Any] = {
        "kind": KIND,
        "name": options.out.stem,
        **origin,
        "cuda": torch.version.cuda,
        "started": started,
        "config": config,
        "missing": missing,
        "gate": [agreement(path, base) for path in paths if path is not PLAIN],
    }
    parts: dict[str, Callable[[], Any]] = {
        "ceilings": lambda: measure_ceilings(device, clock, repeats, plan.sizes),
        "goals": lambda: measure_goals(plan.goals, device, clock, repeats),
        "exact_error": lambda: exact_error(plan.crop, options.labels, device),
        "spatial": lambda: measure_spatial(plan.spatial, options.labels, device, clock, repeats),
        "joint": lambda: measure_joint(plan.joint, device, clock, repeats),
    }
    for name, measure in parts.items():
        results[name] = measure()
        keep(results)
        console.print(f"{name}: {results[name]}")
    results["times"], results["late"] = sweeps(options, device, clock, paths, console)
    return results | {"wall_seconds": time.perf_counter() - began}


def sweeps(
    options: BenchmarkOptions,
    device: torch.device,
    clock: Clock,
    paths: Sequence[DevicePath],
    console: Console,
) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of every sweep, and in words what found no memory."""
    times: list[dict[str, Any]] = []
    late: list[str] = []
    slow: set[str] = set()  # too slow for a larger image
    for sweep, problem, wanted in cases(options, device, paths):
        able = [path for path in wanted if sweep != "pixels" or path.name not in slow]
        rows, lacking = timed(sweep, problem, able, clock, options.repeats)
        times += rows
        late += [f"{name} at {problem.shape}, {problem.labels} labels" for name in lacking]
        if sweep == "pixels":
            slow |= {r["path"] for r in rows if min(r["seconds"]) > options.slowest}
        shown = ", ".join(f"{r['path']} {min(r['seconds']):.3g} s" for r in rows)
        console.print(f"{sweep} {problem.shape} L={problem.labels} B={problem.batch}: {shown}")
    return times, late


def cases(
    options: BenchmarkOptions, device: torch.device, paths: Sequence[DevicePath]
) -> Iterator[Case]:
    """The problems of every sweep, as on the CPU, with the paths that take part."""
    base = _base(options, device)
    for thetas in options.thetas:
        yield "inference", replace(base, thetas=thetas), paths
    step = replace(base, iterations=options.train_iterations, training=True)
    trained = [path for path in paths if path.trains]
    yield "training", step, trained
    yield "training", replace(step, learn_theta=True), [p for p in trained if p.learns_theta]
    for labels in options.label_counts:
        yield "labels", replace(base, labels=labels, shape=options.sizes[0]), paths
    for batch in options.batches:
        yield "batch", replace(base, batch=batch), [p for p in paths if p is TRITON]
    for shape in options.sizes:
        yield "pixels", replace(base, shape=shape), paths


def _base(options: BenchmarkOptions, device: torch.device) -> Problem:
    return Problem(
        options.shape, options.labels, options.thetas[0], options.theta_gamma, options.iterations,
        device=str(device),
    )  # fmt: skip


def timed(
    sweep: str, problem: Problem, paths: Sequence[DevicePath], clock: Clock, repeats: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """Seconds and peaks of the paths, in turn; and the names of those that found no memory."""
    entries: dict[DevicePath, Entry] = {}
    lacking = []
    for path in paths:
        own = WallClock() if path is NATIVE else clock
        entry = Entry(own, path.prepare(problem), path.active)
        if found_memory(entry):
            entries[path] = entry
        else:
            lacking.append(path.name)
    count = count_vertices(problem)
    rows = []
    seconds = rounds(list(entries.values()), repeats)
    for (path, entry), taken in zip(entries.items(), seconds, strict=True):
        vertices = count if path.has_lattice else None
        rows.append({
            "sweep": sweep, **asdict(problem), "path": path.name, "seconds": taken,
            "peak_bytes": entry.peak_bytes(), "vertices": vertices,
            **asdict(crf_work(problem, vertices)),
        })  # fmt: skip
    return rows, lacking


def agreement(path: DevicePath, problem: Problem) -> dict[str, Any]:
    """The path's q beside that of plain PyTorch.

    The exact kernel's tells the lattice's own error, that of half precision its rounding.

    Raises:
        ValueError: they differ by more than the path may.
    """
    found = []
    for each in (path, PLAIN):
        with each.active():
            found.append(each.prepare(problem)()[0].cpu())
    difference = (found[0] - found[1]).abs().max().item()
    same = (found[0].argmax(1) == found[1].argmax(1)).double().mean().item()
    limit = path.largest_difference
    if limit is not None and not (difference <= limit and same >= SMALLEST_AGREEMENT):
        raise ValueError(
            f"{path.name} does not compute the same CRF: expected q within {limit} "
            f"of plain PyTorch and at least {SMALLEST_AGREEMENT:.0%} of its labels, got a "
            f"difference of {difference:.2g} and {same:.2%} of the labels."
        )
    return {"path": path.name, "largest_difference": difference, "same_labels": same}
