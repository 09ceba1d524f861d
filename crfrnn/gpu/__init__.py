"""The functions of `plain.py` on a GPU, by Triton's kernels. Imported on first use alone."""

from __future__ import annotations

from crfrnn.gpu.exact import exact_features_grad, exact_filter, exact_order
from crfrnn.gpu.lattice import build_lattice, lattice_filter, lattice_weights_grad
from crfrnn.gpu.separable import separable_filter, separable_theta_grad
from crfrnn.gpu.updates import mean_field_updates, mean_field_updates_grad, serves_updates

__all__ = [
    "build_lattice",
    "exact_features_grad",
    "exact_filter",
    "exact_order",
    "lattice_filter",
    "lattice_weights_grad",
    "mean_field_updates",
    "mean_field_updates_grad",
    "separable_filter",
    "separable_theta_grad",
    "serves_updates",
]
