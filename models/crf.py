"""Configure the CRF behind a network, and build it for the grid it runs on."""

from __future__ import annotations

from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

from crfrnn import CrfRnn
from crfrnn.filters import LatticeAccuracyName, Normalization
from crfrnn.frank_wolfe import FrankWolfe, Regularizer
from crfrnn.inference import Inference, MeanField, Storage
from crfrnn.kernels import FilterName, KernelConfig
from crfrnn.label_matrices import KernelWeights

# The forms of `crfrnn.CrfRnn` that need no further number, as "low_rank" does.
Compatibility = Literal["potts", "diagonal", "symmetric", "full"]
# Of the filters, those that take a guide.
BilateralFilter = Literal["lattice", "exact", "window"]

Solver = Literal["mean_field", "frank_wolfe"]
SOLVERS: dict[Solver, type[MeanField | FrankWolfe]] = {
    "mean_field": MeanField,
    "frank_wolfe": FrankWolfe,
}
Taker = Literal["layer", "solver", "grid"] | Solver

T = TypeVar("T")


def option(
    default: T,
    *,
    taken_by: Taker = "layer",
    post_hoc: Any = MISSING,
    searched: bool = False,
    gained: bool = False,
) -> T:
    """Declare an option of the CRF. One such line is all that a new option needs.

    Args:
        default: its value in a recipe that does not name it.
        taken_by: "layer" passes it to `crfrnn.CrfRnn` under its own name, the name of a solver to
            that solver; `build_crf` turns the rest into the solver itself and the grid.
        post_hoc: value that the post-hoc search holds it at, where it acts in training alone.
        searched: the post-hoc search chooses it.
        gained: recipes of earlier versions lack it: at its default it changes no digest.
    """
    roles: dict[str, Any] = {"taken_by": taken_by, "searched": searched, "gained": gained}
    if post_hoc is not MISSING:
        roles["post_hoc"] = post_hoc
    declared: Any = field(default=default, metadata=roles)
    return declared  # type: ignore[no-any-return]


@dataclass(frozen=True)
class CrfForm:
    """Options of the CRF that a person chooses; `CrfConfig` adds those that can be searched.

    Attributes:
        inference: solver of the marginals.
        damping, storage: of mean field; the latter is the dtype of q and of the messages.
        regularizer, temperature, step: of Frank-Wolfe; at their defaults it is mean field.
        resolution: 1, 2, 4 or 8: the CRF runs on a grid that many times coarser.
        theta_context: width of a third kernel, "context", of positions alone, in pixels of the
            full-resolution image; None leaves it out. Its weight is an (L, L) matrix that starts
            at 0: it is not searched, it learns which labels of an image exclude each other.
    """

    kernel_weights: KernelWeights = option("class", post_hoc="scalar")
    compatibility: Compatibility = option("full", post_hoc="potts")
    normalization: Normalization = option("after")
    num_iterations: int = option(5, post_hoc=5)
    num_iterations_eval: int = option(10)
    spatial_filter: FilterName = option("separable")
    bilateral_filter: BilateralFilter = option("lattice")
    lattice_accuracy: LatticeAccuracyName = option("standard")
    learn_unary_scale: bool = option(False, post_hoc=False)
    learn_output_scale: bool = option(False, post_hoc=False)
    learn_theta: bool = option(False, post_hoc=False)
    untied: bool = option(False, post_hoc=False)
    nonnegative: bool = option(False, post_hoc=False)
    unary_mixture: float = option(0.0, post_hoc=0.0)
    inference: Solver = option("mean_field", taken_by="solver")
    damping: float = option(0.0, taken_by="mean_field")
    storage: Storage = option("float32", taken_by="mean_field", gained=True)
    regularizer: Regularizer = option("entropy", taken_by="frank_wolfe")
    temperature: float = option(1.0, taken_by="frank_wolfe")
    step: float | Literal["decaying", "line_search"] = option(1.0, taken_by="frank_wolfe")
    resolution: int = option(1, taken_by="grid")
    theta_context: float | None = option(None, taken_by="grid", post_hoc=None)

    def __post_init__(self) -> None:
        if self.resolution not in (1, 2, 4, 8):
            raise ValueError(f"crf.resolution must be 1, 2, 4 or 8, got {self.resolution}.")
        if self.theta_context is not None and not self.theta_context > 0:
            raise ValueError(
                f"crf.theta_context must be above 0 pixels, or None, got {self.theta_context}."
            )
        for name in unused_options(self.inference):
            default = getattr(CrfForm, name)
            if getattr(self, name) != default:
                raise ValueError(
                    f"crf.{name} does nothing with crf.inference {self.inference!r}: leave it at "
                    f"{default!r}, or choose the other inference."
                )
        build_inference(self)  # raises where an option is out of its range


@dataclass(frozen=True)
class CrfConfig(CrfForm):
    """Options of `crfrnn.CrfRnn`, and the resolution it runs at.

    theta_alpha, theta_gamma and theta_context are in pixels of the full-resolution image whatever
    the resolution; `build_crf` is the one place that rescales them.
    """

    theta_alpha: float = option(67.0, searched=True)
    theta_beta: float = option(3.0, searched=True)
    theta_gamma: float = option(1.0, searched=True)
    bilateral_weight: float = option(4.0, searched=True)
    spatial_weight: float = option(3.0, searched=True)
    unary_scale: float = option(1.0)
    output_scale: float = option(1.0)


def crf_options() -> list[Field[Any]]:
    """List every option of the CRF, each with its `option` as metadata."""
    return [f for f in fields(CrfConfig) if f.metadata]


def options_taken_by(taker: Taker) -> tuple[str, ...]:
    """Name the options that the layer, a solver or the grid takes."""
    return tuple(f.name for f in crf_options() if f.metadata["taken_by"] == taker)


def unused_options(inference: Solver) -> tuple[str, ...]:
    """Name the options of the other solvers."""
    return tuple(n for s in SOLVERS if s != inference for n in options_taken_by(s))


SEARCHED = tuple(f.name for f in fields(CrfConfig) if f.metadata["searched"])


def post_hoc_config(form: CrfForm) -> CrfConfig:
    """Reduce a form to what a post-hoc search builds: scalar weights, Potts, nothing to train.

    Two forms with one reduction have one search.
    """
    held = {f.name: f.metadata["post_hoc"] for f in crf_options() if "post_hoc" in f.metadata}
    return CrfConfig(**{**asdict(form), **held})


def in_form(config: CrfConfig, form: CrfForm) -> CrfConfig:
    """Give searched widths and weights another form, as a training starts from them."""
    return replace(config, **{f.name: getattr(form, f.name) for f in fields(CrfForm)})


def build_inference(form: CrfForm) -> Inference:
    """Build the solver of a form with its options."""
    options = {name: getattr(form, name) for name in options_taken_by(form.inference)}
    return SOLVERS[form.inference](**options)


def build_crf(config: CrfConfig, num_classes: int) -> CrfRnn:
    """Build the CRF of a config, its positions rescaled to the grid it runs on.

    It takes any image: what comes from files is known to be 0..255, and a dark frame must not end a
    run. `Segmenter.forward` looks at what a user passes.
    """
    arguments = {name: getattr(config, name) for name in options_taken_by("layer")}
    arguments["image_range"] = "any"
    arguments["theta_alpha"] /= config.resolution
    arguments["theta_gamma"] /= config.resolution
    if config.theta_context is not None:
        # On a lattice: a kernel this wide has few vertices, on which the matrix is applied, where
        # the exact filter would take hundreds of taps and the matrix at every pixel.
        arguments["further_kernels"] = {
            "context": KernelConfig(
                config.theta_context / config.resolution,
                weight=0.0,
                filter="lattice",
                kernel_weights="matrix",
            )
        }
    return CrfRnn(num_classes, inference=build_inference(config), **arguments)
