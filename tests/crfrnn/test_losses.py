"""The regularised losses: against their sums over pixel pairs written out, and what they prefer."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crfrnn.filtering import NORMALIZATIONS, ExactFilter
from crfrnn.losses import DenseCrfLoss, dense_crf_loss, normalized_cut_loss
from tests.crfrnn.problems import LearntKernel

FORMS = ["dense_crf", "normalized_cut"]
PAIRWISE = [
    ("dense_crf", "none", "exact"),
    ("dense_crf", "before", "lattice"),
    ("dense_crf", "after", "exact"),
    ("dense_crf", "symmetric", "lattice"),
    ("normalized_cut", "none", "lattice"),
    ("normalized_cut", "after", "lattice"),
    ("normalized_cut", "symmetric", "exact"),
]
WIDTHS: dict[str, Any] = {"theta_alpha": 3.0, "theta_beta": 60.0}  # fit a 5 x 4 image


def random_inputs(
    batch: int = 2, labels: int = 3, height: int = 5, width: int = 4
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, labels, height, width, generator=generator, dtype=torch.float64)
    image = torch.rand(batch, 3, height, width, generator=generator, dtype=torch.float64) * 255
    mask = torch.rand(batch, height, width, generator=generator) > 0.3
    return logits, image, mask


def small_loss(form: Any = "dense_crf", **options: Any) -> DenseCrfLoss:
    return DenseCrfLoss(form, **(WIDTHS | {"method": "exact"} | options))


# shape


@pytest.mark.parametrize("method", ["lattice", "exact"])
def test_shape_dtype_and_reductions(method: str) -> None:
    logits, image, mask = random_inputs(batch=3)
    each, total, mean = (
        small_loss(method=method, reduction=r)(logits, image, mask) for r in ("none", "sum", "mean")
    )
    assert each.shape == (3,)
    assert each.dtype == torch.float64
    assert torch.equal(each.sum(), total)
    assert torch.equal(each.mean(), mean)
    assert small_loss(method=method)(logits.half(), image.to(torch.uint8)).dtype == torch.float32


def test_computes_in_float32_inside_autocast() -> None:
    logits, image, _ = (x.float() for x in random_inputs())
    loss = small_loss()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(logits, image)
    assert torch.equal(inside, loss(logits, image))


# oracle


def written_out(loss: DenseCrfLoss, logits: Tensor, image: Tensor, mask: Tensor) -> list[float]:
    """Both losses with every pair of valid pixels in a Python loop; invalid ones do not exist."""
    out = []
    for u, picture, valid in zip(logits.numpy(), image.numpy(), mask.numpy(), strict=True):
        place = np.argwhere(valid)
        colour = picture[:, valid].T
        s = np.exp(u[:, valid]) / np.exp(u[:, valid]).sum(0)  # (L, N)
        n = len(place)
        kernel = np.zeros((n, n))
        alpha, beta = (loss.kernel.log_theta(of).exp().item() for of in ("position", "guide"))
        for i, j in itertools.product(range(n), repeat=2):
            kernel[i, j] = np.exp(
                -((place[i] - place[j]) ** 2).sum() / (2 * alpha**2)
                - ((colour[i] - colour[j]) ** 2).sum() / (2 * beta**2)
            )
        degree = kernel.sum(1)
        if loss.normalization == "symmetric":
            kernel = kernel / np.sqrt(degree[:, None] * degree)
        elif loss.normalization == "after":
            kernel = kernel / degree[:, None]
        elif loss.normalization == "before":
            kernel = kernel / degree
        value = 0.0
        for s_l in s:
            cut = sum(
                s_l[i] * kernel[i, j] * (1 - s_l[j])
                for i, j in itertools.product(range(n), repeat=2)
            )
            value += cut / n if loss.form == "dense_crf" else cut / (s_l @ kernel.sum(1))
        out.append(value)
    return out


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_equals_the_sums_over_pairs(form: str, normalization: str) -> None:
    logits, image, mask = random_inputs()
    loss = small_loss(form, normalization=normalization, reduction="none")
    for given in (mask, None):
        valid = torch.ones_like(mask) if given is None else given
        expected = logits.new_tensor(written_out(loss, logits, image, valid))
        ours = loss(logits, image, given)
        # float64 and a few hundred terms a sum: rounding only.
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


def test_a_hand_checked_table() -> None:
    """Two equal pixels, K all ones: 2 ordered pairs of 4 disagree, so 2 labels x 1 / 2 pixels."""
    kernel = ExactFilter(torch.zeros(1, 2, 1))
    apart, together = torch.eye(2)[None], torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    undecided = torch.full((1, 2, 2), 0.5)
    assert dense_crf_loss(apart, kernel).item() == 1.0
    assert dense_crf_loss(together, kernel).item() == 0.0
    assert dense_crf_loss(undecided, kernel).item() == 1.0
    assert normalized_cut_loss(apart, kernel).item() == 1.0  # 1 / 2 for each label
    assert normalized_cut_loss(together, kernel).item() == 0.0  # the absent label pays nothing


@pytest.mark.parametrize("form", FORMS)
def test_default_normalization_makes_lattice_and_exact_agree(form: str) -> None:
    """The raw lattice carries an arbitrary factor; what is left is its method error."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(1, 6, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(24, 24), mode="bilinear")
    image, logits = smooth[:, :3] * 255, smooth[:, 3:] * 6
    options: dict[str, Any] = {"theta_alpha": 12.0, "theta_beta": 40.0}
    exact, lattice = (
        DenseCrfLoss(form, method=m, **options)(logits, image)  # type: ignore[arg-type]
        for m in ("exact", "lattice")
    )
    # Method error, measured 0.8 % here: that of the messages, averaged over pixels.
    torch.testing.assert_close(lattice, exact, rtol=0.03, atol=0)


# invariants


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["lattice", "exact"])
def test_a_segmentation_on_the_edge_costs_less(form: Any, method: Any) -> None:
    """A step edge at column 8; the boundary of the segmentation moves away from it."""
    columns = torch.arange(16)
    image = (columns >= 8).float().mul(200).add(20).expand(1, 3, 12, 16)
    loss = DenseCrfLoss(form, theta_alpha=8.0, theta_beta=20.0, method=method)

    def cost(boundary: int) -> float:
        right = (columns >= boundary).float().mul(10).sub(5).expand(1, 1, 12, 16)
        return float(loss(torch.cat([-right, right], 1), image))

    assert cost(8) < cost(9) < cost(11)
    assert cost(8) < cost(7) < cost(5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["lattice", "exact"])
def test_invalid_pixels_neither_send_nor_receive(form: str, method: str) -> None:
    """Not one bit depends on what they hold, and no gradient reaches them."""
    logits, image, mask = random_inputs()
    loss = small_loss(form, method=method)
    logits.requires_grad_()
    value = loss(logits, image, mask)
    (grad,) = torch.autograd.grad(value, logits)
    hidden = ~mask[:, None]
    other = loss(logits.where(~hidden, 7.0), image.where(~hidden, 255.0), mask)
    assert torch.equal(other, value)
    assert not grad[hidden.expand_as(grad)].any()
    assert grad[~hidden.expand_as(grad)].abs().amin() > 0


@pytest.mark.parametrize("loss", [dense_crf_loss, normalized_cut_loss])
def test_a_mask_leaves_pixels_out_of_a_kernel_without_one(loss: Any) -> None:
    features = torch.rand(1, 6, 2, dtype=torch.float64)
    q = torch.rand(1, 6, 3, dtype=torch.float64).softmax(-1)
    valid = torch.tensor([[True, True, True, True, False, False]])
    alone = loss(q[:, :4], ExactFilter(features[:, :4]))
    # float64 rounding of a few dozen terms.
    torch.testing.assert_close(loss(q, ExactFilter(features), valid), alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("form", "normalization", "method"), PAIRWISE)
def test_an_image_without_a_valid_pixel_costs_nothing(
    form: str, normalization: str, method: str
) -> None:
    logits, image, mask = random_inputs()
    mask[0] = False
    logits.requires_grad_()
    loss = small_loss(form, method=method, normalization=normalization, reduction="none")
    each = loss(logits, image, mask)
    (grad,) = torch.autograd.grad(each.sum(), logits)
    assert each[0] == 0
    assert each[1] > 0
    assert not grad[0].any()
    assert grad.isfinite().all()


# gradient


@pytest.mark.parametrize(("form", "normalization", "method"), PAIRWISE)
def test_gradient(form: str, normalization: str, method: str) -> None:
    """Of the logits, and through the exact kernel of the image, here in units of 255."""
    logits, image, mask = random_inputs(labels=2, height=2, width=3)
    mask[:, 0, 1] = False
    loss = small_loss(form, normalization=normalization, method=method, reduction="sum")
    picture = (image / 255).requires_grad_(method == "exact")
    inputs = logits.requires_grad_(), picture
    assert torch.autograd.gradcheck(lambda u, i: loss(u, 255 * i, mask), inputs)


def test_the_gradient_is_that_of_an_asymmetric_kernel() -> None:
    """Of S' K (1 - S): d - K S - K' S, not d - 2 K S."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.rand(2, 6, 6, generator=generator, dtype=torch.float64)
    q = torch.rand(2, 6, 3, generator=generator, dtype=torch.float64).requires_grad_()
    (grad,) = torch.autograd.grad(dense_crf_loss(q, LearntKernel(matrix)).sum(), q)
    s = q.detach()
    expected = (matrix.sum(2, keepdim=True) - matrix @ s - matrix.mT @ s) / 6
    torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-12)  # float64 rounding
    for loss in (dense_crf_loss, normalized_cut_loss):
        assert torch.autograd.gradcheck(lambda q, f=loss: f(q, LearntKernel(matrix)), (q,))


def test_an_absent_label_gets_no_gradient() -> None:
    q = torch.eye(3, dtype=torch.float64)[[0, 0, 1, 1]][None].requires_grad_()  # label 2: absent
    kernel = ExactFilter(torch.arange(4.0).double()[None, :, None])
    (grad,) = torch.autograd.grad(normalized_cut_loss(q, kernel).sum(), q)
    assert grad.isfinite().all()
    assert not grad[..., 2].any()
    assert grad[..., :2].any()


# layout, edges, repr


def test_layout_does_not_matter() -> None:
    logits, image, mask = random_inputs()
    loss = small_loss()
    expected = loss(logits, image, mask)
    channels_last = logits.to(memory_format=torch.channels_last)
    transposed = image.mT.contiguous().mT, mask.mT.contiguous().mT
    torch.testing.assert_close(loss(channels_last, *transposed), expected)
    expanded = image[:1].expand(2, -1, -1, -1), mask[:1].expand(2, -1, -1)
    copied = (x.contiguous() for x in expanded)
    torch.testing.assert_close(loss(logits, *expanded), loss(logits, *copied))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["lattice", "exact"])
def test_a_batch_is_each_image_alone(form: str, method: str) -> None:
    logits, image, mask = random_inputs(batch=3)
    loss = small_loss(form, method=method, reduction="none")
    alone = [loss(*(x[i : i + 1] for x in (logits, image, mask))) for i in range(3)]
    # float64 rounding: the sums run over differently shaped tensors.
    torch.testing.assert_close(loss(logits, image, mask), torch.cat(alone), rtol=1e-12, atol=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["lattice", "exact"])
def test_edges(form: str, method: str) -> None:
    one_pixel = torch.randn(1, 3, 1, 1), torch.full((1, 3, 1, 1), 90.0)
    assert small_loss(form, method=method)(*one_pixel).isfinite()
    one_label = torch.randn(2, 1, 3, 4), torch.rand(2, 3, 3, 4) * 200 + 20
    # Nobody disagrees: what is left is the float32 rounding of d - K 1.
    assert small_loss(form, method=method)(*one_label).abs() < 1e-5
    constant = torch.randn(1, 3, 4, 4), torch.full((1, 3, 4, 4), 90.0)
    assert small_loss(form, method=method)(*constant) > 0


def test_repr() -> None:
    shown = repr(DenseCrfLoss())
    assert shown.startswith(
        "DenseCrfLoss(\n  'dense_crf', normalization='symmetric', reduction='mean'"
    )
    assert "theta_position=100.0, theta_guide=15.0, filter_name='lattice'" in shown
    assert DenseCrfLoss("normalized_cut").normalization == "none"
