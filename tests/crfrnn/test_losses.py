"""The regularised losses: against their sums over pixel pairs written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crfrnn.filters import NORMALIZATIONS, ExactFilter
from crfrnn.losses import DenseCrfLoss, dense_crf_loss, normalized_cut_loss
from tests.crfrnn.problems import LearntKernel, random_inputs, softmax, written_kernel

every_form = pytest.mark.parametrize("form", ["dense_crf", "normalized_cut"])
every_kind = pytest.mark.parametrize(
    ("form", "normalization", "method"),
    [
        ("dense_crf", "before", "lattice"),
        ("dense_crf", "symmetric", "exact"),
        ("normalized_cut", "none", "lattice"),
        ("normalized_cut", "after", "exact"),
    ],
)


def masked_inputs(*sizes: int) -> tuple[Tensor, Tensor, Tensor]:
    logits, image = random_inputs(*(sizes or (2, 3, 5, 4)))
    mask = torch.rand(image[:, 0].shape, generator=torch.Generator().manual_seed(0)) > 0.3
    return logits, image, mask


def small_loss(form: Any = "dense_crf", **options: Any) -> DenseCrfLoss:
    widths = {"theta_alpha": 3.0, "theta_beta": 60.0}  # fit a 5 x 4 image
    return DenseCrfLoss(form, **(widths | {"method": "exact"} | options))


def test_reductions_half_precision_and_autocast() -> None:
    logits, image, mask = masked_inputs(3, 3, 5, 4)
    each, total, mean = (
        small_loss(reduction=r)(logits, image, mask) for r in ("none", "sum", "mean")
    )
    assert torch.equal(each.sum(), total)
    assert torch.equal(each.mean(), mean)
    loss, half, whole = small_loss(), logits.half(), image.to(torch.uint8)
    expected = loss(half.float(), whole)
    assert torch.equal(loss(half, whole), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(half.float(), whole), expected)


def written_out(loss: DenseCrfLoss, logits: Tensor, image: Tensor, mask: Tensor) -> list[float]:
    """Both losses by the matrix K over all pairs of valid pixels; invalid ones do not exist."""
    out = []
    alpha, beta = (loss.kernel.log_theta(of).exp().item() for of in ("position", "guide"))
    for u, picture, valid in zip(logits.numpy(), image.numpy(), mask.numpy(), strict=True):
        s = softmax(u[:, valid].T).T  # (L, N)
        features = np.concatenate([np.argwhere(valid) / alpha, picture[:, valid].T / beta], 1)[None]
        kernel = written_kernel(features, loss.normalization)[0]
        cuts = np.array([s_l @ kernel @ (1 - s_l) for s_l in s])
        each = cuts / (len(kernel) if loss.form == "dense_crf" else s @ kernel.sum(1))
        out.append(each.sum())
    return out


@every_form
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_equals_the_sums_over_pairs(form: str, normalization: str) -> None:
    logits, image, mask = masked_inputs()
    loss = small_loss(form, normalization=normalization, reduction="none")
    for given in (mask, None):
        valid = torch.ones_like(mask) if given is None else given
        expected = logits.new_tensor(written_out(loss, logits, image, valid))
        # float64 and a few hundred terms a sum: rounding only.
        torch.testing.assert_close(loss(logits, image, given), expected, rtol=1e-10, atol=1e-10)


@every_form
def test_default_normalization_makes_lattice_and_exact_agree(form: str) -> None:
    """The raw lattice carries an arbitrary factor; what is left is its method error."""
    coarse = torch.rand(1, 6, 4, 4, generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.interpolate(coarse, size=(24, 24), mode="bilinear")
    image, logits = smooth[:, :3] * 255, smooth[:, 3:] * 6
    exact, lattice = (
        small_loss(form, method=method, theta_alpha=12.0, theta_beta=40.0)(logits, image)
        for method in ("exact", "lattice")
    )
    # Method error, measured 0.8 % here: that of the messages, averaged over pixels.
    torch.testing.assert_close(lattice, exact, rtol=0.03, atol=0)


@every_kind
def test_what_is_masked_neither_sends_nor_receives(form, normalization, method) -> None:
    """Not one bit depends on it, no gradient reaches it, and an image of it alone is free."""
    logits, image, mask = masked_inputs()
    mask[0] = False
    loss = small_loss(form, method=method, normalization=normalization, reduction="none")
    each = loss(logits.requires_grad_(), image, mask)
    (grad,) = torch.autograd.grad(each.sum(), logits)
    hidden = ~mask[:, None]
    assert torch.equal(loss(logits.where(~hidden, 7.0), image.where(~hidden, 255.0), mask), each)
    assert each[0] == 0
    assert each[1] > 0
    assert not grad[hidden.expand_as(grad)].any()
    assert grad[~hidden.expand_as(grad)].abs().amin() > 0


@pytest.mark.parametrize("loss", [dense_crf_loss, normalized_cut_loss])
def test_a_mask_leaves_pixels_out_of_a_kernel_without_one(loss: Any) -> None:
    features, q = torch.rand(1, 6, 2).double(), torch.rand(1, 6, 3).double().softmax(-1)
    valid = torch.tensor([[True, True, True, True, False, False]])
    alone = loss(q[:, :4], ExactFilter(features[:, :4]))
    # float64 rounding of a few dozen terms.
    torch.testing.assert_close(loss(q, ExactFilter(features), valid), alone, rtol=1e-12, atol=0)


@every_kind
def test_gradient(form: str, normalization: str, method: str) -> None:
    """Of the logits, and through the exact kernel of the image, here in units of 255."""
    logits, image, mask = masked_inputs(2, 2, 2, 3)
    mask[:, 0, 1] = False
    loss = small_loss(form, normalization=normalization, method=method, reduction="sum")
    inputs = logits.requires_grad_(), (image / 255).requires_grad_(method == "exact")
    assert torch.autograd.gradcheck(lambda u, i: loss(u, 255 * i, mask), inputs)


@pytest.mark.parametrize("loss", [dense_crf_loss, normalized_cut_loss])
def test_the_gradient_is_that_of_an_asymmetric_kernel(loss: Any) -> None:
    """Of S' K (1 - S): d - K S - K' S, not d - 2 K S."""
    matrix = torch.rand(2, 6, 6, dtype=torch.float64)
    q = torch.rand(2, 6, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda q: loss(q, LearntKernel(matrix)), (q,))


@every_form
def test_one_pixel_one_label_one_colour_and_an_absent_label(form: str) -> None:
    loss, grey = small_loss(form, method="lattice"), torch.full((1, 3, 4, 4), 90.0)
    assert loss(torch.randn(1, 3, 1, 1), grey[..., :1, :1]).isfinite()
    # Nobody disagrees: what is left is the float32 rounding of d - K 1.
    assert loss(torch.randn(2, 1, 3, 4), torch.rand(2, 3, 3, 4) * 200 + 20).abs() < 1e-5
    assert loss(torch.randn(1, 3, 4, 4), grey) > 0
    q = torch.eye(3)[[0, 0, 1, 1]][None].requires_grad_()
    kernel = ExactFilter(torch.arange(4.0)[None, :, None])
    (grad,) = torch.autograd.grad(normalized_cut_loss(q, kernel).sum(), q)
    assert not grad[..., 2].any()
    assert grad[..., :2].any()
