"""The same lattice as a row of torch sparse products: what one would write without this library.

    K v = W B_d ... B_0 W' v,   every factor a CSR matrix

made of the tables of `lattice.build_lattice`. The products are the vendor's; the matrices are
constants, so the gradient is taken to v alone, by the transposed row.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from crfrnn.filtering import Filter
from crfrnn.filtering.lattice import Lattice, LatticeAccuracy


@dataclass(frozen=True)
class SparseLattice:
    """The factors of K.

    Attributes:
        splat: W', (M, BN).
        blurs: B_0, ..., B_d, each (M, M) and its own transpose.
        slice_: W with the gain, (BN, M).
    """

    splat: Tensor
    blurs: Sequence[Tensor]
    slice_: Tensor

    def product(self, v: Tensor, *, transposed: bool) -> Tensor:
        """K v, or K' v by the blurs in reverse order: (B, N, L)."""
        values = self.splat @ v.reshape(-1, v.shape[-1])
        for blur in reversed(self.blurs) if transposed else self.blurs:
            values = blur @ values
        result: Tensor = self.slice_ @ values
        return result.reshape(v.shape)


def sparse_lattice(tables: Lattice, accuracy: LatticeAccuracy) -> SparseLattice:
    """The matrices of a lattice; neighbours that are missing take no entry.

    Args:
        tables: from `build_lattice`, their lists not split.
        accuracy: they were built with.
    """
    vertices, (pixels, size) = tables.stencils.shape[1] - 1, tables.slice_weights.shape
    entries = tables.splat_pixels.new_tensor([pixels * size])
    splat = _csr(
        torch.cat([tables.splat_offsets, entries]), tables.splat_pixels, tables.splat_weights,
        (vertices, pixels),
    )  # fmt: skip
    columns, order = tables.slice_vertices.sort(dim=1)
    weights = (tables.slice_weights * accuracy.gain(size - 1)).gather(1, order)
    starts = torch.arange(0, pixels * size + 1, size, device=columns.device)
    slice_ = _csr(starts, columns.flatten(), weights.flatten(), (pixels, vertices))
    # In the order of a stencil's row: behind, ahead, ..., itself.
    row = [tap for tap in accuracy.taps[1:] for _ in ("behind", "ahead")] + [accuracy.taps[0]]
    taps = weights.new_tensor(row)
    blurs = []
    for stencil in tables.stencils[:, :vertices]:
        columns, order = stencil.sort(dim=1)
        there = columns < vertices
        starts = torch.cat([entries.new_zeros(1), there.sum(1).cumsum(0)])
        blurs.append(_csr(starts, columns[there], taps[order][there], (vertices, vertices)))
    return SparseLattice(splat, blurs, slice_)


def _csr(starts: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(
            starts.to(columns.dtype), columns, values, size, check_invariants=False
        )


class _Product(torch.autograd.Function):
    """`SparseLattice.product` with the gradient to v."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, lattice: SparseLattice, transposed: bool) -> Tensor:
        ctx.lattice, ctx.transposed = lattice, transposed
        return lattice.product(v, transposed=transposed)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return ctx.lattice.product(grads[0], transposed=not ctx.transposed), None, None


@final
class SparseFilter(Filter):
    """K v by sparse products, differentiable in v alone.

    Args:
        tables: of the lattice.
        accuracy: it was built with.
    """

    def __init__(self, tables: Lattice, accuracy: LatticeAccuracy) -> None:
        self.lattice = sparse_lattice(tables, accuracy)

    def __call__(self, v: Tensor) -> Tensor:
        """K v: (B, N, L)."""
        result: Tensor = _Product.apply(v, self.lattice, False)
        return result

    def transpose(self, v: Tensor) -> Tensor:
        """K' v: (B, N, L)."""
        result: Tensor = _Product.apply(v, self.lattice, True)
        return result
