"""Define ablations, and the ones that are shipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime.run_folder import ArmName

Changes = Mapping[str, Any]
"""Values by dotted field of the recipe: {"crf.resolution": 4}."""


@dataclass(frozen=True)
class Ablation:
    """Changes of a recipe, and what they are compared with.

    Attributes:
        name: on the command line.
        question: that it answers, in one sentence.
        variants: changes by label; the base comes first.
        arms: that are run and shown.
        against: arm of the same label that the others are compared with; if not given, every arm
            is compared with itself under the base's label.
    """

    name: str
    question: str
    variants: Mapping[str, Changes]
    arms: tuple[ArmName, ...]
    against: ArmName | None = None

    def __post_init__(self) -> None:
        if not self.variants or not self.arms:
            raise ValueError(f"ablation {self.name!r} needs at least one label and one arm.")
        if self.against is not None and self.against not in self.arms:
            raise ValueError(f"ablation {self.name!r} compares with an arm that it does not run.")

    @property
    def base(self) -> str:
        """The first label."""
        return next(iter(self.variants))

    @property
    def common(self) -> Changes:
        """The changes that all labels make alike."""
        first, *others = self.variants.values()
        return {
            path: value
            for path, value in first.items()
            if all(path in other and other[path] == value for other in others)
        }


def iterations(train: int, test: int) -> Changes:
    """Set T in train mode and in eval mode."""
    return {"crf.num_iterations": train, "crf.num_iterations_eval": test}


HELD: Changes = {"fit.crf_lr": 0.0, "fit.compatibility_lr": 0.0}
"""The network learns through a CRF that stays as the search found it."""

TWO_KERNELS: Changes = {
    "crf.theta_context": None,
    "crf_first": None,
    "crf_last": None,
    "crf_fit.crf_lr": 1e-2,
    "crf_fit.compatibility_lr": 1e-3,
}
"""The CRF of the papers."""

WITH_NETWORK: Changes = {"fit.crf_lr": 1e-2, "fit.compatibility_lr": 1e-3}
"""The CRF learns while the network does, also where the recipe holds it."""

LEARNT: Changes = {**TWO_KERNELS, **WITH_NETWORK}
"""That CRF, and its weights and compatibility learn with the network, as in CRF-as-RNN."""

SHIPPED = (
    Ablation(
        "iterations",
        "How many mean-field iterations in training, and how many at test (CRF-as-RNN, 7.1)?",
        {
            f"train {train}, test {test}": {**LEARNT, **iterations(train, test)}
            for train, test in (
                # The paper's choice first: the base.
                *((5, 10), (5, 5), (5, 1)),
                *((1, 1), (1, 5), (1, 10)),
                *((3, 5), (3, 10)),
                *((10, 5), (10, 10)),
            )
        },
        arms=("joint",),
    ),
    Ablation(
        "kernel-weights",
        "Does a weight for each class, or each pair of classes, help?",
        {form: {**LEARNT, "crf.kernel_weights": form} for form in ("class", "scalar", "matrix")},
        arms=("crf-only", "joint"),
    ),
    Ablation(
        "context",
        "What does a wide kernel add that learns which labels exclude each other?",
        {
            "context 150 px": {"crf.theta_context": 150.0},
            "context 60 px": {"crf.theta_context": 60.0},
            "two kernels, held": {**TWO_KERNELS, **HELD},
            "two kernels, learnt": LEARNT,
        },
        arms=("post-hoc", "crf-only", "joint"),
    ),
    Ablation(
        "compatibility",
        "Does a learnt compatibility help, and which form of it?",
        {
            form: {**LEARNT, "crf.compatibility": form}
            for form in ("full", "potts", "diagonal", "symmetric")
        },
        arms=("crf-only", "joint"),
    ),
    Ablation(
        "learnable-theta",
        "Does it help to learn the widths after the search?",
        {
            name: {**LEARNT, "crf.learn_theta": learn}
            for name, learn in (("searched", False), ("learnt", True))
        },
        arms=("crf-only", "joint"),
    ),
    Ablation(
        "crf-resolution",
        "What does a CRF on a coarser grid lose?",
        {f"1/{stride}": {"crf.resolution": stride} for stride in (1, 2, 4, 8)},
        arms=("post-hoc", "joint"),
    ),
    Ablation(
        "filter",
        "What does an approximate bilateral filter cost, on a grid where the exact one fits?",
        {
            name: {"crf.resolution": 4, **changes}
            for name, changes in (
                ("lattice", {}),
                ("fine lattice", {"crf.lattice_accuracy": "fine"}),
                ("window", {"crf.bilateral_filter": "window"}),
                ("exact", {"crf.bilateral_filter": "exact"}),
            )
        },
        arms=("post-hoc", "joint"),
    ),
    Ablation(
        "frozen-network",
        "What does the network gain from the CRF's gradient?",
        {"recipe": {}},
        arms=("crf-only", "joint"),
        against="crf-only",
    ),
    Ablation(
        "untied-iterations",
        "Do parameters of their own for each iteration help?",
        {
            name: {**LEARNT, "crf.untied": untied}
            for name, untied in (("tied", False), ("untied", True))
        },
        arms=("crf-only", "joint"),
    ),
    Ablation(
        "solver",
        "Mean field, or Frank-Wolfe (Le-Huu and Alahari, NeurIPS 2021)?",
        {
            "mean field": {"crf.inference": "mean_field"},
            "mean field, damping 0.5": {"crf.inference": "mean_field", "crf.damping": 0.5},
            "Frank-Wolfe, entropy, step 0.5": {"crf.inference": "frank_wolfe", "crf.step": 0.5},
            # Sparsemax has no gradient where it is 0 or 1: the paper trains with this mixture.
            "Frank-Wolfe, l2, step 0.5": {
                "crf.inference": "frank_wolfe",
                "crf.regularizer": "l2",
                "crf.step": 0.5,
                "crf.unary_mixture": 0.5,
            },
        },
        arms=("post-hoc", "joint"),
    ),
    Ablation(
        "unary-loss",
        "How much should the loss on the logits before the CRF weigh?",
        {f"weight {weight:g}": {"fit.loss.unary": weight} for weight in (1.0, 0.0, 0.25, 4.0)},
        arms=("joint",),
    ),
    Ablation(
        "method",
        "What of the joint training beats a post-hoc CRF? One change of the recipe at a time.",
        {
            "recipe": {},
            "unary loss 2": {"fit.loss.unary": 2.0},
            "unary loss 0.25": {"fit.loss.unary": 0.25},
            "CRF held": HELD,
            "CRF held, unary loss 0.5": {**HELD, "fit.loss.unary": 0.5},
            "CRF held, unary loss 0": {**HELD, "fit.loss.unary": 0.0},
            "CRF held, T = 10 in training": {**HELD, "crf.num_iterations": 10},
            "CRF held, Lovász-softmax": {**HELD, "fit.loss.lovasz": 1.0},
            "CRF rate 1e-3": {"fit.crf_lr": 1e-3, "fit.compatibility_lr": 1e-4},
            "CRF rate 3e-2": {"fit.crf_lr": 3e-2, "fit.compatibility_lr": 3e-3},
            "scalar weights, Potts": {"crf.kernel_weights": "scalar", "crf.compatibility": "potts"},
            "T = 10 in training": {"crf.num_iterations": 10},
            "no output scale": {"crf.learn_output_scale": False},
            "CRF learns, unary scale": {**WITH_NETWORK, "crf.learn_unary_scale": True},
            "CRF learns, widths": {**WITH_NETWORK, "crf.learn_theta": True},
            "Lovász-softmax": {"fit.loss.lovasz": 1.0},
            "boundary weight 5": {"fit.loss.boundary_weight": 5.0, "fit.loss.boundary_radius": 5},
            "fine lattice": {"crf.lattice_accuracy": "fine"},
            "Frank-Wolfe, step 0.5": {"crf.inference": "frank_wolfe", "crf.step": 0.5},
            "rate 9e-5": {"fit.lr": 9e-5},
            "searched again": {"search_again": True},
            "CRF held, searched again": {**HELD, "search_again": True},
        },
        arms=("joint",),
    ),
    Ablation(
        "post-hoc-method",
        "What of the same changes does the network alone gain, with a post-hoc CRF behind it?",
        {
            "recipe": {},
            "Lovász-softmax": {"fit.loss.lovasz": 1.0},
            "boundary weight 5": {"fit.loss.boundary_weight": 5.0, "fit.loss.boundary_radius": 5},
            "rate 9e-5": {"fit.lr": 9e-5},
        },
        arms=("unary", "post-hoc"),
    ),
    Ablation(
        "baseline-strength",
        "Does the CRF help weak networks more?",
        {f"start {steps} steps": {"start.steps": steps} for steps in (450, 50, 150, 1350)},
        arms=("unary", "post-hoc", "joint"),
        against="unary",
    ),
)

ABLATIONS: dict[str, Ablation] = {ablation.name: ablation for ablation in SHIPPED}
