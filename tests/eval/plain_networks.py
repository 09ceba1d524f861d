"""Networks whose behaviour under translation, mirroring and scale is known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models import CrfConfig, DeepLabV3Config, Network, Segmenter, SegmenterConfig, TimmConfig

LABELS = 3
TINY = DeepLabV3Config(
    backbone=TimmConfig("mobilenetv2_035"), atrous_rates=(), head_channels=8, dropout=0.0
)
CRF = CrfConfig(
    theta_alpha=8, theta_beta=10, num_iterations_eval=3, kernel_weights="scalar",
    compatibility="potts",
)  # fmt: skip


class Convolutions(Network):
    """Convolutions that together see `reach` pixels around each pixel; reach 0 is pointwise.

    Args:
        reach: pixels.
        stride: of the logits; they sit on every stride-th pixel.
    """

    def __init__(self, reach: int = 0, stride: int = 1) -> None:
        super().__init__("half", output_stride=stride)
        self.backbone = nn.Conv2d(3, LABELS, 2 * reach + 1, stride, reach)
        nn.init.normal_(self.backbone.weight, std=4 / (2 * reach + 1))

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.backbone(self.prepare(image))
        return logits


def plain_segmenter(network: Network, crf: CrfConfig | None = None, min_size: int = 0) -> Segmenter:
    """A segmenter around one of these."""
    segmenter = Segmenter(SegmenterConfig(LABELS, TINY, crf, min_size=min_size))
    segmenter.network = network
    return segmenter.eval()


def tiny_segmenter(crf: CrfConfig | None = CRF, min_size: int = 0) -> Segmenter:
    """A real network of random weights."""
    return Segmenter(SegmenterConfig(LABELS, TINY, crf, min_size=min_size)).eval()


def ramp(height: int, width: int, batch: int = 1) -> Tensor:
    """Images that are linear in position, (B, 3, H, W) in 0..255."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([255 * x, 255 * y, 127 * (x + 1 - y)]).expand(batch, -1, -1, -1).clone()


def noise(height: int, width: int, batch: int = 1) -> Tensor:
    """Images of noise, (B, 3, H, W) in 0..255."""
    return torch.randint(0, 256, (batch, 3, height, width)).float()
