"""The layer: against the paper's equations written out."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crfrnn import PRESETS, CrfRnn, refine
from crfrnn import densecrf as dcrf
from crfrnn.filters import Normalization
from crfrnn.frank_wolfe import FrankWolfe
from crfrnn.kernels import KernelConfig, rounded
from tests.crfrnn.problems import random_inputs, small_crf, written_layer

# dtypes, and the marginals


def test_half_precision_autocast_and_parameters_of_another_dtype() -> None:
    unary, image = (x.float() for x in random_inputs())
    crf = CrfRnn(3)
    for half in (unary.half(), unary.bfloat16()):
        assert torch.equal(crf(half, image), crf(half.float(), image).to(half.dtype))
    expected = crf(unary, image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(crf(unary, image), expected)
    # The parameters are numbers of float32 in both; rounding of the products mu W differs.
    torch.testing.assert_close(crf.double()(unary, image), expected, rtol=1e-5, atol=1e-5)


def test_marginals_are_the_softmax_of_the_logits() -> None:
    unary, image = random_inputs()
    crf = small_crf()
    unary.requires_grad_()
    marginals, expected = crf.marginals(unary, image), crf(unary, image).softmax(1)
    torch.testing.assert_close(marginals, expected, rtol=1e-12, atol=1e-12)
    own, theirs = (torch.autograd.grad(q.square().sum(), unary) for q in (marginals, expected))
    torch.testing.assert_close(own, theirs, rtol=1e-10, atol=1e-12)


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
    assert (crf.num_iterations, crf.num_iterations_eval) == (2, 4)
    for training in (True, False):
        crf.train(training)
        # float64 and a few dozen terms a sum: rounding only.
        expected = written_layer(crf, unary, image)
        torch.testing.assert_close(crf(unary, image), expected, rtol=1e-10, atol=1e-10)


def test_training_mixes_the_unary_in() -> None:
    unary, image = random_inputs()
    crf = small_crf(num_iterations_eval=5, unary_mixture=0.3)
    q = crf.eval()(unary, image).softmax(1)
    mixed = crf.train()(unary, image).softmax(1)
    expected = 0.7 * q + 0.3 * unary.softmax(1)
    torch.testing.assert_close(mixed, expected, rtol=1e-12, atol=1e-12)  # rounding


def test_presets_build_and_param_groups_carry_the_recipe() -> None:
    for name, published_setting in PRESETS.items():
        crf = CrfRnn.from_preset(name, 5)
        assert rounded(crf.potentials.theta_alpha) == published_setting.theta_alpha
        weight = crf.potentials.kernel_weight_matrices()["bilateral"]
        assert torch.equal(weight, published_setting.bilateral_weight * torch.eye(5))
    groups = CrfRnn(3).param_groups(2.5e-8)
    assert [(g["name"], g["lr"], len(g["params"])) for g in groups] == [
        ("crf_kernel_weights", pytest.approx(2.5e-4), 2),
        ("crf_compatibility", pytest.approx(2.5e-5), 1),
    ]
    fixed = CrfRnn(3, compatibility="potts").requires_grad_(requires_grad=True)
    assert [g["name"] for g in fixed.param_groups(1.0)] == ["crf_kernel_weights"]
    step_logit: Any = CrfRnn(3, learn_step=True, inference=FrankWolfe(step=1)).step_logit
    assert step_logit.shape == (5,)


def test_a_state_or_a_copy_brings_everything() -> None:
    unary, image = random_inputs()
    crf = small_crf(kernel_weights="matrix")
    loaded = CrfRnn(3, kernel_weights="matrix").double()  # other widths: the state brings its own
    loaded.load_state_dict(crf.state_dict())
    for other in (loaded, copy.deepcopy(crf)):
        assert torch.equal(other(unary, image), crf(unary, image))


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


# labels that no pixel gives a chance


LABELS, FLOOR = 12, 1e-3


def problem(batch: int = 2) -> tuple[Tensor, Tensor]:
    """Logits of which each image has five likely labels of its own, and an image with edges."""
    unary = 2 * torch.randn(batch, LABELS, 20, 24)
    for b in range(batch):
        for label in range(LABELS):
            if (label - b) % LABELS >= 5:
                unary[b, label] = -12 + torch.rand(20, 24)
    blocks = 255 * torch.rand(batch, 3, 4, 4)
    return unary, blocks.repeat_interleave(5, 2).repeat_interleave(6, 3)


def layer(normalization: Normalization = "after", **options: Any) -> CrfRnn:
    everything: dict[str, Any] = {
        "theta_alpha": 10.0, "bilateral_weight": 4.0, "spatial_weight": 1.0,
        "kernel_weights": "scalar", "compatibility": "potts", "normalization": normalization,
    }  # fmt: skip
    return CrfRnn(LABELS, **everything | options).eval()


@torch.no_grad()
def test_what_is_left_out_could_not_have_passed_the_bound() -> None:
    """q_l <= eps exp(e w eps) in the whole problem, and others move by at most s e eps a step."""
    unary, image = problem()
    q, floored = (layer(label_floor=f)(unary, image).softmax(1) for f in (0.0, FLOOR))
    peak = unary.softmax(1).amax((2, 3))
    out = peak < FLOOR
    assert out.sum(1).tolist() == [7, 7]
    weight = 5.0
    bound = peak * math.exp(weight * math.e * FLOOR)
    assert (q.amax((2, 3)) <= bound)[out].all()
    assert (floored.amax((2, 3)) <= peak * (1 + 1e-4))[out].all()  # they keep their probability
    # Ten steps, each of which may carry what came before with w / 2; seen: 1e-4.
    assert (q - floored).abs().max() < 7 * math.e * FLOOR
    assert not torch.equal(q, floored)
    torch.testing.assert_close(floored.sum(1), torch.ones(2, 20, 24))


@pytest.mark.parametrize("normalization", ["symmetric", "before"])
def test_labels_are_those_of_the_whole_problem_and_of_an_image_its_own(normalization) -> None:
    unary, image = problem()
    whole, crf = (layer(normalization, label_floor=f) for f in (0.0, FLOOR))
    expected = whole(unary, image)
    assert torch.equal(crf(unary, image), expected), "with a gradient, of the whole problem"
    with torch.no_grad():
        both = crf(unary, image)
        assert torch.equal(expected.argmax(1), both.argmax(1))
        for b in range(2):
            alone = crf(unary[b : b + 1], image[b : b + 1])
            # A softmax over more labels, with zeros, sums in another order.
            torch.testing.assert_close(both[b : b + 1], alone, rtol=1e-5, atol=1e-4)
        assert torch.equal(crf.train()(unary, image), whole.train()(unary, image))


def test_the_drop_in_and_refine() -> None:
    unary, image = problem(1)
    p = unary.softmax(1)[0].numpy()
    rgb = image[0].permute(1, 2, 0).numpy().astype(np.uint8)
    marginals = []
    for floor in (0.0, FLOOR):
        d = dcrf.DenseCRF2D(24, 20, LABELS, label_floor=floor)
        d.setUnaryEnergy(dcrf.unary_from_softmax(p))
        d.addPairwiseBilateral(10, 13, rgb, 4)
        marginals.append(d.inference(10))
    assert 0 < np.abs(marginals[0] - marginals[1]).max() < 7 * math.e * FLOOR
    by_default, whole = (refine(p, rgb, output="mask", label_floor=f) for f in (None, 0.0))
    np.testing.assert_array_equal(by_default, whole)
    q, floored = (refine(p, rgb, label_floor=f) for f in (None, FLOOR))
    assert not np.array_equal(q, floored)


def test_a_fresh_network_is_warned_of_and_from_scratch_is_near_log_labels() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 6, 8), dtype=torch.uint8)
    images = images.repeat_interleave(8, 2).repeat_interleave(8, 3)  # patches
    unary = torch.nn.Conv2d(3, 3, 3, padding=1)(images / 127.5 - 1)
    truth = torch.randint(0, 3, (2, 48, 64))

    def loss(crf: CrfRnn) -> float:
        return torch.nn.functional.cross_entropy(crf(unary, images), truth).item()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scratch = CrfRnn.from_scratch(3)
        assert loss(scratch) == pytest.approx(math.log(3), rel=0.15)
        loss(CrfRnn(3).eval())
    assert scratch.log_output_scale.requires_grad
    assert CrfRnn.from_scratch(3, bilateral_weight=0.5).potentials.weight("bilateral")[0] == 0.5
    published = CrfRnn(3)
    with pytest.warns(UserWarning, match=r"from_scratch\(3\)") as seen:
        assert loss(published) > 4
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(published)  # once
        sure = 8 * torch.eye(3)[truth].permute(0, 3, 1, 2)
        CrfRnn(3)(sure, images)  # a network that knows
