"""The layer: against the paper's equations written out."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crfrnn import PRESETS, CrfRnn
from crfrnn.filtering import NORMALIZATIONS
from crfrnn.frank_wolfe import FrankWolfe
from crfrnn.kernels import KernelConfig, rounded
from tests.crfrnn.small_layers import random_inputs, small_crf

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


def test_marginals_are_the_softmax_of_the_logits() -> None:
    unary, image = random_inputs()
    crf = small_crf()
    unary.requires_grad_()
    marginals, logits = crf.marginals(unary, image), crf(unary, image)
    torch.testing.assert_close(marginals, logits.softmax(1), rtol=1e-12, atol=1e-12)
    own, theirs = (
        torch.autograd.grad(q.square().sum(), unary) for q in (marginals, logits.softmax(1))
    )
    torch.testing.assert_close(own, theirs, rtol=1e-10, atol=1e-12)


def test_parameters_need_not_have_the_dtype_of_the_unary() -> None:
    double = CrfRnn(3).double()
    single, image = (x.float() for x in random_inputs())
    out = double(single, image)
    assert out.dtype == torch.float32
    # The parameters are numbers of float32 in both; rounding of the products mu W differs.
    torch.testing.assert_close(out, CrfRnn(3)(single, image), rtol=1e-5, atol=1e-5)


def test_computes_in_float32_inside_autocast() -> None:
    unary, image = (x.float() for x in random_inputs())
    crf = CrfRnn(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = crf(unary, image)
    assert torch.equal(inside, crf(unary, image))


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


# invariants


def test_train_and_eval_have_their_own_iteration_counts() -> None:
    unary, image = random_inputs()
    crf = small_crf(num_iterations=1, num_iterations_eval=2, bilateral_filter="exact")
    for mode, count in ((True, 1), (False, 2)):
        expected = paper_equations(crf, unary, image, count)
        torch.testing.assert_close(crf.train(mode)(unary, image), expected)


def test_permuting_labels_permutes_the_result() -> None:
    unary, image = random_inputs(num_labels=4)
    crf = CrfRnn(4, theta_alpha=3.0, kernel_weights="scalar").double()
    order = [2, 0, 3, 1]
    torch.testing.assert_close(crf(unary[:, order], image), crf(unary, image)[:, order])


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


def test_an_integer_step_is_a_number_to_start_from() -> None:
    crf = CrfRnn(3, learn_step=True, inference=FrankWolfe(step=1))
    assert crf.step_logit is not None
    assert crf.step_logit.shape == (5,)


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


def test_a_further_kernel_may_have_weights_of_another_form() -> None:
    """A context kernel: scalar weights elsewhere, its own a silent matrix that learns."""
    context = KernelConfig(6.0, weight=0.0, filter="separable", kernel_weights="matrix")
    options: dict[str, Any] = {"kernel_weights": "scalar", "compatibility": "potts"}
    unary, image = torch.randn(1, 3, 9, 8), torch.rand(1, 3, 9, 8) * 255
    crf = CrfRnn(3, further_kernels={"context": context}, **options)
    assert crf.potentials.weight("context").shape == (3, 3)
    assert crf.potentials.weight("bilateral").ndim == 0
    assert torch.equal(crf(unary, image), CrfRnn(3, **options)(unary, image))
    crf(unary, image).square().sum().backward()
    grad = crf.potentials.weight("context").grad
    assert grad is not None
    assert grad.count_nonzero() == 9
    groups = {g["name"]: g for g in crf.param_groups(1.0, further_multiplier=7.0)}
    assert groups["crf_further_weights"]["lr"] == 7.0
    (weight,) = groups["crf_further_weights"]["params"]
    assert weight is crf.potentials.weight("context")
    listed = [p for group in groups.values() for p in group["params"]]
    assert len(listed) == len({id(p) for p in listed}) == len(list(crf.parameters()))
    other: Any = "vector"
    with pytest.raises(ValueError, match="kernel_weights of kernel 'context'"):
        CrfRnn(3, further_kernels={"context": replace(context, kernel_weights=other)})
