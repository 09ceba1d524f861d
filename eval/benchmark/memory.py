"""Peak memory and the cost of the first call, each in a process of its own.

The peak is that of the resident set, which Linux counts and lets be reset; elsewhere nothing is
measured. A small problem runs first, so that code and its constant tables are not counted.
"""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from crfrnn import CrfRnn
from crfrnn.filtering import LatticeFilter, Normalized
from eval.benchmark.options import BenchmarkOptions
from eval.benchmark.paths import PATHS, layer_options
from eval.benchmark.problem import Problem

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
SMALL = (40, 40)


def measure_memory(base: Problem, options: BenchmarkOptions) -> list[dict[str, Any]]:
    """Peak bytes beyond the inputs, by path and task; none where the system does not count."""
    if not CLEAR.exists():
        return []
    step = replace(base, iterations=options.train_iterations, training=True)
    large = replace(base, shape=options.sizes[-1])
    rows = []
    for problem in (base, step, replace(step, learn_theta=True), large):
        for path in PATHS:
            left_out = (
                path.missing() is not None
                or (problem.training and not path.trains)
                or (problem.learn_theta and not path.name.startswith("crfrnn"))
                or (problem is large and path is not PATHS[0])
            )
            if not left_out:
                peak = _in_process("peak", path.name, problem, options.threads[-1])
                rows.append({**asdict(problem), "path": path.name, **peak})
    return rows


def measure_first_call(problem: Problem, options: BenchmarkOptions) -> dict[str, Any]:
    """Seconds of the first calls in a fresh process, imports done."""
    seconds = _in_process("first", PATHS[0].name, problem, options.threads[-1])
    return {**asdict(problem), **seconds}


def _in_process(what: str, path: str, problem: Problem, threads: int) -> dict[str, Any]:
    request = json.dumps(
        {"what": what, "path": path, "problem": asdict(problem), "threads": threads}
    )
    done = subprocess.run(
        [sys.executable, "-m", "eval.benchmark.memory", request],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main(arguments: Sequence[str]) -> None:
    """Do one request and print its result as JSON."""
    request = json.loads(arguments[0])
    fields: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in request["problem"].items()
    }
    problem = Problem(**fields)
    torch.set_num_threads(request["threads"])
    path = next(path for path in PATHS if path.name == request["path"])
    run = path.train if problem.training else path.infer
    # The inputs exist before anything is counted.
    _ = problem.image, problem.unary, problem.logits_grad
    if request["what"] == "first":
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            run(problem)
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": seconds}))
        return
    run(replace(problem, shape=SMALL))
    lattice = lattice_bytes(problem)
    return_freed_memory()
    before = status_bytes("VmRSS")
    CLEAR.write_text(RESET_PEAK)
    run(problem)
    peak = status_bytes("VmHWM") - before
    print(json.dumps({"peak_bytes": peak, "q_bytes": problem.q_bytes, "lattice_bytes": lattice}))


def lattice_bytes(problem: Problem) -> int:
    """The tables of the bilateral kernel's lattice."""
    crf = CrfRnn(problem.labels, **layer_options(problem))
    kernels = crf.potentials.build_kernels(problem.image.float())
    lattices = [k.kernel for k in kernels if isinstance(k, Normalized)]
    tables = [t for k in lattices if isinstance(k, LatticeFilter) for t in k.tables]
    return sum(t.numel() * t.element_size() for t in tables)


def return_freed_memory() -> None:
    """What is free in the heap would otherwise be used again uncounted."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def status_bytes(field: str) -> int:
    """A line of /proc/self/status, in bytes."""
    line = next(ln for ln in STATUS.read_text().splitlines() if ln.startswith(field + ":"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main(sys.argv[1:])
