"""The union of network and CRF: two maps of logits from one forward pass, at any size."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch

from crfrnn import CrfRnn
from crfrnn.kernels import rounded
from models import CrfConfig, DeepLabV3Config, Segmenter, SegmenterConfig, TimmConfig
from models.batch_norm import batch_norms
from models.crf import build_crf
from models.resize import pad_to_stride, shrink, stretch

NETWORK = DeepLabV3Config(
    backbone=TimmConfig("mobilenetv2_035"), atrous_rates=(), head_channels=16, dropout=0.0
)
CRF = CrfConfig(theta_alpha=8, theta_beta=10, num_iterations=2, num_iterations_eval=3)


def segmenter(**changes) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(replace(SegmenterConfig(3, NETWORK, CRF), **changes))


@pytest.mark.parametrize("size", [(33, 33), (40, 51), (17, 90), (1, 1)])
def test_shape_at_any_size(size: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    output = segmenter().eval()(image)
    assert output.unary.shape == output.crf.shape == (2, 3, *size)
    assert output.logits is output.crf


def test_without_a_crf() -> None:
    output = segmenter(crf=None).eval()(torch.rand(1, 3, 33, 33) * 255)
    assert output.crf is None
    assert output.logits is output.unary
    with pytest.raises(ValueError, match="no CRF"):
        segmenter(crf=None).refine(output.unary, torch.rand(1, 3, 33, 33) * 255)


def test_resolution_outside_the_choices() -> None:
    with pytest.raises(ValueError, match=r"crf\.resolution must be 1, 2, 4 or 8, got 3"):
        replace(CRF, resolution=3)


def test_unary_logits_are_those_of_the_network_alone() -> None:
    both, alone = segmenter().eval(), segmenter(crf=None).eval()
    alone.network.load_state_dict(both.network.state_dict())
    image = torch.rand(1, 3, 40, 51) * 255
    assert torch.equal(both(image).unary, alone(image).unary)


def test_corners_of_image_and_logits_coincide() -> None:
    model = segmenter().eval()
    image = torch.rand(1, 3, 33, 49) * 255
    coarse, unary = model.coarse_unary(image), model.unary(image)
    torch.testing.assert_close(unary[..., ::16, ::16], coarse, rtol=1e-5, atol=1e-6)


def test_the_crf_sees_the_image_as_it_is() -> None:
    """Mean-subtracted or wrapped images in the CRF are a bug of widely used repositories."""
    model = segmenter().eval()
    image = torch.randint(0, 256, (1, 3, 33, 33), dtype=torch.uint8)
    output = model(image)
    assert model.crf is not None
    torch.testing.assert_close(output.crf, model.crf(output.unary, image))


def test_lower_resolution_rescales_positions_once() -> None:
    crf = build_crf(replace(CRF, resolution=2), 3)
    assert isinstance(crf, CrfRnn)
    assert rounded(crf.potentials.theta_alpha) == CRF.theta_alpha / 2
    assert rounded(crf.potentials.theta_gamma) == CRF.theta_gamma / 2
    assert rounded(crf.potentials.theta_beta) == CRF.theta_beta


def test_description_is_in_pixels_of_the_full_resolution() -> None:
    described = segmenter(crf=replace(CRF, resolution=4, output_scale=0.5)).describe_crf()
    assert described is not None
    assert described["theta_alpha"] == CRF.theta_alpha
    assert described["output_scale"] == pytest.approx(0.5)
    assert torch.tensor(described["kernel_weights"]["bilateral"]).shape == (3, 3)
    assert segmenter(crf=None).describe_crf() is None


@pytest.mark.parametrize("resolution", [2, 4, 8])
def test_lower_resolution_stays_close(resolution: int) -> None:
    """A smooth scene loses little on a coarser grid: the two results agree on most pixels."""
    x = torch.linspace(0, 1, 65)
    image = torch.stack([x.expand(65, 65), x[:, None].expand(65, 65), x.expand(65, 65)])[None] * 255
    unary = torch.stack([x.expand(65, 65) - 0.5, 0.5 - x.expand(65, 65)])[None] * 6
    full = segmenter(num_classes=2).eval().refine(unary, image)
    coarse = segmenter(num_classes=2, crf=replace(CRF, resolution=resolution)).eval()
    agreement = (coarse.refine(unary, image).argmax(1) == full.argmax(1)).double().mean()
    assert agreement > 1 - resolution / 65  # at most one coarse column of the boundary differs


def test_shrink_and_stretch_are_exact_on_constants_and_odd_sizes() -> None:
    constant = torch.full((1, 2, 7, 9), 5.0)
    small = shrink(constant, 2)
    assert small.shape == (1, 2, 4, 5)
    torch.testing.assert_close(stretch(small, constant.shape[2:]), constant)


def test_padding() -> None:
    padded = pad_to_stride(torch.zeros(1, 3, 30, 50), 16, minimum=0)
    assert padded.shape == (1, 3, 33, 65)
    assert (padded[..., 30:, :] == 128).all()
    assert pad_to_stride(padded, 16, minimum=513).shape == (1, 3, 513, 513)


def test_gradient_reaches_the_first_layer_through_the_crf() -> None:
    model = segmenter(crf=replace(CRF, learn_output_scale=True)).train()
    output = model(torch.rand(2, 3, 33, 33) * 255)
    output.crf.square().mean().backward()
    first = next(model.network.backbone.parameters())
    assert first.grad is not None
    assert first.grad.abs().sum() > 0
    assert model.crf is not None
    for parameter in model.crf.parameters():
        assert parameter.grad is not None or not parameter.requires_grad


def test_frozen_batch_norm_is_frozen() -> None:
    model = segmenter(freeze_batch_norm=True).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.rand(2, 3, 33, 33) * 255).unary.square().mean().backward()
        optimizer.step()
    norms = [id(p) for norm in batch_norms(model) for p in norm.state_dict(keep_vars=True).values()]
    state = model.state_dict(keep_vars=True)
    frozen = [name for name, value in state.items() if id(value) in norms]
    assert len(frozen) > 100
    assert all(torch.equal(state[name], before[name]) for name in frozen)
    changed = "network.classifier.weight"
    assert not torch.equal(state[changed], before[changed])


def test_training_pads_as_evaluation_does() -> None:
    model = segmenter(min_size=97, crf=None)
    image = torch.rand(2, 3, 33, 33) * 255
    assert model.eval().coarse_unary(image).shape[2:] == (7, 7)
    assert model.train().coarse_unary(image).shape[2:] == (7, 7)


def test_a_copy_with_another_crf_has_the_same_network() -> None:
    model = segmenter(crf=None).eval()
    other = model.with_crf(CRF, freeze_batch_norm=True)
    image = torch.rand(1, 3, 33, 33) * 255
    assert torch.equal(other(image).unary, model(image).unary)
    assert other.config.crf == CRF
    assert other.config.freeze_batch_norm
    assert other.with_crf(None).config.freeze_batch_norm


def test_config_round_trip() -> None:
    for crf in (None, CRF):
        config = SegmenterConfig(5, NETWORK, crf, min_size=65)
        assert SegmenterConfig.from_dict(asdict(config)) == config
