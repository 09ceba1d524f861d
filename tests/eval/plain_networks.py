"""Networks of known behaviour, a checkpoint of random weights, and photographs to show it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from data import CollageConfig, DataConfig, config_to_dict
from models import CrfConfig, DeepLabV3Config, Network, Segmenter, SegmenterConfig, TimmConfig
from runtime.checkpoint import save_checkpoint

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


def tiny_checkpoint(
    path: Path, crf: CrfConfig | None = CRF, data: DataConfig | None = None
) -> Path:
    """Written with the same weights whatever the CRF."""
    torch.manual_seed(0)
    config = data or CollageConfig(size=33)
    classes = len(config.label_set().classes)
    segmenter = Segmenter(SegmenterConfig(classes, TINY, crf)).eval()
    # So that several classes win somewhere: random weights alone hardly move the logits.
    for parameter in segmenter.network.parameters():
        parameter.data *= 1.15
    of_data = config_to_dict(config)
    save_checkpoint(path, segmenter, data=of_data, arm="joint", seed=0, step=1, training={})
    return path


def write_photograph(path: Path, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blobs of colour, (H, W, 3) uint8; a PNG, so that it is read as it is written."""
    generator = np.random.default_rng(seed)
    colours = generator.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    picture = Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return np.asarray(picture)
