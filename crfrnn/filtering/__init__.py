"""Linear operators K v: one file per way to compute a Gaussian filter."""

from __future__ import annotations

from crfrnn.filtering.exact import ExactFilter
from crfrnn.filtering.lattice import LatticeFilter, LatticeOverflowError
from crfrnn.filtering.linear import NORMALIZATIONS, Filter, Normalization, Normalized
from crfrnn.filtering.separable import SeparableFilter

__all__ = [
    "NORMALIZATIONS",
    "ExactFilter",
    "Filter",
    "LatticeFilter",
    "LatticeOverflowError",
    "Normalization",
    "Normalized",
    "SeparableFilter",
]
