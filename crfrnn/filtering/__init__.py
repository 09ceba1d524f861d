"""Linear operators K v: one file per way to compute a Gaussian filter."""

from __future__ import annotations

from crfrnn.filtering.filters import (
    ExactFilter,
    FeaturesGradient,
    LatticeFilter,
    SeparableFilter,
    WindowFilter,
)
from crfrnn.filtering.lattice import LatticeAccuracyName, LatticeOverflowError
from crfrnn.filtering.linear import NORMALIZATIONS, Filter, Normalization, Normalized, WithoutSelf

__all__ = [
    "NORMALIZATIONS",
    "ExactFilter",
    "FeaturesGradient",
    "Filter",
    "LatticeAccuracyName",
    "LatticeFilter",
    "LatticeOverflowError",
    "Normalization",
    "Normalized",
    "SeparableFilter",
    "WindowFilter",
    "WithoutSelf",
]
