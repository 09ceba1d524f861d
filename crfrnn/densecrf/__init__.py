"""The API that pydensecrf users know, on this library's filters: change only the import.

    import crfrnn.densecrf as dcrf
    from crfrnn.densecrf import unary_from_labels, create_pairwise_bilateral

That API's conventions hold here, and only here: unaries are ENERGIES, -log P, (L, N); a
scalar `compat` is a Potts weight and attracts, a vector or a matrix is an energy, so a
positive vector repels; every kernel, the spatial one too, goes through the permutohedral
lattice. It runs on the CPU and learns nothing: `crfrnn.CrfRnn` does both better.

Kept on purpose: constructors count width before height, `sxy` is (x, y) while `sdims`
follows the axes of an array, and `chdim=-1` means that there is no channel axis.
"""

from __future__ import annotations

from crfrnn.densecrf.constants import (
    CONST_KERNEL,
    DIAG_KERNEL,
    FULL_KERNEL,
    NO_NORMALIZATION,
    NORMALIZE_AFTER,
    NORMALIZE_BEFORE,
    NORMALIZE_SYMMETRIC,
    KernelType,
    NormalizationType,
)
from crfrnn.densecrf.features import create_pairwise_bilateral, create_pairwise_gaussian
from crfrnn.densecrf.model import ConstUnary, DenseCRF, DenseCRF2D, LogisticUnary
from crfrnn.densecrf.unaries import (
    compute_unary,
    softmax_to_unary,
    unary_from_labels,
    unary_from_softmax,
)

__all__ = [
    "CONST_KERNEL",
    "DIAG_KERNEL",
    "FULL_KERNEL",
    "NORMALIZE_AFTER",
    "NORMALIZE_BEFORE",
    "NORMALIZE_SYMMETRIC",
    "NO_NORMALIZATION",
    "ConstUnary",
    "DenseCRF",
    "DenseCRF2D",
    "KernelType",
    "LogisticUnary",
    "NormalizationType",
    "compute_unary",
    "create_pairwise_bilateral",
    "create_pairwise_gaussian",
    "softmax_to_unary",
    "unary_from_labels",
    "unary_from_softmax",
]
