"""Small networks of every kind, and a training step that checks one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

import models
from models import CascadeConfig, DeepLabV2Config, NetworkConfig, ResNetConfig, Segmenter, VggConfig

TINY = models.TimmConfig("mobilenetv2_035", normalization="half")
SMALL_V1 = models.DeepLabV1Config(backbone=VggConfig(fc_channels=16, average_pool=True), msc=True)
SMALL_V2 = DeepLabV2Config(backbone=ResNetConfig(depth=50), rates=(1, 2))
SMALL_V3 = models.DeepLabV3Config(backbone=TINY, head_channels=16, dropout=0.0)
SMALL_PLUS = models.DeepLabV3PlusConfig(
    backbone=TINY, head_channels=16, decoder_channels=16, low_level_channels=8, dropout=0.0
)
SMALL_CASCADE = CascadeConfig(backbone=ResNetConfig(depth=50, multi_grid=(1, 2, 1)), blocks=1)

XCEPTION = models.XceptionConfig(depth=41)

# One of each structure among the published networks.
SLIM: dict[str, NetworkConfig] = {
    "v1 msc": SMALL_V1,
    "v2 vgg": DeepLabV2Config(backbone=VggConfig(fc_channels=16, rates=(2, 4)), rates=()),
    "v2 resnet, scales": replace(SMALL_V2, scales=(0.5, 1.0)),
    "v3 beta": replace(SMALL_V3, backbone=ResNetConfig(depth=50, deep_stem=True)),
    "v3 mobilenet": replace(SMALL_V3, atrous_rates=()),
    "cascade": SMALL_CASCADE,
    "v3+ xception": replace(
        SMALL_PLUS, backbone=XCEPTION, separable_aspp=True, separable_decoder=True
    ),
    "v3+ mobilenet": SMALL_PLUS,
}

CRF = models.CrfConfig(
    theta_alpha=8, theta_beta=10, num_iterations=1, num_iterations_eval=1, resolution=2
)


def image(*shape: int, seed: int = 0) -> Tensor:
    """RGB in 0..255."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 255


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]


def strides(module: nn.Module) -> list[int]:
    return [m.stride[0] for m in convolutions(module)]


def rates(module: nn.Module, kernel: int = 3) -> list[int]:
    """Of every convolution of that kernel, in order."""
    return [m.dilation[0] for m in convolutions(module) if m.kernel_size == (kernel, kernel)]


def drawn(network: NetworkConfig) -> Segmenter:
    """A segmenter of three classes with fresh weights."""
    return Segmenter(models.SegmenterConfig(3, network, CRF))


def check_training_step(segmenter: Segmenter) -> None:
    """Demand gradients in the first layer and the CRF, and in a batch of one as in one of two."""
    assert segmenter.crf is not None
    first = convolutions(segmenter.train().network.backbone)[0]
    for batch in (1, 2):
        segmenter.zero_grad()
        output = segmenter(torch.randint(0, 256, (batch, 3, 33, 40)))
        assert output.crf.shape == output.unary.shape == (batch, 3, 33, 40)
        labels = torch.randint(0, 3, (batch, 33, 40))
        nn.functional.cross_entropy(output.crf, labels).backward()  # type: ignore[no-untyped-call]
        gradient = first.weight.grad
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0
        for name, parameter in segmenter.network.named_parameters():
            assert parameter.grad is not None or not parameter.requires_grad, name
        learnt = [p.grad for p in segmenter.crf.parameters() if p.grad is not None]
        assert any(gradient.any() for gradient in learnt)
