"""The layer: against the paper's equations written out."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crfrnn import PRESETS, CrfRnn
from crfrnn.frank_wolfe import FrankWolfe
from crfrnn.kernels import KernelConfig, rounded
from tests.crfrnn.problems import random_inputs, small_crf, written_kernel, written_mean_field

# dtypes, and the marginals


def test_half_precision_goes_in_and_out_alone() -> None:
    unary, image = random_inputs()
    half, crf = unary.half(), CrfRnn(3)
    assert torch.equal(crf(half, image), crf(half.float(), image).half())


def test_computes_in_float32_inside_autocast() -> None:
    unary, image = (x.float() for x in random_inputs())
    crf = CrfRnn(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = crf(unary, image)
    assert torch.equal(inside, crf(unary, image))


def test_parameters_need_not_have_the_dtype_of_the_unary() -> None:
    single, image = (x.float() for x in random_inputs())
    out = CrfRnn(3).double()(single, image)
    # The parameters are numbers of float32 in both; rounding of the products mu W differs.
    torch.testing.assert_close(out, CrfRnn(3)(single, image), rtol=1e-5, atol=1e-5)


def test_marginals_are_the_softmax_of_the_logits() -> None:
    unary, image = random_inputs()
    crf = small_crf()
    unary.requires_grad_()
    marginals, expected = crf.marginals(unary, image), crf(unary, image).softmax(1)
    torch.testing.assert_close(marginals, expected, rtol=1e-12, atol=1e-12)
    own, theirs = (torch.autograd.grad(q.square().sum(), unary) for q in (marginals, expected))
    torch.testing.assert_close(own, theirs, rtol=1e-10, atol=1e-12)


# oracle


def paper_equations(crf: CrfRnn, unary: Tensor, image: Tensor, num_iterations: int) -> Tensor:
    """The kernels of the image, and the update, as sums over pixel pairs in NumPy."""
    parts = crf.potentials
    alpha, beta, gamma = (getattr(parts, f"theta_{x}").item() for x in ("alpha", "beta", "gamma"))
    place = np.argwhere(np.ones(unary.shape[2:]))[None].repeat(len(unary), 0)
    colours = image.flatten(2).transpose(1, 2).numpy()
    bilateral = np.concatenate([place / alpha, colours / beta], axis=2)
    dense = [written_kernel(f, parts.normalization) for f in (place / gamma, bilateral)]
    sets = (-1, crf.num_labels, crf.num_labels)  # one matrix, or one for each iteration
    weights = [w.numpy().reshape(sets) for w in parts.kernel_weight_matrices().values()]
    mu = parts.compatibility().detach().numpy().reshape(sets)
    pairwise = [[m @ w for w in ws] for m, *ws in zip(mu, *weights, strict=True)]
    rows = unary.flatten(2).transpose(1, 2).numpy() * crf.log_unary_scale.exp().item()
    logits = written_mean_field(rows, dense, pairwise, num_iterations)
    logits = logits * crf.log_output_scale.exp().item()
    return torch.from_numpy(logits).transpose(1, 2).reshape(unary.shape)


@pytest.mark.parametrize(
    "options",
    [
        {"normalization": "none", "kernel_weights": "scalar", "spatial_filter": "exact"},
        {"normalization": "before", "kernel_weights": "class", "spatial_filter": "separable"},
        {"normalization": "after", "kernel_weights": "matrix", "spatial_filter": "exact"},
        {"normalization": "symmetric", "kernel_weights": "matrix"},
        {"untied": True},
        {"unary_scale": 0.5, "output_scale": 2.0},
    ],
    ids=str,
)
def test_equals_the_paper(options: dict[str, Any]) -> None:
    """In train mode, and in eval mode with more iterations than sets."""
    unary, image = random_inputs()
    crf = small_crf(bilateral_filter="exact", num_iterations=2, num_iterations_eval=4, **options)
    for training, count in ((True, 2), (False, 4)):
        # float64 and a few dozen terms a sum: rounding only.
        expected = paper_equations(crf, unary, image, count)
        ours = crf.train(training)(unary, image)
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


def test_training_mixes_the_unary_in() -> None:
    unary, image = random_inputs()
    crf = small_crf(num_iterations_eval=5, unary_mixture=0.3)
    q = crf.eval()(unary, image).softmax(1)
    mixed = crf.train()(unary, image).softmax(1)
    expected = 0.7 * q + 0.3 * unary.softmax(1)
    torch.testing.assert_close(mixed, expected, rtol=1e-12, atol=1e-12)  # rounding


# parameters, state, repr


def test_param_groups_carry_the_recipe() -> None:
    groups = CrfRnn(3).param_groups(2.5e-8)
    assert [(g["name"], g["lr"], len(g["params"])) for g in groups] == [
        ("crf_kernel_weights", pytest.approx(2.5e-4), 2),
        ("crf_compatibility", pytest.approx(2.5e-5), 1),
    ]
    fixed = CrfRnn(3, compatibility="potts").requires_grad_(requires_grad=True)
    assert [g["name"] for g in fixed.param_groups(1.0)] == ["crf_kernel_weights"]


def test_an_integer_step_is_a_number_to_start_from() -> None:
    step_logit: Any = CrfRnn(3, learn_step=True, inference=FrankWolfe(step=1)).step_logit
    assert step_logit.shape == (5,)


def test_a_state_or_a_copy_brings_everything() -> None:
    unary, image = random_inputs()
    crf = small_crf(kernel_weights="matrix")
    loaded = CrfRnn(3, kernel_weights="matrix").double()  # other widths: the state brings its own
    loaded.load_state_dict(crf.state_dict())
    for other in (loaded, copy.deepcopy(crf)):
        assert torch.equal(other(unary, image), crf(unary, image))


def test_presets_build() -> None:
    for name, published_setting in PRESETS.items():
        crf = CrfRnn.from_preset(name, 5)
        assert rounded(crf.potentials.theta_alpha) == published_setting.theta_alpha
        weight = crf.potentials.kernel_weight_matrices()["bilateral"]
        assert torch.equal(weight, published_setting.bilateral_weight * torch.eye(5))


def test_repr_shows_every_part() -> None:
    shown = repr(CrfRnn(5, bilateral_weight=4.5, compatibility="potts", learn_output_scale=True))
    for part in (
        "theta_position=80.0, theta_guide=13.0, filter_name='lattice'", "ClassWeight(5, value=4.5",
        "Potts(5", "normalization='symmetric'", "learn_output_scale=True",
    ):  # fmt: skip
        assert part in shown


def test_a_further_kernel_may_have_weights_of_another_form() -> None:
    """A context kernel: scalar weights elsewhere, its own a silent matrix that learns."""
    context = KernelConfig(6.0, weight=0.0, filter="separable", kernel_weights="matrix")
    options: dict[str, Any] = {"kernel_weights": "scalar", "compatibility": "potts"}
    unary, image = torch.randn(1, 3, 9, 8), torch.rand(1, 3, 9, 8) * 255
    crf = CrfRnn(3, further_kernels={"context": context}, **options)
    weight: Any = crf.potentials.weight("context")
    assert torch.equal(crf(unary, image), CrfRnn(3, **options)(unary, image))
    crf(unary, image).square().sum().backward()
    assert weight.grad.count_nonzero() == 9
    groups = {g["name"]: g for g in crf.param_groups(1.0, further_multiplier=7.0)}
    assert groups["crf_further_weights"]["lr"] == 7.0
    assert groups["crf_further_weights"]["params"] == [weight]
    assert sum(len(group["params"]) for group in groups.values()) == len(list(crf.parameters()))
