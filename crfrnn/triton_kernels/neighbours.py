"""Find who neighbours whom among the vertices of a lattice: the rows that a blur gathers from."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ENTRIES = 256  # vertices in one program


@triton.jit(do_not_specialize=["num_vertices", "num_halvings"])
def stencils_kernel(
    vertices,
    steps,
    stencils,
    num_vertices,
    num_halvings,
    REACH: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    """The rows that each vertex gathers from along one direction: `find_neighbours`.

    A neighbour's key is looked for by halving the table num_halvings times.
    """
    vertex = tl.program_id(0) * ENTRIES + tl.arange(0, ENTRIES)
    direction = tl.program_id(1)
    there = vertex < num_vertices
    WIDTH: tl.constexpr = 2 * REACH + 1
    key = tl.load(vertices + vertex, mask=there, other=0)
    step = tl.load(steps + direction)
    row = stencils + (direction.to(tl.int64) * (num_vertices + 1) + vertex) * WIDTH
    for k in tl.static_range(2 * REACH):
        target = key + (2 * (k % 2) - 1) * (k // 2 + 1) * step
        low = tl.zeros((ENTRIES,), dtype=tl.int32)
        high = low + num_vertices
        for _ in range(num_halvings):
            middle = (low + high) // 2
            below = tl.load(vertices + middle, mask=there & (low < high), other=0) < target
            high = tl.where((low < high) & (below == 0), middle, high)
            low = tl.where((low < high) & below, middle + 1, low)
        found = tl.load(vertices + low, mask=there & (low < num_vertices), other=0)
        present = there & (low < num_vertices) & (found == target)
        tl.store(row + k, tl.where(present, low, num_vertices), mask=vertex <= num_vertices)
    tl.store(row + 2 * REACH, vertex, mask=vertex <= num_vertices)


def stencils(vertices: Tensor, steps: Tensor, *, reach: int) -> Tensor:
    """`find_neighbours` along all directions: (d + 1, M + 1, 2 reach + 1) int32.

    Args:
        vertices: (M,), sorted packed keys.
        steps: (d + 1,) int64, what one step along each direction adds to a key.
        reach: steps to go on each side.
    """
    count = vertices.numel()
    tables = vertices.new_empty(steps.numel(), count + 1, 2 * reach + 1, dtype=torch.int32)
    stencils_kernel[(triton.cdiv(count + 1, ENTRIES), steps.numel())](
        vertices,
        steps,
        tables,
        count,
        count.bit_length(),
        REACH=reach,
        ENTRIES=ENTRIES,
        enable_fp_fusion=True,
    )
    return tables
