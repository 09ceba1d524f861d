"""One training step with the CRF behind every network, alone and in pairs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from models import (
    BUILDERS,
    CrfConfig,
    DeepLabV1Config,
    NetworkConfig,
    Segmenter,
    SegmenterConfig,
)
from models.crf import build_crf
from models.normalization import InputNormalization

CRF = CrfConfig(theta_alpha=8, theta_beta=10, num_iterations=1, num_iterations_eval=1, resolution=2)
SIZE = 33


def slim(name: str) -> NetworkConfig:
    """The config of a name; fc6 of 4096 filters, 100 million weights at 7x7, gets 64."""
    config = BUILDERS[name].config
    if isinstance(config, DeepLabV1Config) and config.backbone.fc_channels == 4096:
        return replace(config, backbone=replace(config.backbone, fc_channels=64))
    return config


def drawn(name: str) -> Segmenter:
    """The segmenter with quickly drawn weights: what it learns does not matter here.

    Convolutions get the deviation of their fan-in, BN is the identity, and the rest zero.
    """
    torch.manual_seed(0)
    config = SegmenterConfig(3, slim(name), CRF)
    with torch.device("meta"):
        segmenter = Segmenter(config)
    segmenter.crf = build_crf(CRF, config.num_classes)
    network = segmenter.network.to_empty(device="cpu")
    network.normalize = InputNormalization(network.normalize.name)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            frozen = not module.training
            module.reset_parameters()
            module.requires_grad_(not frozen)
        elif isinstance(module, nn.Conv2d):
            module.weight.data.uniform_(-1, 1).mul_((3 / module.weight[0].numel()) ** 0.5)
            if module.bias is not None:
                module.bias.data.zero_()
    return segmenter


@pytest.mark.parametrize(
    "name",
    # At stride 8 networks differ from those at 16 in numbers only, and take longer.
    [pytest.param(n, marks=[pytest.mark.slow] if n.endswith("_os8") else []) for n in BUILDERS],
)
def test_gradient_reaches_the_first_layer_through_the_crf(name: str) -> None:
    segmenter = drawn(name).train()
    first = next(m for m in segmenter.network.backbone.modules() if isinstance(m, nn.Conv2d))
    for batch in (1, 2):
        segmenter.zero_grad()
        image = torch.randint(0, 256, (batch, 3, SIZE, SIZE + 7))
        output = segmenter(image)
        assert output.crf.shape == output.unary.shape == (batch, 3, SIZE, SIZE + 7)
        labels = torch.randint(0, 3, (batch, SIZE, SIZE + 7))
        nn.functional.cross_entropy(output.crf, labels).backward()  # type: ignore[no-untyped-call]
        gradient = first.weight.grad
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0
        for key, parameter in segmenter.network.named_parameters():
            assert parameter.grad is not None or not parameter.requires_grad, key
        assert segmenter.crf is not None
        assert any(
            p.grad is not None and p.grad.abs().sum() > 0 for p in segmenter.crf.parameters()
        )
