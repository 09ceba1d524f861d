"""Compile every Triton kernel for a GPU that need not be there, and say what each of them takes.

    python -m benchmarks.kernels --out results/kernels.json

The interpreter runs the kernels' logic, but knows nothing of what a compiler refuses. Here the
launchers run with a driver that only says which GPU is meant, and every launch stops when its
kernel is compiled.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from benchmarks.measure import Options, Results, main, origin
from crfrnn.lattice import ACCURACIES, build_lattice, split_segments
from crfrnn.triton_kernels import build, exact, exact_grad, neighbours, rows, segments, separable
from eval.tables import markdown

HOPPER = GPUTarget("cuda", 90, 32)
SINGLE, DOUBLE, HALF = torch.float32, torch.float64, torch.bfloat16


def lattice(dtype: torch.dtype, num_pixels: int = 300, labels: int = 21) -> None:
    """Splat, all blurs, slice with and without the end of an update, and the weights' gradient."""
    sums = DOUBLE if dtype == DOUBLE else SINGLE
    features = torch.randn(1, num_pixels, 5, dtype=sums)
    for accuracy in ACCURACIES.values():
        tables = split_segments(build_lattice(features, accuracy)[0], 32)
        v = torch.rand(num_pixels, labels, dtype=dtype)
        values = v.new_empty(tables.stencils.shape[1], labels, dtype=sums)
        parts = v.new_empty(tables.splat_offsets.numel(), labels, dtype=sums)
        entries = tables.splat_pixels, tables.splat_weights
        segments.segment_sum(v, tables.splat_offsets, parts, entries)
        segments.segment_sum(parts, tables.splat_segments, values[:-1], None)
        segments.blur(values, tables.stencils[0], accuracy.taps)
        corners = tables.slice_vertices, tables.slice_weights, accuracy.gain(5)
        base, after = torch.empty_like(v), v.new_empty(num_pixels)
        segments.slice_(values, *corners)
        segments.slice_(values, *corners, after=after, base=base)
        segments.corner_products(values, tables.slice_vertices, v)


def lattice_build(dtype: torch.dtype, dim: int, num_pixels: int = 300) -> None:
    """The tables of a lattice."""
    features = torch.randn(num_pixels, dim, dtype=dtype)
    weights, ranks, digits, _ = build.simplices(features, 1.0)
    strides = torch.ones(dim + 1, dtype=torch.int64)
    keys = build.packed_keys(digits, ranks, strides[1:], strides, num_pixels)
    build.sorted_tables(keys, weights)
    for accuracy in ACCURACIES.values():
        neighbours.stencils(torch.arange(num_pixels), strides, reach=accuracy.reach)


def updates(dtype: torch.dtype, labels: int, num_pixels: int = 300) -> None:
    """Messages from logits, and their gradient."""
    logits, q = torch.rand(num_pixels, labels), torch.rand(num_pixels, labels, dtype=dtype)
    penalties, before = torch.rand(2, labels, labels), torch.rand(2, num_pixels)
    rows.messages(logits, penalties, before, q, dtype)
    received = torch.rand(2, num_pixels, labels)
    for to_penalties in (False, True):
        rows.messages_grad(q, received, penalties, to_penalties=to_penalties)


def spatial(dtype: torch.dtype, size: int = 20, labels: int = 21) -> None:
    """One axis of the spatial Gaussian, and its width's gradient."""
    v = torch.rand(1, size, labels, dtype=dtype)
    theta = torch.tensor(3.0, dtype=DOUBLE if dtype == DOUBLE else SINGLE)
    separable.correlate(theta, v, size, labels)
    separable.theta_grad(theta, v, v, size, labels)


def exact_sums(dtype: torch.dtype, labels: int, dim: int, num_pixels: int = 300) -> None:
    """The sum over all pairs, and the gradient of its features."""
    features = torch.rand(1, num_pixels, dim, dtype=DOUBLE if dtype == DOUBLE else SINGLE)
    v = torch.rand(1, num_pixels, labels, dtype=dtype)
    order = torch.arange(num_pixels)[None]
    exact.exact_filter(features, v, order, 2**-14)
    exact_grad.exact_features_grad(features, v, v, order, 2**-14)


# Triton compiles anew for an argument of 1, which is then no number of its own: one pixel.
CASES: list[tuple[Any, tuple[Any, ...]]] = [
    *[(lattice, arguments) for arguments in ((SINGLE,), (DOUBLE,), (HALF,), (SINGLE, 1))],
    *[(lattice_build, arguments) for arguments in
      ((SINGLE, 5), (DOUBLE, 3), (SINGLE, 16), (SINGLE, 2, 1))],
    *[(updates, arguments) for arguments in
      ((SINGLE, 21), (HALF, 21), (SINGLE, 64), (SINGLE, 2, 1))],
    *[(spatial, arguments) for arguments in ((SINGLE,), (DOUBLE,), (HALF,), (SINGLE, 1, 1))],
    *[(exact_sums, arguments) for arguments in
      ((SINGLE, 21, 5), (SINGLE, 1, 5), (SINGLE, 256, 5), (SINGLE, 21, 8), (SINGLE, 21, 16),
       (HALF, 21, 5), (DOUBLE, 21, 3), (SINGLE, 2, 1, 1))],
]  # fmt: skip


class AbsentGpu:
    """A driver for compilation alone."""

    def get_current_target(self) -> GPUTarget:
        """The GPU that is meant."""
        return HOPPER

    def get_current_device(self) -> int:
        """Its index."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """The default stream."""
        return 0


def compiled(launch: Any, arguments: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Return what the kernels of a launch need, in order; nothing is computed."""
    found: list[dict[str, Any]] = []
    run = JITFunction.run

    def stop(self: Any, *args: Any, **options: Any) -> Any:
        kernel = run(self, *args, **{**options, "warmup": True})
        row = {"kernel": self.fn.__name__, "shared": kernel.metadata.shared}
        found.append(row | registers(kernel))
        return kernel

    JITFunction.run = stop  # every launcher goes through it
    try:
        launch(*arguments)
    finally:
        JITFunction.run = run
    case = " ".join([launch.__name__, *map(str, arguments)])
    return [{"case": case, **row} for row in found]


def registers(kernel: Any) -> dict[str, int]:
    """Registers of a thread, and bytes of it that did not fit into them."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    numbers = {key: int(value) for key, value in re.findall(r"(REG|LOCAL|STACK):(\d+)", shown)}
    return {"registers": numbers["REG"], "spilled": numbers["LOCAL"] + numbers["STACK"]}


def measure(options: Options) -> Iterator[tuple[str, Any]]:
    """Yield a row for each kernel that is compiled."""
    triton.runtime.driver.set_active(AbsentGpu())
    yield "target", f"{HOPPER.backend}, compute capability {HOPPER.arch / 10:g}"
    yield "kernels", [row for launch, arguments in CASES for row in compiled(launch, arguments)]


def table(results: Results) -> str:
    """Write the largest needs of each kernel as Markdown."""
    most: dict[str, list[int]] = {}
    for row in results["kernels"]:
        own = [row[key] for key in ("registers", "spilled", "shared")]
        most[row["kernel"]] = [
            max(pair) for pair in zip(own, most.get(row["kernel"], own), strict=True)
        ]
    rows = [[f"`{kernel}`", *(f"{number:,}" for number in own)] for kernel, own in most.items()]
    titles = ["kernel", "registers of a thread", "bytes spilled", "bytes shared by a block"]
    legend = "The most that any case takes: dtypes, label counts and dimensions."
    return "\n\n".join(
        [origin(results, f"for {results['target']}"), markdown(titles, rows), legend]
    )


if __name__ == "__main__":
    main(Options, measure, table)
