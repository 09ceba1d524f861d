"""What the public entries refuse: what was expected, what came, what to do.

`densecrf` has a table of its own in its test file, and so have the losses, the importers and
`refine` for their details; here is one case of each kind.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from crfrnn import CrfRnn, refine
from crfrnn.diagnostics import relaxed_energy, trace
from crfrnn.filtering import ExactFilter, LatticeFilter
from crfrnn.frank_wolfe import FrankWolfe, frank_wolfe
from crfrnn.implicit import ImplicitMeanField, implicit_mean_field
from crfrnn.importers import from_crfasrnn
from crfrnn.inference import MeanField, mean_field
from crfrnn.kernels import GaussianKernel, KernelConfig
from crfrnn.losses import DenseCrfLoss
from tests.crfrnn.small_layers import random_inputs

UNARY, IMAGE = random_inputs()
MASK = torch.ones(2, 7, 6, dtype=torch.bool)
GUIDE = IMAGE[:, :2] / 50
ROWS = UNARY.flatten(2).transpose(1, 2).contiguous()
FEATURES = IMAGE.flatten(2).transpose(1, 2) / 60
KERNELS = [ExactFilter(FEATURES)]
PENALTY = torch.ones(3, 3, dtype=torch.float64)
STATE = {
    "spatial_ker_weights": torch.eye(3),
    "bilateral_ker_weights": torch.eye(3),
    "compatibility_matrix": -torch.eye(3),
}
NAN = float("nan")

Call = Callable[[], object]


def built(**options: Any) -> Call:
    return partial(CrfRnn, **({"num_labels": 3} | options))


def further(name: Any = "embedding", **fields: Any) -> Call:
    return built(further_kernels={name: KernelConfig(**({"theta_guide": 1.0} | fields))})


def called(
    unary: Any = UNARY, image: Any = IMAGE, guides: Any = None, mask: Any = None, **options: Any
) -> Call:
    return lambda: CrfRnn(3, **options)(unary, image, guides, mask)


def guided(guides: Any) -> Call:
    return called(guides=guides, further_kernels={"embedding": KernelConfig(theta_guide=1.0)})


CONSTRUCTOR: list[tuple[str, Call, type[Exception], str]] = [
    ("no label", built(num_labels=0), ValueError, "num_labels must be an integer of at least 1"),
    ("half a label", built(num_labels=2.5), ValueError, "num_labels .*got 2.5"),
    ("theta 0", built(theta_alpha=0.0), ValueError, "theta_alpha .*pixels"),
    ("theta below 0", built(theta_beta=-1.0), ValueError, "theta_beta .*grey levels"),
    ("theta NaN", built(theta_gamma=NAN), ValueError, "theta_gamma"),
    ("theta 0 in float32", built(theta_gamma=1e-40), ValueError, "theta_gamma"),
    ("theta infinite in float32", built(theta_alpha=1e39), ValueError, "theta_alpha"),
    ("theta text", built(theta_alpha="80"), ValueError, "theta_alpha .*got '80'"),
    ("theta bool", built(theta_alpha=True), ValueError, "theta_alpha .*got True"),
    ("theta None", built(theta_beta=None), ValueError, "theta_beta .*got None"),
    ("theta array", built(theta_alpha=np.ones(2)), ValueError, r"list .*pass its tolist\(\)"),
    ("theta empty", built(theta_alpha=[]), ValueError, "theta_alpha .*got an empty one"),
    ("theta nested", built(theta_alpha=[[1.0]]), ValueError, r"theta_alpha .*got \[1.0\]"),
    ("weight NaN", built(bilateral_weight=NAN), ValueError, "bilateral_weight must be a finite"),
    ("weight infinite in float32", built(spatial_weight=1e39), ValueError, "spatial_weight"),
    ("weight bool", built(spatial_weight=True), ValueError, "spatial_weight .*got True"),
    ("weight list", built(bilateral_weight=[1, 2]), ValueError, "bilateral_weight .*a finite"),
    ("output scale 0", built(output_scale=0.0), ValueError, "output_scale"),
    ("unary scale", built(unary_scale=-1.0), ValueError, "unary_scale .*above 0"),
    ("mixture 1", built(unary_mixture=1.0), ValueError, r"unary_mixture .*\[0, 1\), got 1.0"),
    ("T below 0", built(num_iterations=-1), ValueError, "num_iterations must be an integer"),
    ("T float", built(num_iterations_eval=2.0), ValueError, "num_iterations_eval .*got 2.0"),
    ("normalisation", built(normalization="symetric"), ValueError, "Did you mean 'symmetric'"),
    ("weight form", built(kernel_weights="vector"), ValueError, "kernel_weights must be one of"),
    ("nonnegative", built(nonnegative=True, spatial_weight=-1.0), ValueError, "at least 0"),
    ("nonnegative 1", built(nonnegative=1), TypeError, "nonnegative must be True or False"),
    ("compatibility", built(compatibility="pots"), ValueError, "Did you mean 'potts'"),
    ("rank of full", built(compatibility_rank=2), ValueError, "rank goes with the 'low_rank'"),
    ("no rank", built(compatibility="low_rank"), ValueError, "rank goes with the 'low_rank'"),
    ("rank above L", built(compatibility="low_rank", compatibility_rank=4), ValueError,
     "rank must be at most the number of labels, 3, got 4"),
    ("image range", built(image_range="0..1"), ValueError, "Did you mean '0..255'"),
    ("spatial filter", built(spatial_filter="sep"), ValueError, "spatial_filter must be one of"),
    ("separable bilateral", built(bilateral_filter="separable"), ValueError, "bilateral_filter"),
    ("accuracy", built(lattice_accuracy="finest"), ValueError, "Did you mean 'fine'"),
    ("features gradient", built(features_gradient="gauss"), ValueError, "mean 'gaussian'"),
    ("radius below 0", built(window_radius=-1), ValueError, "window_radius"),
    ("radius float", built(window_radius=1.5), ValueError, "window_radius .*got 1.5"),
    ("dilation 0", built(window_dilation=0), ValueError, "window_dilation"),
    ("self term of a lattice", built(self_term=False), ValueError,
     "the lattice of kernel 'bilateral' does not. Use 'exact'"),
    *((name, built(**{name: "no"}), TypeError, f"{name} must be True or False, got 'no'")
      for name in ("untied", "self_term", "learn_theta", "learn_step", "learn_unary_scale",
                   "learn_output_scale")),
    ("inference class", built(inference=MeanField), TypeError, r"such as MeanField\(\)"),
    ("inference name", built(inference="mean_field"), TypeError, "got 'mean_field'"),
    ("untied fixed point", built(inference=ImplicitMeanField(), untied=True), ValueError,
     "untied parameters do not go with ImplicitMeanField"),
    ("step of mean field", built(learn_step=True), ValueError, "learn_step needs inference=Frank"),
    ("named step learns", built(learn_step=True, inference=FrankWolfe(step="decaying")),
     ValueError, "the number it starts at, got FrankWolfe"),
    ("further list", built(further_kernels=[KernelConfig(1.0)]), TypeError, "got list: pass"),
    ("further number", built(further_kernels={"a": 3.0}), TypeError, "'a' must be a KernelConfig"),
    ("further spatial", further("spatial"), ValueError, "arguments of their own"),
    ("further bilateral", further("bilateral"), ValueError, "arguments of their own"),
    *((f"further {name!r}", further(name), ValueError, "can name a submodule")
      for name in ("a.b", "", "keys", "training", 1)),
    ("further without theta", further(theta_guide=None), ValueError, "theta_guide or both"),
    ("further theta", further("a", theta_position=-1.0), ValueError, "position of kernel 'a'"),
    ("further weight", further("a", weight=NAN), ValueError, "weight of kernel 'a' .*finite"),
    ("further filter", further("a", filter="latice"), ValueError, "kernel 'a' .*mean 'lattice'"),
    ("further separable", further(theta_position=1.0, filter="separable"), ValueError,
     "over position alone, got a theta_guide"),
    ("preset", lambda: CrfRnn.from_preset("deeplab_v2_vgg", 21), ValueError,
     "Did you mean 'deeplab_v2_vgg16'"),
    ("preset option", lambda: CrfRnn.from_preset("crf_rnn", 3, theta=1.0), TypeError, "'theta'"),
]  # fmt: skip

FORWARD: list[tuple[str, Call, type[Exception], str]] = [
    ("unary array", called(UNARY.numpy()), TypeError, "unary must be a torch.Tensor"),
    ("unary of another L", called(UNARY[:, :2]), ValueError, r"\(B, 3, H, W\).*label axis is"),
    ("unary without batch", called(UNARY[0]), ValueError, r"\(B, 3, H, W\)"),
    ("unary without grid", called(UNARY[..., 0, 0]), ValueError, r"\(B, 3, H, W\)"),
    ("unary of four axes", called(UNARY[..., None, None]), ValueError, r"\(B, 3, H, W\)"),
    ("unary integer", called(UNARY.long()), TypeError, "floating-point logits"),
    ("unary complex", called(UNARY + 0j), TypeError, "floating-point logits"),
    ("unary float8", called(UNARY.to(torch.float8_e4m3fn)), TypeError, "floating-point logits"),
    ("unary infinite", called(UNARY / 0), ValueError, "unary must be finite.*clamp"),
    ("unary empty", called(UNARY[..., :0], IMAGE[..., :0]), ValueError, "at least one pixel"),
    ("unary sparse", called(UNARY.to_sparse()), TypeError, r"unary must be dense.*to_dense\(\)"),
    ("unary meta", called(UNARY.to("meta"), IMAGE.to("meta")), TypeError, "unary must hold values"),
    ("image array", called(image=IMAGE.numpy()), TypeError, r"got ndarray: torch\.from_numpy"),
    ("image None", called(image=None), TypeError, "image must be a torch.Tensor .*NoneType"),
    ("image 0..1", called(image=IMAGE / 255), ValueError, r"in .*before normalisation"),
    ("image less its mean", called(image=IMAGE - 128), ValueError, r"0\.\.255, got values in -"),
    ("image above 255", called(image=IMAGE * 2), ValueError, r"0\.\.255"),
    ("image int32", called(image=IMAGE.int()), TypeError, "uint8 or floating point"),
    ("image int8", called(image=IMAGE.to(torch.int8)), TypeError, "uint8 or floating point"),
    ("image float8", called(image=IMAGE.to(torch.float8_e4m3fn)), TypeError, "uint8 or floating"),
    ("image NaN", called(image=IMAGE * NAN), ValueError, "image must be finite"),
    ("image of another size", called(image=IMAGE[..., :5]), ValueError, "to match a unary"),
    ("image of another batch", called(image=IMAGE[:1]), ValueError, "B = 2 to match a unary of"),
    ("image channels last", called(image=IMAGE.movedim(1, 3)), ValueError, "channels come before"),
    ("image without channel", called(image=IMAGE[:, :0]), ValueError, "at least one channel"),
    ("image elsewhere", called(image=IMAGE.to("meta")), ValueError, "on one device"),
    ("image sparse", called(image=IMAGE.to_sparse()), TypeError, "image must be dense"),
    ("image first", called(IMAGE, UNARY), ValueError, r"image must be in 0\.\.255"),
    ("guide missing", guided(None), ValueError, r"given for \['embedding'\].*got \[\]"),
    ("guide too many", called(guides={"a": GUIDE}), ValueError, r"for \[\].*got \['a'\]"),
    ("guide of no name", guided(GUIDE), TypeError, r"got Tensor: pass guides=\{name: tensor\}"),
    ("guide integer", guided({"embedding": GUIDE.long()}), TypeError, "floating-point tensor"),
    ("guide array", guided({"embedding": GUIDE.numpy()}), TypeError, "got ndarray"),
    ("guide NaN", guided({"embedding": GUIDE * NAN}), ValueError, "Check the guide"),
    ("guide of another size", guided({"embedding": GUIDE[..., :3]}), ValueError,
     r"'embedding' must be \(B, C, 7, 6\)"),
    ("guide sparse", guided({"embedding": GUIDE.to_sparse()}), TypeError, "must be dense"),
    ("mask in place of guides", called(guides=MASK), TypeError, "guides must be a mapping"),
    ("mask 0 and 1", called(mask=MASK.byte()), TypeError, "mask must be a bool .*uint8"),
    ("mask array", called(mask=MASK.numpy()), TypeError, "mask must be a bool .*ndarray"),
    ("mask of another batch", called(mask=MASK[:1]), ValueError, r"mask must be \(2, 7, 6\)"),
    ("mask with channel", called(mask=MASK[:, None]), ValueError, "without a channel axis"),
    ("mask transposed", called(mask=MASK.mT), ValueError, r"got \(2, 6, 7\)"),
    ("theta_alpha of 3 axes", called(theta_alpha=[1.0, 2.0, 3.0]), ValueError,
     "theta_alpha.* each of the 2 axes of the grid, got 3"),
    ("theta_gamma of 3 axes", called(theta_gamma=[1.0, 2.0, 3.0]), ValueError,
     "theta_gamma.* each of the 2 axes of the grid, got 3"),
    ("theta_beta of 2 channels", called(theta_beta=[1.0, 2.0]), ValueError,
     "theta_beta.* each of the 3 channels of the guide, got 2"),
    *((f"theta_beta {theta}", called(theta_beta=theta), ValueError, "theta is too small")
      for theta in (1e-6, 1e-30)),
    # A width that float32 cannot divide by.
    ("theta_beta 1e-37", called(UNARY.float(), IMAGE.float(), theta_beta=2e-38), ValueError,
     "features must be finite"),
]  # fmt: skip

INFERENCES: list[Callable[..., object]] = [mean_field, frank_wolfe, implicit_mean_field]
PROBLEMS: list[tuple[str, tuple[Any, ...], type[Exception], str]] = [
    ("unary (N, L)", (ROWS[0], KERNELS, [[PENALTY]], 2), ValueError, r"must be \(B, N, L\)"),
    ("unary array", (ROWS.numpy(), KERNELS, [[PENALTY]], 2), TypeError, "got ndarray"),
    ("one penalty", (ROWS, KERNELS, [PENALTY], 2), ValueError, r"pass \[penalties\]"),
    ("penalties (L, L)", (ROWS, KERNELS, PENALTY, 2), ValueError, r"pass \[penalties\]"),
    ("no penalties", (ROWS, KERNELS, [], 2), ValueError, "at least one iteration"),
    ("penalty list", (ROWS, KERNELS, [[PENALTY.tolist()]], 2), TypeError, "got list"),
    ("penalty of another L", (ROWS, KERNELS, [[PENALTY[:2, :2]]], 2), ValueError, "3 labels"),
    ("penalty dtype", (ROWS, KERNELS, [[PENALTY.float()]], 2), TypeError, r"penalty\.to"),
    ("T", (ROWS, KERNELS, [[PENALTY]], 1.5), ValueError, "num_iterations .*got 1.5"),
]  # fmt: skip

BY_PART: list[tuple[str, Call, type[Exception], str]] = [
    ("kernel without theta", partial(GaussianKernel, theta_position=None, theta_guide=None,
     filter_name="exact"), ValueError, "a kernel needs theta_position, theta_guide or both"),
    ("kernel name", lambda: CrfRnn(3).potentials.kernel("color"), ValueError, "kernel must be one"),
    ("weight name", lambda: CrfRnn(3).potentials.weight("color"), ValueError, "kernel must be one"),
    ("theta of no guide", lambda: CrfRnn(3).potentials.kernel("spatial").log_theta("guide"),
     ValueError, "has no theta_guide"),
    ("kernels of uint8", lambda: CrfRnn(3).potentials.build_kernels(IMAGE.byte()), TypeError,
     "image must be floating point here"),
    ("kernels' mask", lambda: CrfRnn(3).potentials.build_kernels(IMAGE, None, MASK.mT),
     ValueError, "mask must be"),
    ("kernels without guide", lambda: GaussianKernel(theta_position=None, theta_guide=1.0,
     filter_name="exact")((7, 6), None, torch.ones(2, 42, 1), masked=False), ValueError,
     "takes a guide, got None"),
    ("lattice gradient", lambda: LatticeFilter(FEATURES, gradient="gauss"),  # type: ignore[arg-type]
     ValueError, "gradient must be one of"),
    ("lattice accuracy", lambda: LatticeFilter(FEATURES, "finest"),  # type: ignore[arg-type]
     ValueError, "Did you mean 'fine'"),
    ("lattice of tiny theta", lambda: LatticeFilter(FEATURES * 1e20), ValueError, "too small"),
    *((f"{function.__name__} {name}", partial(function, *arguments), error, message)
      for function in INFERENCES for name, arguments, error, message in PROBLEMS),
    ("damping", partial(MeanField, damping=1.0), ValueError, r"damping .*\[0, 1\)"),
    ("damping bool", partial(MeanField, damping=True), ValueError, "damping .*got True"),
    ("tolerance", partial(MeanField, tolerance=0.0), ValueError, "tolerance"),
    ("memory", partial(MeanField, memory="recompte"), ValueError, "mean 'recompute'"),  # type: ignore[arg-type]
    ("regulariser", partial(FrankWolfe, "l1"), ValueError, "regularizer must be one of"),  # type: ignore[arg-type]
    ("step 0", partial(FrankWolfe, step=0.0), ValueError, r"step must be a number in \(0, 1\]"),
    ("step name", partial(FrankWolfe, step="decay"), ValueError, "mean 'decaying'"),  # type: ignore[arg-type]
    ("steps 0", partial(FrankWolfe, step=torch.zeros(2)), ValueError, r"as raw\.sigmoid\(\)"),
    ("fixed point", partial(ImplicitMeanField, tolerance=-1.0), ValueError, "tolerance"),
    ("several updates", lambda: implicit_mean_field(ROWS, KERNELS, [[PENALTY]] * 2, 2),
     ValueError, "pairwise must hold one entry"),
    ("energy of all iterations", lambda: relaxed_energy(ROWS, ROWS, KERNELS, [[PENALTY]]),  # type: ignore[list-item]
     TypeError, "an energy takes that of one iteration"),
    ("trace", lambda: trace(MeanField(), ROWS, KERNELS, [], 2), ValueError, "at least one"),
    ("loss form", partial(DenseCrfLoss, "crf"), ValueError, "form must be one of"),  # type: ignore[arg-type]
    ("loss theta", lambda: DenseCrfLoss(theta_beta=[1.0, 2.0])(UNARY, IMAGE),  # type: ignore[arg-type]
     ValueError, "theta_beta.* each of the 3 channels"),
    ("loss image", lambda: DenseCrfLoss()(UNARY, IMAGE / 255), ValueError, r"image .*0\.\.255"),
    ("loss mask", lambda: DenseCrfLoss()(UNARY, IMAGE, MASK.double()), TypeError, "mask must be"),
    ("state without CRF", lambda: from_crfasrnn({}), ValueError, "state must hold"),
    ("state of two L", lambda: from_crfasrnn(STATE | {"compatibility_matrix": torch.eye(2)}),
     ValueError, "one shape"),
    ("state's filter", lambda: from_crfasrnn(STATE, spatial_filter="lat"),  # type: ignore[arg-type]
     ValueError, "spatial_filter must be one of"),
    ("refine a tensor", lambda: refine(UNARY[0].softmax(0), IMAGE[0]),  # type: ignore[arg-type]
     TypeError, "must be a NumPy array"),
    ("refine labels last", lambda: refine(np.full((7, 6, 2), 0.5), np.zeros((7, 6, 3), np.uint8)),
     ValueError, "labels first"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [pytest.param(*case, id=name) for name, *case in CONSTRUCTOR + FORWARD + BY_PART],
)
def test_bad_input(call: Call, error: type[Exception], message: str) -> None:
    inputs = [UNARY, IMAGE, MASK, GUIDE, ROWS, FEATURES, PENALTY, *STATE.values()]
    before = [x.clone() for x in inputs]
    with pytest.raises(error, match=message):
        call()
    for x, copy in zip(inputs, before, strict=True):
        assert torch.equal(x, copy)


@pytest.mark.parametrize("value", [-1000.0, NAN, float("inf")])
def test_a_theta_that_diverged_is_an_error(value: float) -> None:
    """Zeros and infinities arise from a learning rate, long after the constructor's checks."""
    crf = CrfRnn(3, learn_theta=True)
    crf.potentials.kernel("spatial").log_theta("position").data.fill_(value)
    with pytest.raises(ValueError, match="diverged"):
        crf(UNARY, IMAGE)
    other = CrfRnn(3, learn_theta=True)
    # A bilateral kernel of infinite width has every pixel as a neighbour, and is no error.
    other.potentials.kernel("bilateral").log_theta("guide").data.fill_(-abs(value))
    with pytest.raises(ValueError, match="diverged"):
        other(UNARY, IMAGE)


def test_a_black_image_is_an_image() -> None:
    for black in (torch.zeros(2, 3, 7, 6), torch.zeros(2, 3, 7, 6, dtype=torch.uint8)):
        assert CrfRnn(3)(UNARY, black).isfinite().all()
