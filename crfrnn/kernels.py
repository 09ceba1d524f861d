"""Gaussian kernels over position and guide, and the pairwise potentials made of them.

    k(f_i, f_j) = exp(-|p_i - p_j|^2 / (2 theta_position^2) - |g_i - g_j|^2 / (2 theta_guide^2))

Krahenbuhl and Koltun, NIPS 2011, section 2. Without a guide this is the spatial kernel
(theta_gamma), with the image as the guide the bilateral one (theta_alpha, theta_beta).
Positions are in pixels of the grid that the CRF runs on, colours in grey levels of 0..255.
All kernels include the self term k(f_i, f_i) = 1 unless told otherwise, as every dense CRF
in use does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from crfrnn.checks import (
    check_choice,
    check_count,
    check_features,
    check_finite,
    check_flag,
    check_mask,
    check_theta,
    check_widths,
)
from crfrnn.filters import (
    NORMALIZATIONS,
    ExactFilter,
    FeaturesGradient,
    Filter,
    LatticeAccuracyName,
    LatticeFilter,
    Normalization,
    Normalized,
    SeparableFilter,
    WindowFilter,
    WithoutSelf,
)
from crfrnn.inference import Pairwise
from crfrnn.label_matrices import (
    CompatibilityForm,
    KernelWeights,
    build_compatibility,
    build_kernel_weight,
)
from crfrnn.ops import Implementation, label_product

FilterName = Literal["separable", "lattice", "exact", "window"]
Theta = float | Sequence[float]


@dataclass(frozen=True)
class KernelConfig:
    """A kernel beside the spatial and the bilateral one, over a guide of its own.

    Attributes:
        theta_position: pixels, one for all axes or one for each in the order of the grid;
            None leaves the position out.
        theta_guide: in units of the guide, one for all channels or one for each; None makes
            this another spatial kernel, without a guide.
        weight: start value of its kernel weight.
        filter: how it is summed; "separable" goes with a kernel without a guide.
        kernel_weights: learnable form of its weight; None for that of the other kernels. A
            "matrix" beside a fixed compatibility can learn which labels exclude each other at
            this kernel's distance.
    """

    theta_position: Theta | None = None
    theta_guide: Theta | None = None
    weight: float = 1.0
    filter: FilterName = "lattice"
    kernel_weights: KernelWeights | None = None


def check_further_kernels(configs: object, reserved: Sequence[str]) -> None:
    """Raise unless configs map names that a submodule can have, none reserved, to configs."""
    if not isinstance(configs, Mapping):
        raise TypeError(
            "further_kernels must be a mapping from names to KernelConfig, got "
            f"{type(configs).__name__}: pass further_kernels={{name: KernelConfig(...)}}."
        )
    for name, config in configs.items():
        if not isinstance(name, str) or name == "" or "." in name or name in dir(nn.ModuleDict()):
            raise ValueError(
                "the name of a further kernel must be a string that can name a submodule: not "
                f"empty, without a dot, no attribute of torch.nn.ModuleDict; got {name!r}."
            )
        if name in reserved:
            raise ValueError(
                f"the name of a further kernel must not be one of {list(reserved)}, got {name!r}: "
                "these have arguments of their own."
            )
        if not isinstance(config, KernelConfig):
            raise TypeError(
                f"further kernel {name!r} must be a KernelConfig, got {type(config).__name__}."
            )
        check_choice(f"filter of kernel {name!r}", config.filter, get_args(FilterName))
        check_finite(f"weight of kernel {name!r}", config.weight)
        if config.kernel_weights is not None:
            check_choice(
                f"kernel_weights of kernel {name!r}", config.kernel_weights, get_args(KernelWeights)
            )
        for theta, value, unit in (
            ("theta_position", config.theta_position, "pixels"),
            ("theta_guide", config.theta_guide, "units of the guide"),
        ):
            if value is not None:
                check_theta(f"{theta} of kernel {name!r}", value, unit)


class GaussianKernel(nn.Module):
    """One kernel: its widths, which may learn, and the filter they make with a guide.

    Args:
        theta_position: pixels, see `KernelConfig`.
        theta_guide: in units of the guide, see `KernelConfig`.
        filter_name: "separable" (exact, fast, no guide), "lattice" (approximate, fast),
            "exact" (O(N^2)) or "window" (pixels further away are left out).
        learn_theta: learn the widths, through their logarithms.
        window_radius: of "window", steps on each side of a pixel.
        window_dilation: of "window", pixels in a step.
        lattice_accuracy: of "lattice": "standard", or "fine", three times closer and dearer.
        features_gradient: what widths and guide receive through a lattice: the derivative of
            the Gaussian, or of the lattice itself.
        implementation: see `crfrnn.filters`.
    """

    def __init__(
        self,
        *,
        theta_position: Theta | None,
        theta_guide: Theta | None,
        filter_name: FilterName,
        learn_theta: bool = False,
        window_radius: int = 3,
        window_dilation: int = 1,
        lattice_accuracy: LatticeAccuracyName = "standard",
        features_gradient: FeaturesGradient = "gaussian",
        implementation: Implementation = "automatic",
    ) -> None:
        super().__init__()
        check_choice("filter", filter_name, get_args(FilterName))
        check_choice("lattice_accuracy", lattice_accuracy, get_args(LatticeAccuracyName))
        check_choice("features_gradient", features_gradient, get_args(FeaturesGradient))
        check_flag("learn_theta", learn_theta)
        check_count("window_radius", window_radius, 0)
        check_count("window_dilation", window_dilation, 1)
        if theta_position is None and theta_guide is None:
            raise ValueError(
                "a kernel needs theta_position, theta_guide or both, got neither: without a width "
                "every pixel would be every other's neighbour."
            )
        if filter_name == "separable" and (theta_guide is not None or theta_position is None):
            raise ValueError(
                "the separable filter takes a kernel over position alone, got a theta_guide. "
                "Use 'lattice', 'exact' or 'window'."
            )
        self.filter_name = filter_name
        self.learn_theta = learn_theta
        self.window_radius = window_radius
        self.window_dilation = window_dilation
        self.lattice_accuracy = lattice_accuracy
        self.features_gradient = features_gradient
        self.implementation = implementation
        self.has_position = theta_position is not None
        self.has_guide = theta_guide is not None
        self._register("log_theta_position", theta_position, "pixels")
        self._register("log_theta_guide", theta_guide, "units of the guide")

    def _register(self, name: str, theta: Theta | None, unit: str) -> None:
        """A parameter where it learns, else a buffer, which no requires_grad_() makes learn."""
        if theta is None:
            return
        check_theta(name.removeprefix("log_"), theta, unit)
        log_theta = torch.tensor(theta, dtype=torch.float64).log().float()
        if self.learn_theta:
            self.register_parameter(name, nn.Parameter(log_theta))
        else:
            self.register_buffer(name, log_theta)

    def log_theta(self, of: Literal["position", "guide"]) -> Tensor:
        """Logarithms of the widths, in pixels or units of the guide: (), (ndim,) or (C,)."""
        if not (self.has_position if of == "position" else self.has_guide):
            raise ValueError(f"this kernel has no theta_{of}: it was built with None.")
        return cast(Tensor, getattr(self, f"log_theta_{of}"))

    def widths(self, of: Literal["position", "guide"], count: int, like: Tensor) -> Tensor:
        """One width for each axis of the grid, or each channel of the guide: (count,)."""
        theta = self.log_theta(of).exp()
        if theta.ndim == 1 and theta.shape[0] != count:
            at = "axes of the grid" if of == "position" else "channels of the guide"
            usual = "theta_alpha, theta_gamma" if of == "position" else "theta_beta"
            raise ValueError(
                f"theta_{of} ({usual}) must be one number, or one for each of the {count} {at}, "
                f"got {theta.shape[0]}."
            )
        return theta.to(like.dtype).expand(count)

    def forward(
        self, shape: Sequence[int], guide: Tensor | None, valid: Tensor, *, masked: bool
    ) -> Filter:
        """The unnormalised filter of a batch of images.

        Args:
            shape: the grid, for example (H, W).
            guide: (B, C, *shape), or None for a kernel over position alone.
            valid: (B, N, 1), 1 for a pixel of an image and 0 for padding; gives the dtype.
            masked: whether `valid` holds a 0.
        """
        if self.filter_name == "separable":
            theta = self.widths("position", len(shape), valid)
            check_widths(theta)
            return SeparableFilter(theta, shape, implementation=self.implementation)
        features = self.features(shape, guide, valid, masked=masked)
        if self.filter_name == "lattice":
            return LatticeFilter(
                features,
                self.lattice_accuracy,
                gradient=self.features_gradient,
                implementation=self.implementation,
            )
        if self.filter_name == "exact":
            return ExactFilter(features, implementation=self.implementation)
        return WindowFilter(features, shape, self.window_radius, self.window_dilation)

    def features(
        self, shape: Sequence[int], guide: Tensor | None, valid: Tensor, *, masked: bool
    ) -> Tensor:
        """f, position and guide in units of theta: (B, N, d), N in row-major order.

        The last axis of the grid comes first, as (x, y) does. Padding takes the features of
        the image's first pixel: it would otherwise add vertices to a lattice.
        """
        columns, scales = [], []
        if self.has_position:
            columns.append(positions(shape, valid).expand(valid.shape[0], -1, -1))
            scales.append(self.widths("position", len(shape), valid).flip(0))
        if self.has_guide:
            if guide is None:
                raise ValueError("a kernel with a theta_guide takes a guide, got None.")
            columns.append(guide.to(valid.dtype).flatten(2).transpose(1, 2))
            scales.append(self.widths("guide", guide.shape[1], valid))
        raw = torch.cat(columns, dim=2)
        if masked:
            first = valid.argmax(1, keepdim=True).expand(-1, -1, raw.shape[2])
            raw = torch.where(valid > 0, raw, raw.gather(1, first))
        # The gradient of the widths is summed over the pixels of each image first: the sum of
        # everything at once would depend on the number of threads.
        features = raw * torch.cat(scales).reciprocal().expand(raw.shape[0], 1, -1)
        check_features(features)
        return features

    def extra_repr(self) -> str:
        """The configuration in the words of the constructor."""
        position = rounded(self.log_theta("position").exp()) if self.has_position else None
        guide = rounded(self.log_theta("guide").exp()) if self.has_guide else None
        shown = [f"theta_position={position}", f"theta_guide={guide}"]
        shown += [f"filter_name={self.filter_name!r}", f"learn_theta={self.learn_theta}"]
        if self.filter_name == "window":
            shown.append(f"window_radius={self.window_radius}")
            shown.append(f"window_dilation={self.window_dilation}")
        if self.filter_name == "lattice":
            shown.append(f"lattice_accuracy={self.lattice_accuracy!r}")
            shown.append(f"features_gradient={self.features_gradient!r}")
        return ", ".join(shown)


def rounded(theta: Tensor) -> float | list[float] | str:
    """Plain numbers without the last digits, which the logarithm has cost; "meta" of none."""
    if theta.is_meta:
        return "meta"
    values = [float(f"{t:.6g}") for t in theta.detach().double().reshape(-1).tolist()]
    return values if theta.ndim else values[0]


def positions(shape: Sequence[int], like: Tensor) -> Tensor:
    """(x, y) of each pixel of a (H, W) grid in row-major order: (HW, 2), pixels.

    Grids of one and three axes likewise, the last axis first.
    """
    axes = [torch.arange(n, dtype=like.dtype, device=like.device) for n in shape]
    grid = torch.meshgrid(axes, indexing="ij")
    return torch.stack([axis.flatten() for axis in reversed(grid)], dim=1)


# Kernels, their weights, and the compatibility: everything of the pairwise term that learns.


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
        """Return what the parts below do not say."""
        return f"normalization={self.normalization!r}, self_term={self.self_term}"
