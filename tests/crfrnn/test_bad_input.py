"""What the public entries refuse: every checker once, and that every argument meets one.

`densecrf`, `refine` and the importer have tables of their own in their test files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crfrnn import CrfRnn, densecrf, refine
from crfrnn.checks import (
    check_between,
    check_choice,
    check_count,
    check_finite,
    check_flag,
    check_positive,
    check_theta,
    free_memory,
)
from crfrnn.diagnostics import discrete_energy, relaxed_energy, trace
from crfrnn.filters import LatticeFilter, SeparableFilter
from crfrnn.frank_wolfe import FrankWolfe, frank_wolfe
from crfrnn.implicit import ImplicitMeanField, implicit_mean_field
from crfrnn.inference import MeanField, mean_field
from crfrnn.kernels import KernelConfig
from crfrnn.label_matrices import build_compatibility, build_kernel_weight
from crfrnn.losses import DenseCrfLoss
from tests.crfrnn.problems import random_inputs, random_problem

NAN = float("nan")
UNARY, IMAGE = random_inputs()
MASK = torch.ones(2, 7, 6, dtype=torch.bool)
GUIDE = IMAGE[:, :2] / 50
PROBLEM = random_problem()
ROWS, KERNELS, PENALTIES = PROBLEM.unary, PROBLEM.kernels, PROBLEM.penalties

Call = Callable[..., object]

# the checkers of single values

CHECKERS: list[tuple[Call, list[object], list[object]]] = [
    (partial(check_choice, choices=["a", "b"]), ["b"], ["c"]),
    (check_flag, [True, False], [1]),
    (check_finite, [0, -2.5, np.int64(3)], [True, 1e39, [1, 2], torch.ones(3)]),
    (partial(check_positive, unit="cm"), [1e-30, 3, np.float32(2)], [True, 0.0, -1.0, 1e-40, 1e39]),
    (partial(check_count, minimum=1), [1, np.int64(7)], [True, 0, 2.0]),
    (partial(check_theta, unit="cm"), [3.0, [1.0, 2.0], (4,)], [True, 0.0]),
    (partial(check_between, interval="[0, 1)"), [0, 0.5], [True, -0.1, 1]),
    (partial(check_between, interval="(0, 1]"), [0.5, 1], [True, 0, 1.5]),
]


@pytest.mark.parametrize(("check", "good", "bad"), CHECKERS)
def test_a_checker_passes_the_good_and_names_the_bad(check, good, bad) -> None:
    for value in good:
        check("x", value)
    for value in [*bad, "80", None, NAN]:
        with pytest.raises((ValueError, TypeError), match=f"^x must be .*{re.escape(repr(value))}"):
            check("x", value)


# every argument meets a checker

ARGUMENTS: dict[Call, dict[str, Any]] = {
    partial(CrfRnn, num_labels=3): {
        "num_labels": 0, "theta_alpha": 0.0, "theta_beta": -1.0, "theta_gamma": NAN,
        "bilateral_weight": NAN, "spatial_weight": "3", "further_kernels": [KernelConfig(1.0)],
        "kernel_weights": "vector", "nonnegative": 1, "compatibility": "pots", "untied": "no",
        "normalization": "symetric", "self_term": "no", "learn_theta": "no",
        "num_iterations": -1, "num_iterations_eval": 2.0, "inference": MeanField,
        "spatial_filter": "sep", "bilateral_filter": "separable", "window_radius": -1,
        "window_dilation": 0, "lattice_accuracy": "finest", "features_gradient": "gauss",
        "learn_step": "no", "image_range": "0..1", "unary_mixture": 1.0, "unary_scale": -1.0,
        "output_scale": 0.0, "learn_unary_scale": "no", "learn_output_scale": "no",
        "label_floor": 0.9, "implementation": "fast",
    },
    MeanField: {"damping": 1.0, "tolerance": 0.0, "memory": "save", "storage": "half"},
    partial(mean_field, ROWS, KERNELS, [PENALTIES], 2): {"damping": 1.0},
    FrankWolfe: {
        "regularizer": "l1", "temperature": 0.0, "step": 1.5, "unary_mixture": 1.0, "memory": "all"
    },
    partial(frank_wolfe, ROWS, KERNELS, [PENALTIES], 2): {"step": 0.0},
    ImplicitMeanField: {"damping": 1.0, "tolerance": -1.0},
    partial(implicit_mean_field, ROWS, KERNELS, [PENALTIES], 2): {"tolerance": 0.0},
    DenseCrfLoss: {
        "form": "crf", "theta_alpha": 0.0, "theta_beta": "15", "normalization": "symetric",
        "method": "window", "reduction": "avg",
    },
    partial(build_compatibility, "full", 3): {"num_sets": 0},
    partial(build_compatibility, "low_rank", 3): {"rank": 0},
    partial(build_kernel_weight, "class", 3): {"value": NAN},
    partial(LatticeFilter, ROWS): {"gradient": "gauss", "accuracy": "finest"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("build", "argument", "value"),
    [(build, name, value) for build, bad in ARGUMENTS.items() for name, value in bad.items()],
)
def test_every_argument_is_checked(build: Call, argument: str, value: object) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^{argument} must be"):
        build(**{argument: value})


# arguments that do not go together, names, and tensors


built: Any = partial(partial, CrfRnn, num_labels=3)
theta: Any = partial(check_theta, "x", unit="cm")


def further(name: Any = "embedding", **fields: Any) -> Any:
    return built(further_kernels={name: KernelConfig(**({"theta_guide": 1.0} | fields))})


def called(
    unary: Any = UNARY, image: Any = IMAGE, guides: Any = None, mask: Any = None, **options: Any
) -> Call:
    return lambda: CrfRnn(3, **options)(unary, image, guides, mask)


def guided(guides: Any) -> Call:
    return called(guides=guides, further_kernels={"embedding": KernelConfig(theta_guide=1.0)})


def inferred(*changed: Any, of: Call = mean_field) -> Call:
    """The arguments that are given, and those of a problem that fits for the others."""
    return partial(of, *changed, *(ROWS, KERNELS, [PENALTIES], 2)[len(changed) :])


lost: Any = partial(partial, DenseCrfLoss())
energy: Any = partial(partial, relaxed_energy)
labelled: Any = partial(partial, discrete_energy, unary=ROWS, kernels=KERNELS, penalties=PENALTIES)

# Images of another range, and widths that a lattice cannot hold: traps 10 and 4.
# fmt: off
REFUSED: list[tuple[Call, type[Exception], str]] = [
    (partial(check_choice, "x", "pots", choices=["potts", "full"]), ValueError, "mean 'potts'"),
    (partial(theta, []), ValueError, "got an empty one"),
    (partial(theta, np.ones(2)), ValueError, r"pass its tolist\(\)"),
    (built(nonnegative=True, spatial_weight=-1.0), ValueError, "at least 0"),
    (built(compatibility_rank=2), ValueError, "rank goes with the 'low_rank'"),
    (built(compatibility="low_rank", compatibility_rank=4), ValueError, "number of labels, 3"),
    (built(self_term=False), ValueError, "lattice of kernel 'bilateral' does not"),
    (built(inference=ImplicitMeanField(), untied=True), ValueError, "untied .* ImplicitMeanField"),
    (built(learn_step=True, inference=FrankWolfe(step="decaying")), ValueError, "it starts at"),
    (built(further_kernels={"a": 3.0}), TypeError, "'a' must be a KernelConfig"),
    (further("spatial"), ValueError, "arguments of their own"),
    *((further(name), ValueError, "can name a submodule") for name in ("a.b", "", "keys", 1)),
    (further("a", theta_position=-1.0), ValueError, "theta_position of kernel 'a' must"),
    (further("a", filter="latice"), ValueError, "filter of kernel 'a' must"),
    (further(theta_guide=None), ValueError, "theta_guide or both"),
    (further(theta_position=1.0, filter="separable"), ValueError, "over position alone"),
    (partial(CrfRnn.from_preset, "deeplab_v2_vgg", 21), ValueError, "mean 'deeplab_v2_vgg16'"),
    (lambda: CrfRnn(3).potentials.kernel("spatial").log_theta("guide"), ValueError, "no theta_gu"),
    (partial(FrankWolfe, step=torch.zeros(2)), ValueError, r"step must be in .*raw\.sigmoid"),
    (partial(FrankWolfe, step=torch.ones(2, 2)), ValueError, r"shape \(\) or \(T,\)"),
    # the layer
    (called(UNARY.numpy()), TypeError, "unary must be a torch.Tensor"),
    (called(UNARY[:, :2]), ValueError, r"\(B, 3, H, W\).*label axis is"),
    (called(UNARY.long()), TypeError, "floating-point logits"),
    (called(UNARY / 0), ValueError, "unary must be finite.*clamp"),
    (called(UNARY[..., :0], IMAGE[..., :0]), ValueError, "at least one pixel"),
    (called(UNARY.to_sparse()), TypeError, r"unary must be dense.*to_dense\(\)"),
    (called(UNARY.to("meta"), IMAGE.to("meta")), TypeError, "unary must hold values"),
    (called(image=IMAGE * 2), ValueError, r"image must be in 0\.\.255"),
    (called(image=IMAGE * NAN), ValueError, "image must be finite"),
    (called(image=IMAGE[..., :5]), ValueError, "image must be .* to match a unary"),
    (called(image=IMAGE.to("meta")), ValueError, "image and unary must be on one device"),
    (called(IMAGE[:, :1], UNARY), ValueError, "arguments are swapped"),
    (guided(None), ValueError, r"given for \['embedding'\].*got \[\]"),
    (guided(GUIDE), TypeError, r"pass guides=\{name: tensor\}"),
    (guided({"embedding": GUIDE.long()}), TypeError, "floating-point tensor"),
    (guided({"embedding": GUIDE * NAN}), ValueError, "features must be finite.*Check the guide"),
    (called(mask=MASK.byte()), TypeError, "mask must be a bool .*uint8"),
    (called(mask=MASK[:, None]), ValueError, "without a channel axis"),
    (called(theta_alpha=[1.0, 2.0, 3.0]), ValueError, "theta_alpha.* each of the 2 axes"),
    (called(theta_beta=[1.0, 2.0]), ValueError, "theta_beta.* each of the 3 channels"),
    (called(UNARY.float(), IMAGE.float(), theta_beta=2e-38), ValueError, "features must be finite"),
    (called(bilateral_filter="exact", theta_beta=1e-20), ValueError, "below 1e18"),
    (called(bilateral_weight=3e38), ValueError, "kernel weights .* below 1e30"),
    (lambda: CrfRnn(3).potentials.build_kernels(IMAGE.byte()), TypeError, "floating point here"),
    # losses, inference, energies
    (lost(UNARY[0], IMAGE), ValueError, r"logits must be \(B, L, H, W\)"),
    (lost(UNARY * NAN, IMAGE), ValueError, "logits must be finite"),
    (lost(UNARY, IMAGE / 255), ValueError, r"image must be in 0\.\.255"),
    (inferred(ROWS.numpy()), TypeError, "got ndarray"),
    (inferred(ROWS[0]), ValueError, r"unary must be \(B, N, L\)"),
    (inferred(ROWS, KERNELS, []), ValueError, "at least one iteration"),
    (inferred(ROWS, KERNELS, [PENALTIES[:1]]), ValueError, "2 .* got 1 of them"),
    (inferred(ROWS[..., :2]), ValueError, r"be \(2, 2\)"),
    (inferred(ROWS.float()), TypeError, r"penalty\.to\(unary"),
    *((inferred(ROWS, KERNELS, PENALTIES, of=solve), ValueError, r"pass \[penalties\]")
      for solve in (mean_field, frank_wolfe, implicit_mean_field, partial(trace, MeanField()))),
    (inferred(ROWS, KERNELS, [PENALTIES] * 2, of=implicit_mean_field), ValueError, "one entry"),
    (energy(ROWS[:1], ROWS, KERNELS, PENALTIES), ValueError, r"q must be \(2, 6, 3\)"),
    (energy(ROWS, ROWS, KERNELS, PENALTIES[0]), ValueError, "a sequence of 2"),
    (labelled(torch.zeros(2, 6)), TypeError, r"int64, got torch\.float32"),
    (labelled(torch.full((2, 6), 3)), ValueError, r"in 3\.\.3\. Give void"),
]
# fmt: on


@pytest.mark.parametrize(("call", "error", "words"), REFUSED)
def test_what_does_not_fit_is_refused(call: Call, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


# A bilateral kernel of infinite width has every pixel as a neighbour, and is no error.
@pytest.mark.parametrize(
    ("kernel", "of", "value"),
    [("spatial", "position", -1e3), ("spatial", "position", NAN), ("bilateral", "guide", -1e3)],
)
def test_a_theta_that_diverged_is_an_error(kernel: str, of: Any, value: float) -> None:
    crf = CrfRnn(3, learn_theta=True)
    crf.potentials.kernel(kernel).log_theta(of).data.fill_(value)
    with pytest.raises(ValueError, match="diverged"):
        crf(UNARY, IMAGE)


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="what is free is not known here")
def test_a_picture_of_a_gigapixel_is_refused_with_the_bytes_that_it_needs() -> None:
    import resource  # not on Windows

    limits = resource.getrlimit(resource.RLIMIT_AS)
    side = 30_000
    try:
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, limits[1]))
        with pytest.raises(MemoryError, match=r"needs at least 33\.5 GiB.*tiles"):
            refine(
                np.broadcast_to(np.float32(0.5), (2, side, side)),
                np.broadcast_to(np.uint8(0), (side, side, 3)),
            )
        image = np.broadcast_to(np.uint8(0), (side, side))
        with pytest.raises(MemoryError, match=r"needs at least 20\.1 GiB.*tiles"):
            densecrf.create_pairwise_bilateral((10, 10), (0.01,), image)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    free = free_memory(torch.device("cpu"))  # without a limit
    assert free is not None
    assert free > 0


def test_black_images_wide_kernels_and_no_values() -> None:
    for black in (torch.zeros(2, 3, 7, 6), torch.zeros(2, 3, 7, 6, dtype=torch.uint8)):
        assert CrfRnn(3)(UNARY, black).isfinite().all()
    v = torch.rand(1, 30, 2)
    for theta in (1e4, 1e9, 1e30):  # every pixel is a neighbour, at the cost of the grid alone
        filtered = SeparableFilter(torch.tensor([theta, theta]), (5, 6))(v)
        torch.testing.assert_close(filtered, v.sum(1, keepdim=True).expand_as(v))
    with torch.device("meta"):
        assert "theta_position=meta" in repr(CrfRnn(3, learn_theta=True))


def test_float16_does_not_overflow() -> None:
    """Logits of messages that are sums over all pixels: their differences are what counts."""
    unary, image = torch.randn(1, 3, 20, 20) * 4, torch.rand(1, 3, 20, 20) * 255
    crf = CrfRnn(3, normalization="none", bilateral_weight=-1e5, compatibility="potts")
    precise, half = crf(unary, image), crf(unary.half(), image)
    assert half.dtype == torch.float16
    assert half.isfinite().all()
    too_large = (precise.amax(1, keepdim=True) > 65504).expand_as(precise)
    assert too_large.any()
    # Their differences are rounded to 11 bits.
    q, expected = half.float().softmax(1)[too_large], precise.softmax(1)[too_large]
    torch.testing.assert_close(q, expected, rtol=0, atol=2e-2)
