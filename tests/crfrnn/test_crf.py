"""The layer: against the paper's equations written out, and against published implementations."""

from __future__ import annotations

import ast
import copy
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crfrnn import PRESETS, CrfRnn
from crfrnn.filtering import NORMALIZATIONS, LatticeFilter, Normalized, lattice
from crfrnn.filtering.accuracy import LatticeAccuracy
from crfrnn.inference import mean_field
from crfrnn.kernels import rounded

REFERENCE = np.load(Path(__file__).parent / "crf_reference.npz")
META = {line.split(": ")[0]: line.split(": ", 1)[1] for line in REFERENCE["meta"].tolist()}


def random_inputs(
    batch: int = 2, num_labels: int = 3, height: int = 7, width: int = 6
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    unary = torch.randn(batch, num_labels, height, width, generator=generator)
    image = torch.rand(batch, 3, height, width, generator=generator) * 255
    return unary.double(), image.double()


def small_crf(num_labels: int = 3, **options: Any) -> CrfRnn:
    """Widths that fit a 7 x 6 image, and matrices that are far from their start."""
    options = {"theta_alpha": 3.0, "theta_beta": 60.0, "theta_gamma": 1.5} | options
    crf = CrfRnn(num_labels, **options).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in crf.potentials.parameters():
        noise = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = parameter.data * 0.2 + noise
    return crf


# shape


@pytest.mark.parametrize("shape", [(1, 2, 5, 4), (3, 21, 4, 9)])
def test_shape_and_dtype_are_those_of_the_unary(shape: tuple[int, ...]) -> None:
    unary = torch.randn(shape)
    image = torch.randint(0, 256, (shape[0], 3, *shape[2:]), dtype=torch.uint8)
    out = CrfRnn(shape[1])(unary, image)
    assert out.shape == unary.shape
    assert out.dtype == torch.float32
    half = CrfRnn(shape[1])(unary.half(), image)
    assert half.dtype == torch.float16


def test_computes_in_float32_inside_autocast() -> None:
    unary, image = (x.float() for x in random_inputs())
    crf = CrfRnn(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = crf(unary, image)
    assert torch.equal(inside, crf(unary, image))


# errors

UNARY, IMAGE = random_inputs()


@pytest.mark.parametrize(
    ("unary", "image", "error", "message"),
    [
        (UNARY, IMAGE / 255, ValueError, r"0\.\.255, got values in .*before normalisation"),
        (UNARY, IMAGE - 128, ValueError, r"0\.\.255, got values in -"),
        (UNARY, IMAGE * 2, ValueError, r"0\.\.255"),
        (UNARY, IMAGE.int(), TypeError, "uint8 or floating point"),
        (UNARY, IMAGE * torch.nan, ValueError, "image must be finite"),
        (UNARY, IMAGE[..., :5], ValueError, "to match a unary"),
        (UNARY, IMAGE[:1], ValueError, "to match a unary of"),
        (UNARY, IMAGE.movedim(1, 3), ValueError, "channels come before"),
        (UNARY[:, :2], IMAGE, ValueError, r"\(B, 3, H, W\)"),
        (UNARY[0], IMAGE, ValueError, r"\(B, 3, H, W\)"),
        (UNARY.long(), IMAGE, TypeError, "floating-point logits"),
        (UNARY / 0, IMAGE, ValueError, "unary must be finite"),
        (UNARY[..., :0], IMAGE[..., :0], ValueError, "at least one pixel"),
    ],
)
def test_bad_input(unary: Tensor, image: Tensor, error: type[Exception], message: str) -> None:
    before = unary.detach().clone(), image.detach().clone()
    with pytest.raises(error, match=message):
        CrfRnn(3)(unary, image)
    assert torch.equal(unary.nan_to_num(), before[0].nan_to_num())
    assert torch.equal(image.detach().nan_to_num(), before[1].nan_to_num())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_labels": 0}, "num_labels must be an integer of at least 1"),
        ({"num_labels": 3, "theta_alpha": 0.0}, "theta_alpha .*pixels"),
        ({"num_labels": 3, "theta_beta": -1.0}, "theta_beta .*grey levels"),
        ({"num_labels": 3, "theta_gamma": float("nan")}, "theta_gamma"),
        ({"num_labels": 3, "theta_gamma": 1e-40}, "theta_gamma"),  # 0 in float32
        ({"num_labels": 3, "theta_alpha": 1e39}, "theta_alpha"),  # infinite in float32
        ({"num_labels": 3, "theta_alpha": "80"}, "theta_alpha .*got '80'"),
        ({"num_labels": 3, "bilateral_weight": float("nan")}, "bilateral_weight must be a finite"),
        ({"num_labels": 3, "spatial_weight": float("inf")}, "spatial_weight must be a finite"),
        ({"num_labels": 3, "output_scale": 0.0}, "output_scale"),
        ({"num_labels": 3, "num_iterations": -1}, "num_iterations"),
        ({"num_labels": 3, "normalization": "symetric"}, "Did you mean 'symmetric'"),
        ({"num_labels": 3, "kernel_weights": "vector"}, "kernel_weights must be one of"),
        ({"num_labels": 3, "bilateral_filter": "separable"}, "bilateral_filter"),
    ],
)
def test_bad_configuration(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CrfRnn(**options)


def test_arrays_are_named_as_such() -> None:
    with pytest.raises(TypeError, match=r"got ndarray: torch\.from_numpy"):
        CrfRnn(3)(UNARY, IMAGE.numpy())
    with pytest.raises(TypeError, match="unary must be a torch"):
        CrfRnn(3)(UNARY.numpy(), IMAGE)


@pytest.mark.parametrize("theta_beta", [1e-3, 1e-6, 1e-30])
def test_a_width_too_small_for_the_lattice_is_an_error(theta_beta: float) -> None:
    """16-bit keys that wrap are a memory error of the most used package."""
    crf = CrfRnn(3, theta_beta=theta_beta)
    with pytest.raises(ValueError, match="theta is too small"):
        crf(UNARY.float(), IMAGE.float())


def test_a_black_image_is_an_image() -> None:
    for black in (torch.zeros(2, 3, 7, 6), torch.zeros(2, 3, 7, 6, dtype=torch.uint8)):
        assert CrfRnn(3)(UNARY, black).isfinite().all()


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean 'deeplab_v2_vgg16'"):
        CrfRnn.from_preset("deeplab_v2_vgg", 21)


def test_loading_is_strict() -> None:
    state = CrfRnn(3).state_dict()
    state["bilateral_ker_weights"] = state.pop("potentials.kernel_weights.bilateral.diagonal")
    with pytest.raises(RuntimeError, match="bilateral_ker_weights"):
        CrfRnn(3).load_state_dict(state)


# oracle


def paper_equations(crf: CrfRnn, unary: Tensor, image: Tensor, num_iterations: int) -> Tensor:
    """Zheng et al., algorithm 1, with every sum over pixel pairs written out, in NumPy."""
    out = []
    for u, picture in zip(unary.detach().numpy(), image.numpy(), strict=True):
        labels, height, width = u.shape
        y, x = (c.reshape(-1) for c in np.mgrid[:height, :width])
        place = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
        rgb = picture.reshape(3, -1)
        colour = ((rgb[:, :, None] - rgb[:, None]) ** 2).sum(0)
        widths = (crf.potentials.theta_alpha, crf.potentials.theta_beta, crf.potentials.theta_gamma)
        alpha, beta, gamma = (theta.item() for theta in widths)
        kernels = [
            np.exp(-place / (2 * gamma**2)),
            np.exp(-place / (2 * alpha**2) - colour / (2 * beta**2)),
        ]
        for k, kernel in enumerate(kernels):
            degree = kernel.sum(1)
            if crf.potentials.normalization == "symmetric":
                kernels[k] = kernel / np.sqrt(degree[:, None] * degree)
            elif crf.potentials.normalization == "after":
                kernels[k] = kernel / degree[:, None]
            elif crf.potentials.normalization == "before":
                kernels[k] = kernel / degree
        weights = [w.numpy() for w in crf.potentials.kernel_weight_matrices().values()]
        mu = crf.potentials.compatibility().detach().numpy()
        u = u.reshape(labels, -1)
        logits = u
        for _ in range(num_iterations):
            q = np.exp(logits) / np.exp(logits).sum(0)
            weighted = sum(w @ (q @ k.T) for w, k in zip(weights, kernels, strict=True))
            logits = u - mu @ weighted
        out.append(logits.reshape(labels, height, width))
    return torch.from_numpy(np.stack(out))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("kernel_weights", ["scalar", "class", "matrix"])
@pytest.mark.parametrize("spatial_filter", ["exact", "separable"])
def test_equals_the_paper(normalization: str, kernel_weights: str, spatial_filter: str) -> None:
    unary, image = random_inputs()
    crf = small_crf(
        normalization=normalization,
        kernel_weights=kernel_weights,
        spatial_filter=spatial_filter,
        bilateral_filter="exact",
    )
    # float64 and a few dozen terms a sum: rounding only.
    expected = paper_equations(crf, unary, image, crf.num_iterations)
    torch.testing.assert_close(crf(unary, image), expected, rtol=1e-10, atol=1e-10)


def published(name: str, spatial_filter: str) -> tuple[Tensor, Tensor]:
    """(ours, theirs): the marginals of one case of the reference file, (L, N)."""
    settings = dict(re.findall(r"(\w+)=(\[\[.*?\]\]|\[.*?\]|[\w.]+)", META[name]))
    unary = torch.from_numpy(REFERENCE[f"{name}/unary_logits"])[None]
    image = torch.from_numpy(REFERENCE[f"{name}/image"]).permute(2, 0, 1)[None]
    crf = CrfRnn(
        unary.shape[1],
        theta_alpha=float(settings["sxy"]),
        theta_beta=float(settings["srgb"]),
        theta_gamma=float(settings["sxy_gaussian"]),
        normalization=settings["normalization"],
        kernel_weights="matrix",
        num_iterations_eval=int(settings["iterations"]),
        spatial_filter=spatial_filter,  # type: ignore[arg-type]
    ).eval()
    # That API's signs: a scalar attracts, a vector or a matrix is an energy.
    crf.potentials.compatibility.matrix.data = torch.eye(crf.num_labels)
    for weight, key in (
        (crf.potentials.weight("spatial"), "compat_gaussian"),
        (crf.potentials.weight("bilateral"), "compat_bilateral"),
    ):
        value = torch.tensor(ast.literal_eval(settings[key]), dtype=torch.float32)
        if value.ndim == 0:
            weight.data = -value * torch.eye(crf.num_labels)
        else:
            weight.data = torch.diag(value) if value.ndim == 1 else (value + value.t()) / 2
    q = crf(unary, image).softmax(1)[0].detach().flatten(1)
    return q, torch.from_numpy(REFERENCE[f"{name}/q"]).flatten(1)


IMAGES = [name for name in META if f"{name}/image" in REFERENCE and name != "crfasrnn"]


@pytest.mark.parametrize("name", IMAGES)
def test_equals_the_cpp_dense_crf_with_its_own_spatial_lattice(name: str) -> None:
    ours, theirs = published(name, "lattice")
    # The same arithmetic in another order, amplified by up to 10 sharpening iterations.
    assert (ours - theirs).abs().max() < 1e-3
    assert (ours.argmax(0) == theirs.argmax(0)).all()


@pytest.mark.parametrize("name", [name for name in IMAGES if name != "norm_none"])
def test_agrees_with_the_cpp_dense_crf_by_default(name: str) -> None:
    ours, theirs = published(name, "separable")
    assert (ours.argmax(0) == theirs.argmax(0)).double().mean() >= 0.99
    assert (ours - theirs).abs().mean() < 0.01


def test_agrees_with_the_cpp_dense_crf_on_a_volume() -> None:
    """A grey 3-D volume with generic features: the loop and the lattice are not tied to images."""
    guide = torch.from_numpy(REFERENCE["volume/guide"]).flatten()
    unary = torch.from_numpy(REFERENCE["volume/unary_logits"])
    depth, height, width = unary.shape[1:]
    place = torch.cartesian_prod(
        torch.arange(depth).float(), torch.arange(height).float(), torch.arange(width).float()
    )
    spatial = place / torch.tensor([2.0, 3.0, 3.0])
    bilateral = torch.cat([place / torch.tensor([4.0, 8.0, 8.0]), guide[:, None] / 20], dim=1)
    ones = torch.ones(1, len(guide), 1)
    kernels = [
        Normalized(LatticeFilter(features[None]), "symmetric", ones)
        for features in (spatial, bilateral)
    ]
    pairwise = [[-2 * torch.eye(2), -6 * torch.eye(2)]]
    logits = mean_field(unary.flatten(1).t()[None].contiguous(), kernels, pairwise, 5)
    theirs = torch.from_numpy(REFERENCE["volume/q"]).flatten(1)
    ours = logits.softmax(-1)[0].t()
    assert (ours.argmax(0) == theirs.argmax(0)).double().mean() >= 0.99
    assert (ours - theirs).abs().mean() < 0.01


@pytest.mark.parametrize("spatial_filter", ["lattice", "separable"])
def test_agrees_with_a_crf_as_rnn_layer_and_its_gradients(spatial_filter: str) -> None:
    case = {k: torch.from_numpy(REFERENCE[f"crfasrnn/{k}"]) for k in
            ("image", "unary_logits", "out_logits", "grad_out", "grad_unary", "spatial_weights",
             "bilateral_weights", "compatibility", "grad_spatial_weights",
             "grad_bilateral_weights", "grad_compatibility")}  # fmt: skip
    crf = CrfRnn(
        5,
        theta_alpha=30,
        theta_beta=12,
        theta_gamma=3,
        kernel_weights="matrix",
        normalization="after",
        num_iterations=4,
        spatial_filter=spatial_filter,  # type: ignore[arg-type]
    )
    parts = crf.potentials
    parts.weight("spatial").data = case["spatial_weights"].clone()
    parts.weight("bilateral").data = case["bilateral_weights"].clone()
    parts.compatibility.matrix.data = -case["compatibility"]  # that layer ADDS its messages
    unary = case["unary_logits"][None].clone().requires_grad_()
    out = crf(unary, case["image"].permute(2, 0, 1)[None])
    out.backward(case["grad_out"][None])
    pairs = {
        "output": (out[0], case["out_logits"]),
        "unary": (unary.grad[0], case["grad_unary"]),  # type: ignore[index]
        "spatial": (parts.weight("spatial").grad, case["grad_spatial_weights"]),
        "bilateral": (
            parts.weight("bilateral").grad,
            case["grad_bilateral_weights"],
        ),
        "compatibility": (-parts.compatibility.matrix.grad, case["grad_compatibility"]),  # type: ignore[operator]
    }
    for name, (ours, theirs) in pairs.items():
        error = (ours - theirs).norm() / theirs.norm()
        assert error < 0.02, f"{name}: relative L2 {error:.4f}"


# invariants


def test_zero_weights_return_the_unary_exactly() -> None:
    unary, image = random_inputs()
    crf = CrfRnn(3, spatial_weight=0.0, bilateral_weight=0.0)
    assert torch.equal(crf(unary, image), unary)


def test_potts_equals_unary_plus_messages_up_to_a_constant() -> None:
    unary, image = random_inputs()
    crf = small_crf(kernel_weights="scalar", compatibility="potts", num_iterations=1)
    rows = unary.flatten(2).transpose(1, 2)
    q = rows.softmax(-1)
    spatial, bilateral = crf.potentials.build_kernels(image)
    expected = (
        rows
        + crf.potentials.weight("spatial") * spatial(q)
        + crf.potentials.weight("bilateral") * bilateral(q)
    )
    ours = crf(unary, image).flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours.softmax(-1), expected.softmax(-1))


def test_train_and_eval_have_their_own_iteration_counts() -> None:
    unary, image = random_inputs()
    crf = small_crf(num_iterations=1, num_iterations_eval=2, bilateral_filter="exact")
    for mode, count in ((True, 1), (False, 2)):
        expected = paper_equations(crf, unary, image, count)
        torch.testing.assert_close(crf.train(mode)(unary, image), expected)


def test_a_batch_is_each_image_alone() -> None:
    unary, image = (x.float() for x in random_inputs(batch=3))
    crf = small_crf().float()
    together = crf(unary, image)
    alone = torch.cat([crf(u[None], i[None]) for u, i in zip(unary, image, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-6)  # one float32 rounding


def test_permuting_labels_permutes_the_result() -> None:
    unary, image = random_inputs(num_labels=4)
    crf = CrfRnn(4, theta_alpha=3.0, kernel_weights="scalar").double()
    order = [2, 0, 3, 1]
    torch.testing.assert_close(crf(unary[:, order], image), crf(unary, image)[:, order])


def test_the_lattice_is_built_once_per_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Built once, it serves every iteration and the backward pass (22 builds in one package)."""
    builds: list[int] = []
    original = lattice.build_lattice

    def counting(features: Tensor, accuracy: LatticeAccuracy) -> tuple[lattice.Lattice, Tensor]:
        builds.append(1)
        return original(features, accuracy)

    monkeypatch.setattr(lattice, "build_lattice", counting)
    unary, image = random_inputs()
    CrfRnn(3, num_iterations=5)(unary.requires_grad_(), image).sum().backward()
    assert len(builds) == 1


def test_inputs_are_not_modified() -> None:
    unary, image = random_inputs()
    before = unary.clone(), image.clone()
    small_crf()(unary, image)
    assert torch.equal(unary, before[0])
    assert torch.equal(image, before[1])


# gradient


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("kernel_weights", ["scalar", "class", "matrix"])
@pytest.mark.parametrize("filters", [("exact", "exact"), ("separable", "lattice")])
def test_gradient(normalization: str, kernel_weights: str, filters: tuple[str, str]) -> None:
    unary, image = random_inputs(batch=1, height=3, width=4)
    crf = small_crf(
        normalization=normalization,
        kernel_weights=kernel_weights,
        num_iterations=3,
        spatial_filter=filters[0],
        bilateral_filter=filters[1],
        learn_unary_scale=True,
        learn_output_scale=True,
    )
    learnt = [p for p in crf.parameters() if p.requires_grad]
    assert len(learnt) == 5

    def layer(unary: Tensor, *_: Tensor) -> Tensor:
        return crf(unary, image)  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(layer, (unary.requires_grad_(), *learnt))


# layout and edges


def test_layout_does_not_matter() -> None:
    unary, image = random_inputs()
    crf = small_crf()
    channels_last = unary.to(memory_format=torch.channels_last)
    torch.testing.assert_close(crf(channels_last, image), crf(unary, image))
    expanded = image[:1].expand(2, -1, -1, -1)
    torch.testing.assert_close(crf(unary, expanded), crf(unary, expanded.contiguous()))


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 1, 4, 5), (2, 3, 1, 6)])
def test_edges(shape: tuple[int, ...]) -> None:
    unary = torch.randn(shape)
    image = torch.rand(shape[0], 3, *shape[2:]) * 255 + 0.5
    out = CrfRnn(shape[1])(unary, image.clamp(max=255))
    assert out.isfinite().all()


def test_a_constant_image_reduces_to_a_spatial_kernel() -> None:
    unary, _ = random_inputs()
    image = torch.full((2, 3, 7, 6), 90.0, dtype=torch.float64)
    options: dict[str, Any] = {"bilateral_filter": "exact", "theta_alpha": 1.5, "theta_gamma": 1.5}
    both = small_crf(**options)
    spatial, bilateral = both.potentials.build_kernels(image)
    rows = unary.flatten(2).transpose(1, 2)
    torch.testing.assert_close(spatial(rows), bilateral(rows), rtol=1e-12, atol=1e-12)


# parameters, state, repr


def test_param_groups_carry_the_recipe() -> None:
    groups = CrfRnn(3).param_groups(2.5e-8)
    assert [(g["name"], g["lr"]) for g in groups] == [
        ("crf_kernel_weights", pytest.approx(2.5e-4)),
        ("crf_compatibility", pytest.approx(2.5e-5)),
    ]
    assert [len(g["params"]) for g in groups] == [2, 1]
    fixed = CrfRnn(3, compatibility="potts").requires_grad_(requires_grad=True)
    assert [g["name"] for g in fixed.param_groups(1.0)] == ["crf_kernel_weights"]


@pytest.mark.parametrize("how", ["state_dict", "deepcopy", "pickle"])
def test_round_trip(how: str) -> None:
    unary, image = random_inputs()
    crf = small_crf(kernel_weights="matrix")
    roads: dict[str, Callable[[], CrfRnn]] = {
        "deepcopy": lambda: copy.deepcopy(crf),
        "state_dict": lambda: _loaded(crf),
        "pickle": lambda: _pickled(crf),
    }
    assert torch.equal(roads[how]()(unary, image), crf(unary, image))


def _loaded(crf: CrfRnn) -> CrfRnn:
    other = CrfRnn(3, kernel_weights="matrix").double()  # other widths: the state brings its own
    other.load_state_dict(crf.state_dict())
    return other


def _pickled(crf: CrfRnn) -> CrfRnn:
    buffer = io.BytesIO()
    torch.save(crf, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)  # type: ignore[no-any-return]


def test_presets_build() -> None:
    for name, published_setting in PRESETS.items():
        crf = CrfRnn.from_preset(name, 5)
        assert rounded(crf.potentials.theta_alpha) == published_setting.theta_alpha
        weight = crf.potentials.kernel_weight_matrices()["bilateral"]
        assert torch.equal(weight, published_setting.bilateral_weight * torch.eye(5))
    other = CrfRnn.from_preset("crf_rnn", 5, theta_alpha=7.0)
    assert rounded(other.potentials.theta_alpha) == 7.0


def test_repr() -> None:
    shown = repr(CrfRnn(5, bilateral_weight=4.5, compatibility="potts", learn_output_scale=True))
    for part in (
        "theta_position=80.0, theta_guide=13.0, filter_name='lattice'",
        "ClassWeight(5, value=4.5",
        "Potts(5",
        "normalization='symmetric'",
        "learn_output_scale=True",
    ):
        assert part in shown
