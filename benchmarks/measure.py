"""Measure times and peaks of memory, and keep them as JSON: what all scripts here share.

python -m benchmarks.X --out results/X.json      measure, write the file, print its tables
python -m benchmarks.X --table results/X.json    print the tables of a file
"""

from __future__ import annotations

import ctypes
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.resources import as_file, files
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor

from eval import tables
from runtime.provenance import CODE, git, provenance

Results = Mapping[str, Any]
Shape = tuple[int, int]  # (H, W)
Task = Callable[[], object]
T = TypeVar("T")

CPU = torch.device("cpu")
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Options:
    """Measure, or show what was measured.

    Attributes:
        out: the JSON file to write.
        table: a JSON file to print as Markdown; nothing is measured.
        repeats: timed rounds, after one that is dropped.
    """

    out: Path | None = None
    table: Path | None = None
    repeats: int = 7

    def __post_init__(self) -> None:
        if (self.out is None) == (self.table is None):
            raise ValueError("expected either --out FILE.json or --table FILE.json.")
        if self.repeats < 1:
            raise ValueError(f"--repeats must be at least 1, got {self.repeats}.")


OptionsT = TypeVar("OptionsT", bound=Options)


def main(
    kind: type[OptionsT],
    measure: Callable[[OptionsT], Iterator[tuple[str, Any]]],
    table: Callable[[Results], str],
    arguments: Sequence[str] | None = None,
) -> None:
    """Run the command line of a script: its options, what it measures, and its Markdown.

    `measure` yields its results part by part, as (name, content). The file is written after each,
    so that a late failure loses nothing.

    Raises:
        SystemExit: with a message, where an option or a file is wrong.
    """
    try:
        options = tyro.cli(kind, args=arguments)
        if options.table is not None:
            print(table(json.loads(options.table.read_text(encoding="utf-8"))))
        elif options.out is not None:
            print(table(write(options.out, options, measure(options))))
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error


def write(path: Path, options: Options, parts: Iterator[tuple[str, Any]]) -> dict[str, Any]:
    """Write the parts to a JSON file as they come, behind what made them."""
    began, text = time.perf_counter(), "{}"
    config = {key: value for key, value in asdict(options).items() if key not in ("out", "table")}
    results = {
        **provenance(),
        "dirty": bool(git("status", "--porcelain", "--", *CODE, ":/benchmarks")),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "config": config,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, content in parts:
        results |= {name: content, "wall_seconds": time.perf_counter() - began}
        text = json.dumps(results, default=str)  # paths
        path.write_text(text + "\n", encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)  # as a later reader has it
    return loaded


# Times and peaks.


def rounds(
    tasks: Mapping[str, Task], repeats: int, device: torch.device = CPU
) -> dict[str, list[float]]:
    """Time the tasks in turn: seconds of each in every round, behind one that is dropped."""
    keep_freed_memory()
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(1 + repeats):
        for name, task in tasks.items():
            taken[name].append(seconds(task, device))
    return {name: values[1:] for name, values in taken.items()}


def keep_freed_memory() -> None:
    """Let malloc return nothing to the system, so that no task pays for what another one freed.

    A page that a virtual machine must ask its host for takes some 0.1 ms, one of 2 MiB 0.4 ms.
    """
    mallopt = of_libc("mallopt")
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX: everything from the heap
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: never smaller


def of_libc(name: str) -> Callable[..., int] | None:
    """Return a function of the C library; None where it has none of that name."""
    return None if sys.platform == "win32" else getattr(ctypes.CDLL(None), name, None)


def seconds(task: Task, device: torch.device = CPU) -> float:
    """Time one call: on the wall, or on a GPU between two events of its stream."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(device)
        start.record()
        task()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3
    began = time.perf_counter()
    task()
    return time.perf_counter() - began


def peak_bytes(task: Task, device: torch.device = CPU, before: int = 0) -> int | None:
    """Measure the most memory in use during one call.

    On a GPU: all that PyTorch had allocated. On the CPU: the resident set, but for the bytes
    `before`, in a process that did little else; None where the system does not count it as Linux.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        task()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    if not CLEAR.exists():
        return None
    CLEAR.write_text("5")  # the peak starts anew
    task()
    return _status_bytes("VmHWM") - before


def resident_bytes() -> int:
    """Count the resident set, after what is free in the heap was returned to the system."""
    gc.collect()
    trim = of_libc("malloc_trim")
    if trim is not None:
        trim(0)
    return _status_bytes("VmRSS") if CLEAR.exists() else 0


def _status_bytes(field: str) -> int:
    line = next(ln for ln in STATUS.read_text().splitlines() if ln.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def in_process(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a fresh process."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def photograph(name: str, shape: Shape) -> Tensor:
    """Read a photograph of the scikit-image package, resized: (H, W, 3), float32, 0..255."""
    with as_file(files("skimage") / "data" / name) as path, Image.open(path) as image:
        resized = image.convert("RGB").resize(shape[::-1], Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized, dtype=np.float32))


# Results in words.


def origin(results: Results, *remarks: str) -> str:
    """Say what it takes to measure again: command, machine, versions and commit."""
    lines = [
        *remarks,
        f"{tables.machine_line(results)}; torch {results['versions']['torch']}; wall time "
        f"{tables.duration(results['wall_seconds'])}",
        f"commit {tables.commit_line(results)}",
    ]
    return "\n".join(["```", results["command"], "```", "", *(f"- {line}" for line in lines)])


def milliseconds(values: Sequence[float]) -> str:
    """Write the median of some seconds, in milliseconds."""
    value = 1e3 * statistics.median(values)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """Divide times by others of the same rounds: the median of the ratios."""
    return float(statistics.median(a / b for a, b in zip(values, others, strict=True)))


def gigabytes(count: int | None) -> str:
    """Write bytes as gigabytes."""
    return tables.ABSENT if count is None else f"{count / 1e9:.2f}"


def size(shape: Sequence[int]) -> str:
    """Write (H, W) as "W x H"."""
    return f"{shape[1]} x {shape[0]}"
