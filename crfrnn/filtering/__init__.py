"""Linear operators K v: one file per way to compute a Gaussian filter."""

from __future__ import annotations

from crfrnn.filtering.accuracy import LatticeAccuracyName
from crfrnn.filtering.filters import (
    ExactFilter,
    FeaturesGradient,
    LatticeFilter,
    SeparableFilter,
    WindowFilter,
)
from crfrnn.filtering.linear import NORMALIZATIONS, Filter, Normalization, Normalized, WithoutSelf
from crfrnn.filtering.vertices import LatticeOverflowError

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
