"""The loss: its terms, its weights, and the labels of every scale of an input pyramid."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from data import VOID
from models import ScaleLogits, SegmenterOutput
from train.objective import LossConfig, loss_terms, scale_labels


@pytest.fixture
def masks() -> torch.Tensor:
    return torch.randint(0, 3, (2, 40, 30), generator=torch.Generator().manual_seed(0))


def test_every_scale_has_a_loss_of_equal_weight(masks) -> None:
    """DeepLab v2: the losses of the scales and of their maximum are added."""
    unary = torch.randn(2, 3, 40, 30)
    scales = (ScaleLogits(torch.randn(2, 3, 3, 2), 16), ScaleLogits(torch.randn(2, 3, 5, 4), 8))
    terms = loss_terms(SegmenterOutput(unary, None, scales), masks, LossConfig(unary=0.0))
    expected = F.cross_entropy(unary, masks)
    expected = expected + F.cross_entropy(scales[0].logits, masks[:, ::16, ::16])
    expected = expected + F.cross_entropy(scales[1].logits, masks[:, ::8, ::8])
    torch.testing.assert_close(terms["loss"], expected)
    assert terms["loss_unary"] is terms["loss"]


def test_behind_a_crf_the_scales_belong_to_the_unary_term(masks) -> None:
    unary, crf = torch.randn(2, 3, 40, 30), torch.randn(2, 3, 40, 30)
    scales = (ScaleLogits(torch.randn(2, 3, 5, 4), 8),)
    terms = loss_terms(SegmenterOutput(unary, crf, scales), masks, LossConfig(unary=0.5))
    torch.testing.assert_close(terms["loss_crf"], F.cross_entropy(crf, masks))
    expected = F.cross_entropy(unary, masks)
    expected = expected + F.cross_entropy(scales[0].logits, masks[:, ::8, ::8])
    torch.testing.assert_close(terms["loss_unary"], expected)
    torch.testing.assert_close(terms["loss"], (terms["loss_crf"] + 0.5 * expected) / 1.5)


def test_logits_on_padding_have_no_label(masks) -> None:
    labels = scale_labels(ScaleLogits(torch.zeros(2, 3, 9, 9), 8), masks)  # of 65 x 65 pixels
    assert torch.equal(labels[:, :5, :4], masks[:, ::8, ::8])
    assert (labels[:, 5:] == VOID).all()
    assert (labels[:, :, 4:] == VOID).all()
