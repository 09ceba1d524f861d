"""The CRF behind a network: what is chosen, what is found, and the grid it runs on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from crfrnn import CrfRnn
from crfrnn.filtering import LatticeAccuracyName, Normalization
from crfrnn.filtering.fused import Storage
from crfrnn.frank_wolfe import FrankWolfe, Regularizer
from crfrnn.inference import Inference, MeanField
from crfrnn.kernels import FilterName, KernelConfig
from crfrnn.label_matrices import KernelWeights

# The forms of `crfrnn.CrfRnn` that need no further number, as "low_rank" does.
Compatibility = Literal["potts", "diagonal", "symmetric", "full"]
# Of the filters, those that take a guide.
BilateralFilter = Literal["lattice", "exact", "window"]

OF_MEAN_FIELD = ("damping", "storage")
OF_FRANK_WOLFE = ("regularizer", "temperature", "step")


@dataclass(frozen=True)
class CrfForm:
    """What a person chooses of a CRF; the other arguments of `crfrnn.CrfRnn` can be searched.

    Attributes:
        inference: how the marginals are found.
        damping, storage: of mean field; the latter is the dtype of q and of the messages.
        regularizer, temperature, step: of Frank-Wolfe; as they are here it is mean field.
        resolution: 1, 2, 4 or 8: the CRF runs on a grid that many times coarser.
        theta_context: width of a third kernel, "context", of positions alone, in pixels of the
            full-resolution image; None leaves it out. Its weight is an (L, L) matrix that starts
            at 0: it is not searched, it learns which labels of a picture exclude each other.
    """

    kernel_weights: KernelWeights = "class"
    compatibility: Compatibility = "full"
    normalization: Normalization = "after"
    num_iterations: int = 5
    num_iterations_eval: int = 10
    spatial_filter: FilterName = "separable"
    bilateral_filter: BilateralFilter = "lattice"
    lattice_accuracy: LatticeAccuracyName = "standard"
    learn_unary_scale: bool = False
    learn_output_scale: bool = False
    learn_theta: bool = False
    untied: bool = False
    nonnegative: bool = False
    unary_mixture: float = 0.0
    inference: Literal["mean_field", "frank_wolfe"] = "mean_field"
    damping: float = 0.0
    storage: Storage = "float32"
    regularizer: Regularizer = "entropy"
    temperature: float = 1.0
    step: float | Literal["decaying", "line_search"] = 1.0
    resolution: int = 1
    theta_context: float | None = None

    def __post_init__(self) -> None:
        if self.resolution not in (1, 2, 4, 8):
            raise ValueError(f"crf.resolution must be 1, 2, 4 or 8, got {self.resolution}.")
        if self.theta_context is not None and not self.theta_context > 0:
            raise ValueError(
                f"crf.theta_context must be above 0 pixels, or None, got {self.theta_context}."
            )
        others = OF_FRANK_WOLFE if self.inference == "mean_field" else OF_MEAN_FIELD
        defaults = {f.name: f.default for f in fields(CrfForm)}
        changed = [name for name in others if getattr(self, name) != defaults[name]]
        if changed:
            raise ValueError(
                f"crf.{changed[0]} does nothing with crf.inference {self.inference!r}: leave it at "
                f"{defaults[changed[0]]!r}, or choose the other inference."
            )
        build_inference(self)  # raises where an option is out of its range


@dataclass(frozen=True)
class CrfConfig(CrfForm):
    """Every argument of `crfrnn.CrfRnn`, and the resolution it runs at.

    theta_alpha, theta_gamma and theta_context are in pixels of the full-resolution image whatever
    the resolution; `build_crf` is the one place that rescales them.
    """

    theta_alpha: float = 67.0
    theta_beta: float = 3.0
    theta_gamma: float = 1.0
    bilateral_weight: float = 4.0
    spatial_weight: float = 3.0
    unary_scale: float = 1.0
    output_scale: float = 1.0


def build_inference(form: CrfForm) -> Inference:
    """The inference of a form, with its options."""
    if form.inference == "frank_wolfe":
        return FrankWolfe(form.regularizer, form.temperature, form.step)
    return MeanField(form.damping, storage=form.storage)


def build_crf(config: CrfConfig, num_classes: int) -> CrfRnn:
    """The CRF of a config, its positions rescaled to the grid it runs on."""
    arguments = {f.name: getattr(config, f.name) for f in fields(config)}
    stride = arguments.pop("resolution")
    for name in ("inference", *OF_MEAN_FIELD, *OF_FRANK_WOLFE):
        del arguments[name]
    arguments["theta_alpha"] /= stride
    arguments["theta_gamma"] /= stride
    theta_context = arguments.pop("theta_context")
    if theta_context is not None:
        arguments["further_kernels"] = {"context": context_kernel(theta_context / stride)}
    return CrfRnn(num_classes, inference=build_inference(config), **arguments)


def context_kernel(theta: float) -> KernelConfig:
    """A wide spatial kernel that is silent until its matrix has learnt something.

    On a lattice: this wide it has few vertices, on which the matrix is applied, where the exact
    filter would take hundreds of taps and the matrix at every pixel.
    """
    return KernelConfig(theta, weight=0.0, filter="lattice", kernel_weights="matrix")
