"""The fully-connected CRF as a layer: logits in, sharper logits out."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from crfrnn.checks import (
    check_choice,
    check_count,
    check_finite,
    check_image,
    check_positive,
    check_unary,
)
from crfrnn.compatibility import (
    Compatibility,
    KernelWeights,
    initial_kernel_weight,
    penalty_matrix,
    potts,
    weight_matrix,
)
from crfrnn.filtering import NORMALIZATIONS, Filter, Normalization, Normalized
from crfrnn.inference import mean_field
from crfrnn.kernels import (
    BilateralFilterName,
    SpatialFilterName,
    bilateral_kernel,
    spatial_kernel,
)
from crfrnn.presets import preset


class CrfRnn(nn.Module):
    """A dense CRF unrolled as mean-field iterations (CRF-as-RNN).

    Energy: E(x) = sum_i -unary_i(x_i) + sum_{i<j} mu(x_i, x_j) sum_m w^(m) k^(m)(f_i, f_j)
    with a spatial and a bilateral Gaussian kernel (Krahenbuhl and Koltun, NIPS 2011),
    and the update

        logits_{t+1} = unary - sum_m mu W_m (K_m q_t),   q_t = softmax(logits_t)

    (Zheng et al., ICCV 2015). unary is logits, higher = likelier; mu is a penalty and
    is subtracted. The kernels include the self term. The filters are built once per
    forward and serve every iteration and the backward pass.

    Args:
        num_labels: L.
        theta_alpha: bilateral kernel, position, pixels of the grid the CRF runs on.
        theta_beta: bilateral kernel, colour, grey levels of 0..255.
        theta_gamma: spatial kernel, position, pixels of the grid the CRF runs on.
        bilateral_weight: start value of w for the bilateral kernel.
        spatial_weight: start value of w for the spatial kernel. With both at 0 the layer
            returns the unary: the identity start.
        kernel_weights: learnable form of each w: "scalar", "class" (L,) or "matrix" (L, L).
        compatibility: "full" learns mu from a Potts start, "potts" keeps 1 - I.
        normalization: "symmetric" D^-1/2 K D^-1/2, "after" D^-1 K, "before" K D^-1, "none".
        num_iterations: T in train mode. The paper uses 5: gradients vanish for more.
        num_iterations_eval: T in eval mode. The paper uses 10.
        spatial_filter: "separable" (exact, fast), "exact" (O(N^2)) or "lattice".
        bilateral_filter: "lattice" or "exact" (O(N^2)).
        unary_scale: start value of a positive factor on the unary.
        output_scale: start value of a positive factor on the returned logits. It leaves the
            argmax alone and lets the likelihood be calibrated without weakening the CRF:
            mean-field marginals are overconfident.
        learn_unary_scale: learn the first factor, through its logarithm.
        learn_output_scale: learn the second factor, through its logarithm.

    Shapes: unary (B, L, H, W), image (B, 3, H, W) -> logits (B, L, H, W).
    """

    def __init__(
        self,
        num_labels: int,
        *,
        theta_alpha: float = 80.0,
        theta_beta: float = 13.0,
        theta_gamma: float = 3.0,
        bilateral_weight: float = 10.0,
        spatial_weight: float = 3.0,
        kernel_weights: KernelWeights = "class",
        compatibility: Compatibility = "full",
        normalization: Normalization = "symmetric",
        num_iterations: int = 5,
        num_iterations_eval: int = 10,
        spatial_filter: SpatialFilterName = "separable",
        bilateral_filter: BilateralFilterName = "lattice",
        unary_scale: float = 1.0,
        output_scale: float = 1.0,
        learn_unary_scale: bool = False,
        learn_output_scale: bool = False,
    ) -> None:
        super().__init__()
        check_count("num_labels", num_labels, 1)
        check_count("num_iterations", num_iterations, 0)
        check_count("num_iterations_eval", num_iterations_eval, 0)
        check_positive("theta_alpha", theta_alpha, "pixels")
        check_positive("theta_beta", theta_beta, "grey levels of 0..255")
        check_positive("theta_gamma", theta_gamma, "pixels")
        check_finite("bilateral_weight", bilateral_weight)
        check_finite("spatial_weight", spatial_weight)
        check_positive("unary_scale", unary_scale, "a factor")
        check_positive("output_scale", output_scale, "a factor")
        check_choice("kernel_weights", kernel_weights, ["scalar", "class", "matrix"])
        check_choice("compatibility", compatibility, ["potts", "full"])
        check_choice("normalization", normalization, NORMALIZATIONS)
        check_choice("spatial_filter", spatial_filter, ["separable", "exact", "lattice"])
        check_choice("bilateral_filter", bilateral_filter, ["lattice", "exact"])
        self.num_labels = num_labels
        self.normalization = normalization
        self.num_iterations = num_iterations
        self.num_iterations_eval = num_iterations_eval
        self.spatial_filter = spatial_filter
        self.bilateral_filter = bilateral_filter
        self.kernel_weights = kernel_weights

        # Buffers, not plain numbers, so that a loaded state brings its own widths.
        self.theta_alpha: Tensor
        self.theta_beta: Tensor
        self.theta_gamma: Tensor
        self.register_buffer("theta_alpha", torch.tensor(float(theta_alpha)))
        self.register_buffer("theta_beta", torch.tensor(float(theta_beta)))
        self.register_buffer("theta_gamma", torch.tensor(float(theta_gamma)))

        def weight(value: float) -> nn.Parameter:
            return nn.Parameter(initial_kernel_weight(kernel_weights, value, num_labels))

        self.spatial_weight = weight(spatial_weight)
        self.bilateral_weight = weight(bilateral_weight)
        self.compatibility: Tensor
        if compatibility == "full":
            self.compatibility = nn.Parameter(potts(num_labels))
        else:  # a buffer: no requires_grad_() makes a fixed Potts model learn
            self.register_buffer("compatibility", potts(num_labels))
        self.log_unary_scale = nn.Parameter(torch.tensor(math.log(unary_scale)))
        self.log_unary_scale.requires_grad_(learn_unary_scale)
        self.log_output_scale = nn.Parameter(torch.tensor(math.log(output_scale)))
        self.log_output_scale.requires_grad_(learn_output_scale)

    @classmethod
    def from_preset(cls, name: str, num_labels: int, **options: Any) -> CrfRnn:
        """A layer with published hyper-parameters (`crfrnn.PRESETS`).

        Args:
            name: of the preset.
            num_labels: L.
            options: any other argument of `CrfRnn`; they win over the preset.
        """
        published = {k: v for k, v in vars(preset(name)).items() if k != "source"}
        return cls(num_labels, **{**published, **options})

    def forward(self, unary: Tensor, image: Tensor) -> Tensor:
        """Refine logits with the image's edges.

        Args:
            unary: (B, L, H, W) logits, any floating dtype; computed in at least float32.
            image: (B, 3, H, W) RGB in 0..255, uint8 or floating point.

        Returns:
            (B, L, H, W) logits in the dtype of `unary`; softmax gives the marginals.

        Raises:
            ValueError: shapes that differ, values that are not finite, an image that
                cannot be 0..255, a width too small for the lattice.
            TypeError: no tensor, integer logits, an image of another dtype.
            NotImplementedError: `image` requires a gradient.
        """
        check_unary(unary, self.num_labels)
        check_image(image, unary)
        with torch.autocast(unary.device.type, enabled=False):
            precise = torch.promote_types(unary.dtype, torch.float32)
            kernels = self.build_kernels(image.to(precise))
            return self.infer(unary.to(precise), kernels).to(unary.dtype)

    def infer(self, unary: Tensor, kernels: list[Filter]) -> Tensor:
        """`forward` with kernels already built: one build may serve many weights.

        Args:
            unary: (B, L, H, W) logits, float32 or float64.
            kernels: of `build_kernels`, for images of the same grid.
        """
        num_iterations = self.num_iterations if self.training else self.num_iterations_eval
        pairwise = [penalty.to(unary.dtype) for penalty in self.pairwise()]
        rows = unary.flatten(2).transpose(1, 2).contiguous() * self.log_unary_scale.exp()
        logits = mean_field(rows, kernels, pairwise, num_iterations)
        logits = logits * self.log_output_scale.exp()
        return logits.transpose(1, 2).reshape(unary.shape)

    def build_kernels(self, image: Tensor) -> list[Filter]:
        """The normalised filters of a batch of images: [spatial, bilateral].

        They depend on the image and theta alone.

        Args:
            image: (B, 3, H, W) floating point RGB in 0..255.
        """
        batch, _, height, width = image.shape
        spatial = spatial_kernel(
            batch, (height, width), float(self.theta_gamma), self.spatial_filter, image
        )
        bilateral = bilateral_kernel(
            image, float(self.theta_alpha), float(self.theta_beta), self.bilateral_filter
        )
        ones = image.new_ones(batch, height * width, 1)
        return [Normalized(kernel, self.normalization, ones) for kernel in (spatial, bilateral)]

    def pairwise(self) -> list[Tensor]:
        """mu W_m of the spatial and the bilateral kernel: two (L, L) penalties."""
        return [
            penalty_matrix(self.compatibility, weight)
            for weight in (self.spatial_weight, self.bilateral_weight)
        ]

    def kernel_weight_matrices(self) -> dict[str, Tensor]:
        """W_m as (L, L), whatever its learnable form, by the kernel's name."""
        return {
            "spatial": weight_matrix(self.spatial_weight.detach(), self.num_labels),
            "bilateral": weight_matrix(self.bilateral_weight.detach(), self.num_labels),
        }

    def param_groups(
        self,
        base_lr: float,
        *,
        kernel_multiplier: float = 1e4,
        compatibility_multiplier: float = 1e3,
    ) -> list[dict[str, Any]]:
        """Optimiser groups with the learning rates of the CRF-as-RNN recipe.

        The paper trains with SGD, momentum 0.99, batch 1 and a loss SUMMED over pixels,
        lr 1e-13 for the network; the multipliers are those of its released solver. For a
        loss AVERAGED over about 500 x 500 pixels that lr is 2.5e-8, and so 2.5e-4 for the
        kernel weights and 2.5e-5 for the compatibility. With Adam the multipliers do not
        carry over: give smaller ones.

        Args:
            base_lr: learning rate of the network, for a mean loss.
            kernel_multiplier: of the kernel weights and of the two scales.
            compatibility_multiplier: of the compatibility.

        Returns:
            Groups {"name", "params", "lr", "weight_decay": 0}; groups with nothing to
            learn are left out.
        """
        weights: list[Tensor] = [
            self.spatial_weight,
            self.bilateral_weight,
            self.log_unary_scale,
            self.log_output_scale,
        ]
        groups: list[tuple[str, list[Tensor], float]] = [
            ("crf_kernel_weights", weights, base_lr * kernel_multiplier),
            ("crf_compatibility", [self.compatibility], base_lr * compatibility_multiplier),
        ]
        return [
            {"name": name, "params": learnt, "lr": lr, "weight_decay": 0.0}
            for name, params, lr in groups
            if (learnt := [p for p in params if p.requires_grad])
        ]

    def extra_repr(self) -> str:
        """The configuration in the words of `CrfRnn(...)`; of weights, their present mean."""
        weights = self.kernel_weight_matrices()
        learnt = isinstance(self.compatibility, nn.Parameter)
        values: dict[str, object] = {
            "theta_alpha": float(self.theta_alpha),
            "theta_beta": float(self.theta_beta),
            "theta_gamma": float(self.theta_gamma),
            "bilateral_weight": weights["bilateral"].diagonal().mean().item(),
            "spatial_weight": weights["spatial"].diagonal().mean().item(),
            "kernel_weights": self.kernel_weights,
            "compatibility": "full" if learnt else "potts",
            "normalization": self.normalization,
            "num_iterations": self.num_iterations,
            "num_iterations_eval": self.num_iterations_eval,
            "spatial_filter": self.spatial_filter,
            "bilateral_filter": self.bilateral_filter,
            "unary_scale": self.log_unary_scale.exp().item(),
            "output_scale": self.log_output_scale.exp().item(),
            "learn_unary_scale": self.log_unary_scale.requires_grad,
            "learn_output_scale": self.log_output_scale.requires_grad,
        }
        shown = (
            f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v!r}" for k, v in values.items()
        )
        return f"{self.num_labels}, {', '.join(shown)}"
