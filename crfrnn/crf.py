"""The fully-connected CRF as a layer: logits in, sharper logits out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from crfrnn.checks import (
    check_between,
    check_choice,
    check_count,
    check_finite,
    check_flag,
    check_guides,
    check_image,
    check_label_floor,
    check_mask,
    check_memory,
    check_no_transform,
    check_positive,
    check_sizes,
    check_theta,
    check_unary,
    is_number,
    warn_of_sure_start,
)
from crfrnn.diagnostics import Record, trace
from crfrnn.filters import FeaturesGradient, Filter, LatticeAccuracyName, Normalization
from crfrnn.frank_wolfe import FrankWolfe
from crfrnn.implicit import ImplicitMeanField
from crfrnn.inference import (
    Inference,
    MeanField,
    Pairwise,
    log_mixture,
    without_unlikely_labels,
)
from crfrnn.kernels import (
    FilterName,
    KernelConfig,
    PairwisePotentials,
    Theta,
    check_further_kernels,
    rounded,
)
from crfrnn.label_matrices import CompatibilityForm, KernelWeights
from crfrnn.ops import IMPLEMENTATIONS, Implementation, pixel_major, rows_scaled, rows_softmax
from crfrnn.presets import preset

# The inference as a part of the layer: which ones it takes, and their steps where these learn.


def check_inference(inference: object, *, untied: bool) -> None:
    """Raise unless inference is a strategy that takes such penalties."""
    if not isinstance(inference, Inference):
        raise TypeError(
            "inference must be an instance such as MeanField() or FrankWolfe(step=0.5), got "
            f"{inference!r}."
        )
    if untied and isinstance(inference, ImplicitMeanField):
        raise ValueError(
            "untied parameters do not go with ImplicitMeanField: a fixed point belongs to one "
            "update. Use MeanField, or untied=False."
        )


def initial_steps(inference: Inference, num_iterations: int) -> nn.Parameter:
    """The logit of each iteration's step, (T,): a step is between 0 and 1."""
    if not isinstance(inference, FrankWolfe) or not is_number(inference.step):
        raise ValueError(
            "learn_step needs inference=FrankWolfe(step=NUMBER), the number it starts at, "
            f"got {inference!r}."
        )
    start = torch.full((max(1, num_iterations),), float(inference.step))
    return nn.Parameter(start.clamp(0.01, 0.99).logit())


def with_steps(inference: Inference, step_logit: Tensor | None) -> Inference:
    """The inference, with its steps where they learn."""
    if step_logit is None:
        return inference
    assert isinstance(inference, FrankWolfe)  # checked by `initial_steps`
    return replace(inference, step=step_logit.sigmoid())


def in_dtype(logits: Tensor, dtype: torch.dtype) -> Tensor:
    """Logits (B, L, *grid) in another dtype, with the same softmax where float16 would overflow."""
    if dtype != torch.float16:
        return logits.to(dtype)
    largest = torch.finfo(dtype).max
    peak = logits.amax(1, keepdim=True)
    fitting = torch.where(peak > largest, logits - peak, logits)
    return fitting.clamp(min=-largest).to(dtype)


ImageRange = Literal["0..255", "any"]


class CrfRnn(nn.Module):
    """A dense CRF unrolled as mean-field iterations (CRF-as-RNN).

    Energy: E(x) = sum_i -unary_i(x_i) + sum_{i<j} mu(x_i, x_j) sum_m w^(m) k^(m)(f_i, f_j)
    with a spatial and a bilateral Gaussian kernel, and any further ones (Krahenbuhl and
    Koltun, NIPS 2011), and the update

        logits_{t+1} = unary - sum_m mu W_m (K_m q_t),   q_t = softmax(logits_t)

    (Zheng et al., ICCV 2015). unary is logits, higher = likelier; mu is a penalty and
    is subtracted. The filters are built once per forward and serve every iteration and
    the backward pass. Grids of one, two and three axes.

    Args:
        num_labels: L.
        theta_alpha: bilateral kernel, position, pixels of the grid the CRF runs on; one for
            all axes, or one for each in the order of the grid (anisotropic voxels).
        theta_beta: bilateral kernel, colour, grey levels of 0..255; one for all channels, or
            one for each.
        theta_gamma: spatial kernel, position, pixels, as theta_alpha.
        bilateral_weight: start value of w for the bilateral kernel.
        spatial_weight: start value of w for the spatial kernel. With all weights at 0 the
            layer returns the unary: the identity start.
        further_kernels: by name, kernels over guides of their own.
        kernel_weights: learnable form of each w: "scalar", "class" (L,) or "matrix" (L, L).
        nonnegative: keep every kernel weight at 0 or above.
        compatibility: "full", "symmetric", "diagonal" and "low_rank" learn mu from a Potts
            start, "potts" keeps 1 - I.
        compatibility_rank: of "low_rank".
        untied: parameters of their own for each of the num_iterations; evaluation reuses
            the last where it takes more.
        normalization: "symmetric" D^-1/2 K D^-1/2, "after" D^-1 K, "before" K D^-1, "none".
        self_term: whether a pixel sends a message to itself, as in every dense CRF in use;
            False needs filters that know the term exactly, so not the lattice.
        learn_theta: learn every theta, through its logarithm.
        num_iterations: T in train mode. The paper uses 5: gradients vanish for more.
        num_iterations_eval: T in eval mode. The paper uses 10.
        inference: how the marginals are found: `MeanField`, `FrankWolfe` or
            `ImplicitMeanField`, with their options (damping, tolerance, memory, ...).
        spatial_filter: "separable" (exact, fast), "exact" (O(N^2)), "lattice" or "window".
        bilateral_filter: "lattice", "exact" (O(N^2)) or "window".
        window_radius, window_dilation: of "window", steps on each side, and pixels in a step.
        lattice_accuracy: "standard", or "fine": three times closer on ten times the vertices.
        features_gradient: what theta and guides receive through a lattice: the derivative of
            the "gaussian", or of the "lattice" itself.
        learn_step: learn the step of `FrankWolfe` in each of the num_iterations.
        image_range: "0..255" refuses an image that cannot be that; "any" takes every guide,
            with theta_beta in its units.
        unary_mixture: m in train mode: the layer returns log((1 - m) q + m softmax(unary)),
            which keeps a gradient alive past a CRF that is sure and wrong. 0 in eval mode.
        unary_scale: start value of a positive factor on the unary.
        label_floor: in eval mode without gradients, leave out of each image the labels whose
            unary probability is below this at every pixel: `inference.without_unlikely_labels`
            has the bound of what that changes. At most 1 / L; 0 leaves none out.
        output_scale: start value of a positive factor on the returned logits: it calibrates
            the likelihood, mean-field marginals being overconfident, and leaves the argmax.
        learn_unary_scale, learn_output_scale: learn them, through their logarithms.
        implementation: "automatic" takes the native library on a CPU and Triton's kernels on a
            GPU, "plain" plain PyTorch, "native" and "gpu" one of the two on any device that has
            it. The result is the same but for rounding.

    Shapes: unary (B, L, *grid), image (B, C, *grid) -> logits (B, L, *grid).
    """

    _has_trained = False  # in this process; the first step is looked at

    def __init__(
        self,
        num_labels: int,
        *,
        theta_alpha: Theta = 80.0,
        theta_beta: Theta = 13.0,
        theta_gamma: Theta = 3.0,
        bilateral_weight: float = 10.0,
        spatial_weight: float = 3.0,
        further_kernels: Mapping[str, KernelConfig] | None = None,
        kernel_weights: KernelWeights = "class",
        nonnegative: bool = False,
        compatibility: CompatibilityForm = "full",
        compatibility_rank: int | None = None,
        untied: bool = False,
        normalization: Normalization = "symmetric",
        self_term: bool = True,
        learn_theta: bool = False,
        num_iterations: int = 5,
        num_iterations_eval: int = 10,
        inference: Inference | None = None,
        spatial_filter: FilterName = "separable",
        bilateral_filter: FilterName = "lattice",
        window_radius: int = 3,
        window_dilation: int = 1,
        lattice_accuracy: LatticeAccuracyName = "standard",
        features_gradient: FeaturesGradient = "gaussian",
        learn_step: bool = False,
        image_range: ImageRange = "0..255",
        unary_mixture: float = 0.0,
        unary_scale: float = 1.0,
        output_scale: float = 1.0,
        learn_unary_scale: bool = False,
        learn_output_scale: bool = False,
        label_floor: float = 0.0,
        implementation: Implementation = "automatic",
    ) -> None:
        super().__init__()
        check_count("num_labels", num_labels, 1)
        check_count("num_iterations", num_iterations, 0)
        check_count("num_iterations_eval", num_iterations_eval, 0)
        check_theta("theta_alpha", theta_alpha, "pixels")
        check_theta("theta_beta", theta_beta, "grey levels of 0..255")
        check_theta("theta_gamma", theta_gamma, "pixels")
        check_finite("bilateral_weight", bilateral_weight)
        check_finite("spatial_weight", spatial_weight)
        check_choice("spatial_filter", spatial_filter, get_args(FilterName))
        check_choice("bilateral_filter", bilateral_filter, ["lattice", "exact", "window"])
        check_choice("image_range", image_range, get_args(ImageRange))
        check_between("unary_mixture", unary_mixture, "[0, 1)")
        check_positive("unary_scale", unary_scale, "a factor")
        check_positive("output_scale", output_scale, "a factor")
        check_choice("implementation", implementation, IMPLEMENTATIONS)
        check_flag("untied", untied)
        check_flag("learn_step", learn_step)
        check_flag("learn_unary_scale", learn_unary_scale)
        check_flag("learn_output_scale", learn_output_scale)
        configs = {
            "spatial": KernelConfig(theta_gamma, None, spatial_weight, spatial_filter),
            "bilateral": KernelConfig(theta_alpha, theta_beta, bilateral_weight, bilateral_filter),
        }
        if further_kernels is not None:
            check_further_kernels(further_kernels, list(configs))
            configs.update(further_kernels)
        self.num_labels = num_labels
        self.num_iterations = num_iterations
        self.num_iterations_eval = num_iterations_eval
        self.inference = MeanField() if inference is None else inference
        check_inference(self.inference, untied=untied)
        check_label_floor(label_floor, num_labels)
        self.label_floor = label_floor
        self.image_range = image_range
        self.implementation = implementation
        self.unary_mixture = unary_mixture

        self.potentials = PairwisePotentials(
            num_labels,
            configs,
            kernel_weights=kernel_weights,
            nonnegative=nonnegative,
            compatibility=compatibility,
            compatibility_rank=compatibility_rank,
            num_sets=max(1, num_iterations) if untied else None,
            normalization=normalization,
            self_term=self_term,
            learn_theta=learn_theta,
            window_radius=window_radius,
            window_dilation=window_dilation,
            lattice_accuracy=lattice_accuracy,
            features_gradient=features_gradient,
            implementation=implementation,
        )
        self.step_logit = initial_steps(self.inference, num_iterations) if learn_step else None
        self.log_unary_scale = self._log_scale("log_unary_scale", unary_scale, learn_unary_scale)
        self.log_output_scale = self._log_scale(
            "log_output_scale", output_scale, learn_output_scale
        )

    def _log_scale(self, name: str, value: float, learn: bool) -> Tensor:
        """A parameter where it learns, else a buffer, which no requires_grad_() makes learn."""
        log_scale = torch.tensor(math.log(value))
        if learn:
            return nn.Parameter(log_scale)
        self.register_buffer(name, log_scale)
        return log_scale

    @classmethod
    def from_preset(cls, name: str, num_labels: int, **options: Any) -> CrfRnn:
        """A layer with published hyper-parameters (`crfrnn.PRESETS`) for L labels.

        Any other argument of `CrfRnn` may follow, and wins over the preset.
        """
        published = {k: v for k, v in vars(preset(name)).items() if k != "source"}
        return cls(num_labels, **{**published, **options})

    @classmethod
    def from_scratch(cls, num_labels: int, **options: Any) -> CrfRnn:
        """A layer for a network that starts from random weights: it changes little at first.

        Its kernel weights begin at 0.1, so the first loss is the network's own, about ln L, and the
        factor on its output learns to say how sure it may be. Behind published weights a fresh
        network looks very sure, and its first losses are several times too high.

        Any other argument of `CrfRnn` may follow, and wins.
        """
        small = {"spatial_weight": 0.1, "bilateral_weight": 0.1, "learn_output_scale": True}
        return cls(num_labels, **{**small, **options})

    def forward(
        self,
        unary: Tensor,
        image: Tensor,
        guides: Mapping[str, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Refine logits with the image's edges.

        Args:
            unary: (B, L, *grid) logits, any floating dtype; computed in at least float32.
            image: (B, C, *grid) in 0..255 (RGB: C = 3), uint8 or floating point.
            guides: of the further kernels, by their names: (B, C, *grid).
            mask: (B, *grid) bool, True for a pixel of an image, False for padding, which
                neither sends nor receives and keeps its unary. None: no padding.

        Returns:
            (B, L, *grid) logits in the dtype of `unary`; softmax gives the marginals.

        Raises:
            ValueError: shapes that differ, values that are not finite, an image that
                cannot be 0..255, a width too small for the lattice.
            TypeError: no tensor, integer logits, an image of another dtype.
        """
        check_no_transform()
        check_unary(unary, self.num_labels, image)
        check_image(image, unary, self.image_range)
        check_guides(guides, self.potentials.guide_names(), unary)
        check_mask(mask, unary)
        check_memory(unary, stored=self.num_iterations if torch.is_grad_enabled() else 0)
        with torch.autocast(unary.device.type, enabled=False):
            precise = torch.promote_types(unary.dtype, torch.float32)
            kernels = self.potentials.build_kernels(image.to(precise), guides, mask)
            logits = in_dtype(self.infer(unary.to(precise), kernels), unary.dtype)
        if self.training and not (self._has_trained or torch.compiler.is_compiling()):
            self._has_trained = True
            warn_of_sure_start(unary, logits)
        return logits

    def marginals(
        self,
        unary: Tensor,
        image: Tensor,
        guides: Mapping[str, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """q, the softmax of `forward` over the labels, faster than torch's: (B, L, *grid)."""
        logits = self(unary, image, guides, mask)
        q: Tensor = rows_softmax(logits.flatten(2).transpose(1, 2), self.implementation)
        return q.transpose(1, 2).reshape(logits.shape)

    def infer(self, unary: Tensor, kernels: list[Filter]) -> Tensor:
        """`forward` with kernels already built: one build may serve many weights.

        Args:
            unary: (B, L, *grid) logits, float32 or float64.
            kernels: of `potentials.build_kernels`, for images of the same grid.
        """
        rows, pairwise, num_iterations = self._problem(unary)
        inference = with_steps(self.inference, self.step_logit)
        evaluates = not (self.training or torch.is_grad_enabled() or torch.compiler.is_compiling())
        if self.label_floor > 0 and evaluates:
            logits = without_unlikely_labels(
                inference, rows, kernels, pairwise, num_iterations, self.label_floor
            )
        else:
            logits = inference(rows, kernels, pairwise, num_iterations)
        if self.training and self.unary_mixture > 0:
            logits = log_mixture(logits, rows, self.unary_mixture)
        logits = rows_scaled(logits, self.log_output_scale)
        return logits.transpose(1, 2).reshape(unary.shape)

    def trace(self, unary: Tensor, kernels: list[Filter]) -> list[Record]:
        """Energies, divergence and change in every iteration of `infer`, without gradient."""
        rows, pairwise, num_iterations = self._problem(unary)
        inference = with_steps(self.inference, self.step_logit)
        return trace(inference, rows, kernels, pairwise, num_iterations)

    def _problem(self, unary: Tensor) -> tuple[Tensor, Pairwise, int]:
        """The unary as rows (B, N, L), the penalties, and the number of iterations."""
        rows = rows_scaled(pixel_major(unary), self.log_unary_scale)
        num_iterations = self.num_iterations if self.training else self.num_iterations_eval
        pairwise = self.potentials.penalties(rows.dtype)
        for penalties in pairwise:
            check_sizes(penalties)
        return rows, pairwise, num_iterations

    def param_groups(
        self,
        base_lr: float,
        *,
        kernel_multiplier: float = 1e4,
        compatibility_multiplier: float = 1e3,
        further_multiplier: float | None = None,
    ) -> list[dict[str, Any]]:
        """Optimiser groups with the learning rates of CRF-as-RNN, in units of a mean loss.

        The paper (Zheng et al., ICCV 2015, section 6) trains with SGD, momentum 0.99, batch 1 and
        a loss SUMMED over pixels, lr 1e-13 for the network; its released solver multiplies that by
        1e4 for the kernel weights and by 1e3 for the compatibility, the defaults here. For a loss
        AVERAGED over about 500 x 500 pixels 1e-13 is 2.5e-8, and so 2.5e-4 for the kernel weights
        and 2.5e-5 for the compatibility. With Adam the multipliers do not carry over: give smaller
        ones.

        Args:
            base_lr: learning rate of the network, for a mean loss.
            kernel_multiplier: of the kernel weights, the widths, the steps and the two scales.
            compatibility_multiplier: of the compatibility.
            further_multiplier: of the weights of further kernels; None leaves them in the group of
                the others.

        Returns:
            Groups {"name", "params", "lr", "weight_decay": 0}; groups with nothing to learn are
            left out.
        """
        compatibility = list(self.potentials.compatibility.parameters())
        further: list[nn.Parameter] = []
        if further_multiplier is not None:
            weights = self.potentials.kernel_weights
            names = [name for name in weights if name not in ("spatial", "bilateral")]
            further = [p for name in names for p in weights[name].parameters()]
        own = {id(p) for p in (*compatibility, *further)}
        others = [p for p in self.parameters() if id(p) not in own]
        groups = [
            ("crf_kernel_weights", others, base_lr * kernel_multiplier),
            ("crf_further_weights", further, base_lr * (further_multiplier or 0.0)),
            ("crf_compatibility", compatibility, base_lr * compatibility_multiplier),
        ]
        return [
            {"name": name, "params": learnt, "lr": lr, "weight_decay": 0.0}
            for name, params, lr in groups
            if (learnt := [p for p in params if p.requires_grad])
        ]

    def extra_repr(self) -> str:
        """Return what the parts below do not say, in the words of `CrfRnn(...)`."""
        values: dict[str, object] = {
            "num_iterations": self.num_iterations,
            "num_iterations_eval": self.num_iterations_eval,
            "inference": self.inference,
            "image_range": self.image_range,
            "unary_mixture": self.unary_mixture,
            "label_floor": self.label_floor,
            "unary_scale": rounded(self.log_unary_scale.exp()),
            "output_scale": rounded(self.log_output_scale.exp()),
            "learn_unary_scale": isinstance(self.log_unary_scale, nn.Parameter),
            "learn_output_scale": isinstance(self.log_output_scale, nn.Parameter),
        }
        shown = (
            f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v!r}" for k, v in values.items()
        )
        return f"{self.num_labels}, {', '.join(shown)}"
