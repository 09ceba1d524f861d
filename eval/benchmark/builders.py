"""Every network, each in a process of its own and with a time limit."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from eval.benchmark.builder import Work, measure_builder
from models import BUILDERS, builder
from models.describe import NUM_CLASSES
from runtime.distributed import DeviceName, device_named
from runtime.provenance import provenance

TASKS = 4  # inference and training, without and with the CRF


@dataclass(frozen=True)
class BuildersOptions:
    """Time training and inference of every network, and measure their memory.

    Attributes:
        out: the JSON file to write.
        names: of `python -m models list`; all if none are given.
        size: side of the one image of a batch, pixels.
        repeats: timed rounds of each task at most, after one that is dropped.
        seconds: of each task; no round begins later. The only round of a slow one counts.
        limit: seconds of a network; what is not measured by then is left out, and said.
        threads: of PyTorch.
        device: "auto" is the GPU where there is one.
    """

    out: Path
    names: tuple[str, ...] = ()
    size: int = 321
    repeats: int = 5
    seconds: float = 1.0
    limit: float = 25.0
    threads: int = 2
    device: DeviceName = "auto"

    def __post_init__(self) -> None:
        for name, least in (("size", 33), ("repeats", 1), ("threads", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        for name in ("seconds", "limit"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")


def benchmark_builders(options: BuildersOptions) -> dict[str, Any]:
    """The content of a results file of the kind "builders".

    Raises:
        ValueError: there is no network of that name; suggests the nearest.
        ChildProcessError: a network failed.
    """
    started, began = datetime.now(timezone.utc).isoformat(timespec="seconds"), time.perf_counter()
    origin = provenance()
    names = [name for name in options.names or BUILDERS if builder(name)]
    console = Console(stderr=True)
    rows: list[dict[str, Any]] = []
    late: dict[str, int] = {}
    for name in track(names, "networks", console=console):
        work = Work(
            name, options.size, options.repeats, options.seconds, options.threads,
            device_named(options.device).type,
        )  # fmt: skip
        found = measured_apart(work, options.limit)
        rows += found
        if len(found) < TASKS:
            late[name] = TASKS - len(found)
            console.print(
                f"{name}: {late[name]} of {TASKS} tasks left out after {options.limit:g} s "
                "(--limit)"
            )
    return {
        "kind": "builders",
        "name": options.out.stem,
        **origin,
        "started": started,
        "classes": NUM_CLASSES,
        "device": device_named(options.device).type,
        **{k: getattr(options, k) for k in ("size", "repeats", "seconds", "limit", "threads")},
        "rows": rows,
        "late": late,
        "wall_seconds": time.perf_counter() - began,
    }


def measured_apart(work: Work, limit: float) -> list[dict[str, Any]]:
    """The rows of one network that were there in time, measured in another process.

    Raises:
        ChildProcessError: the process ended before it was done.
    """
    # What forks has imported everything, once; it has run nothing, so it has no threads.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["eval.benchmark.builder"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_rows, args=(work, sender), daemon=True)
    rows: list[dict[str, Any]] = []
    process.start()
    sender.close()
    until = time.monotonic() + limit
    try:
        while len(rows) < TASKS and receiver.poll(max(0.0, until - time.monotonic())):
            rows.append(receiver.recv())
    except EOFError as error:
        process.join()
        raise ChildProcessError(
            f"measuring {work.name} ended with status {process.exitcode} after {len(rows)} of "
            f"{TASKS} tasks, perhaps for want of memory: see above, or leave it out with --names."
        ) from error
    finally:
        process.kill()
        process.join()
        receiver.close()
    return rows


def _send_rows(work: Work, sender: Connection) -> None:
    for row in measure_builder(work):
        sender.send(row)
