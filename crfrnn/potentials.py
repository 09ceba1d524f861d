"""The pairwise potentials of a dense CRF: kernels, their weights, and the compatibility."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from crfrnn.checks import check_choice, check_flag, check_mask
from crfrnn.filters import (
    NORMALIZATIONS,
    FeaturesGradient,
    Filter,
    LatticeAccuracyName,
    Normalization,
    Normalized,
    WithoutSelf,
)
from crfrnn.inference import Pairwise
from crfrnn.kernels import GaussianKernel, KernelConfig
from crfrnn.label_matrices import (
    CompatibilityForm,
    KernelWeights,
    build_compatibility,
    build_kernel_weight,
)
from crfrnn.ops import Implementation, label_product


class PairwisePotentials(nn.Module):
    """sum_{i<j} mu(x_i, x_j) sum_m w^(m) k^(m)(f_i, f_j), and everything in it that learns.

    Args:
        num_labels: L.
        kernels: by name; "bilateral" takes the image as its guide.
        num_sets: T, weights and compatibility of their own for each iteration; None ties them.

    The other arguments are those of `crfrnn.CrfRnn`.
    """

    def __init__(
        self,
        num_labels: int,
        kernels: Mapping[str, KernelConfig],
        *,
        kernel_weights: KernelWeights,
        nonnegative: bool,
        compatibility: CompatibilityForm,
        compatibility_rank: int | None,
        num_sets: int | None,
        normalization: Normalization,
        self_term: bool,
        learn_theta: bool,
        window_radius: int,
        window_dilation: int,
        lattice_accuracy: LatticeAccuracyName,
        features_gradient: FeaturesGradient,
        implementation: Implementation,
    ) -> None:
        super().__init__()
        check_choice("normalization", normalization, NORMALIZATIONS)
        check_flag("self_term", self_term)
        self.normalization = normalization
        self.self_term = self_term
        self.kernels = nn.ModuleDict()
        self.kernel_weights = nn.ModuleDict()
        for name, config in kernels.items():
            if not self_term and config.filter == "lattice":
                raise ValueError(
                    f"self_term=False needs filters that know each pixel's message to itself; the "
                    f"lattice of kernel {name!r} does not. Use 'exact', 'window' or 'separable', "
                    "or keep the self term, as every dense CRF in use does."
                )
            self.kernels[name] = GaussianKernel(
                theta_position=config.theta_position,
                theta_guide=config.theta_guide,
                filter_name=config.filter,
                learn_theta=learn_theta,
                window_radius=window_radius,
                window_dilation=window_dilation,
                lattice_accuracy=lattice_accuracy,
                features_gradient=features_gradient,
                implementation=implementation,
            )
            self.kernel_weights[name] = build_kernel_weight(
                config.kernel_weights or kernel_weights,
                num_labels,
                value=config.weight,
                nonnegative=nonnegative,
                num_sets=num_sets,
            )
        self.compatibility = build_compatibility(
            compatibility, num_labels, rank=compatibility_rank, num_sets=num_sets
        )

    def build_kernels(
        self,
        image: Tensor,
        guides: Mapping[str, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> list[Filter]:
        """The normalised filters of a batch of images, in the order of the kernels.

        Args:
            image: (B, C, *grid) floating point.
            guides: (B, C, *grid), by the names of the further kernels.
            mask: (B, *grid) bool, False for padding; None: no padding.
        """
        if not image.is_floating_point():
            raise TypeError(
                f"image must be floating point here, in the dtype of the unary, got {image.dtype}."
            )
        check_mask(mask, image)
        batch, _, *shape = image.shape
        masked = mask is not None
        valid = image.new_ones(batch, math.prod(shape), 1)
        if mask is not None:
            valid = mask.reshape(valid.shape).to(valid.dtype)
        filters: list[Filter] = []
        for name, kernel in self.kernels.items():
            guide = image if name == "bilateral" else (guides or {}).get(name)
            unnormalised = kernel(shape, guide, valid, masked=masked)
            if not self.self_term:
                unnormalised = WithoutSelf(unnormalised)
            filters.append(Normalized(unnormalised, self.normalization, valid, masked=masked))
        return filters

    def penalties(self, dtype: torch.dtype) -> Pairwise:
        """mu W_m, (L, L), for each iteration and kernel; one entry if all iterations share it."""
        compatibility = self.compatibility()
        weights = [w() for w in self.kernel_weights.values()]
        products = [label_product(compatibility, w).to(dtype) for w in weights]
        if self.compatibility.num_sets is None:
            return [products]
        return list(zip(*(p.unbind(0) for p in products), strict=True))

    @property
    def theta_alpha(self) -> Tensor:
        """Of the bilateral kernel, position, pixels: () or (ndim,)."""
        return self.kernel("bilateral").log_theta("position").exp()

    @property
    def theta_beta(self) -> Tensor:
        """Of the bilateral kernel, colour, grey levels: () or (C,)."""
        return self.kernel("bilateral").log_theta("guide").exp()

    @property
    def theta_gamma(self) -> Tensor:
        """Of the spatial kernel, position, pixels: () or (ndim,)."""
        return self.kernel("spatial").log_theta("position").exp()

    def kernel(self, name: str) -> GaussianKernel:
        """The kernel of that name: "spatial", "bilateral" or a further one."""
        check_choice("kernel", name, self.kernels.keys())
        return cast(GaussianKernel, self.kernels[name])

    def weight(self, name: str) -> Tensor:
        """The parameter behind that kernel's weight, in its learnable form."""
        check_choice("kernel", name, self.kernel_weights)
        return next(self.kernel_weights[name].parameters())

    def kernel_weight_matrices(self) -> dict[str, Tensor]:
        """W_m, (L, L), or (T, L, L) if untied, by the kernel's name, without gradient."""
        return {name: weight().detach() for name, weight in self.kernel_weights.items()}

    def guide_names(self) -> list[str]:
        """The kernels that take a guide other than the image."""
        others = [name for name in self.kernels if name != "bilateral"]
        return [name for name in others if self.kernel(name).has_guide]

    def extra_repr(self) -> str:
        """What the parts below do not say."""
        return f"normalization={self.normalization!r}, self_term={self.self_term}"
