"""Atrous spatial pyramid pooling: the encoder that DeepLab v3 and v3+ share.

Chen, Papandreou, Schroff and Adam, "Rethinking Atrous Convolution for Semantic Image
Segmentation", 2017, section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones import DilatedConfig, build_backbone
from models.batch_norm import set_eps, set_momentum
from models.convolution import convolution
from models.network import Network


@dataclass(frozen=True)
class AsppConfig:
    """The numbers of the encoder of DeepLab v3 and v3+. Abstract.

    Attributes:
        backbone: dilated.
        output_stride: input size over feature size, 8 or 16.
        atrous_rates: of the 3x3 branches at output stride 16, doubled at 8; empty for none.
        separable_aspp: split the 3x3 branches in depthwise and pointwise convolutions.
        head_channels: of every branch and of the projection.
        pool_window: side in pixels of the window that image pooling averages over, every
            position of it: 513 as in the authors' evaluation. None averages over the image.
        dropout: after the projection.
        batch_norm_momentum: of every BN: 1 minus the paper's decay of 0.9997.
        batch_norm_eps: of the head's BN; the backbone has its own.
        freeze_batch_norm: keep every BN as it is.
    """

    backbone: DilatedConfig
    output_stride: int = 16
    atrous_rates: tuple[int, ...] = (6, 12, 18)
    separable_aspp: bool = False
    head_channels: int = 256
    pool_window: int | None = None
    dropout: float = 0.1
    batch_norm_momentum: float = 3e-4
    batch_norm_eps: float = 1e-5
    freeze_batch_norm: bool = False

    def __post_init__(self) -> None:
        if self.output_stride not in (8, 16):
            raise ValueError(f"output_stride must be 8 or 16, got {self.output_stride}.")
        if any(rate < 1 for rate in self.atrous_rates):
            raise ValueError(f"atrous_rates must be at least 1, got {self.atrous_rates}.")
        if self.pool_window is not None and self.pool_window < 1:
            raise ValueError(f"pool_window must be at least 1 pixel, got {self.pool_window}.")


class AsppNetwork(Network):
    """Backbone and atrous pyramid; a subclass adds what turns them into logits. Abstract.

    Args:
        config: the numbers.
        low_level: the backbone's first features are at stride 4.
    """

    def __init__(self, config: AsppConfig, *, low_level: bool = False) -> None:
        super().__init__(
            config.backbone.normalization,
            output_stride=config.output_stride,
            freeze_batch_norm=config.freeze_batch_norm,
        )
        built = build_backbone(config.backbone, config.output_stride, low_level=low_level)
        self.backbone = built.module
        self.low_channels = built.low_channels
        channels = config.head_channels
        rates = [rate * 16 // config.output_stride for rate in config.atrous_rates]
        self.image_pooling = convolution(built.channels, channels)
        self.aspp0 = convolution(built.channels, channels)
        self.atrous = nn.ModuleList(
            convolution(built.channels, channels, rate, separable=config.separable_aspp)
            for rate in rates
        )
        self.project = convolution((2 + len(rates)) * channels, channels)
        self.dropout = nn.Dropout(config.dropout)
        self.pool_window = config.pool_window

    def finish_head(self, config: AsppConfig) -> None:
        """Give every BN its numbers: the last line of every subclass's `__init__`."""
        for name, child in self.named_children():
            if name != "backbone":
                set_eps(child, config.batch_norm_eps)
        set_momentum(self, config.batch_norm_momentum)
        self.finish()

    def features(self, image: Tensor) -> list[Tensor]:
        """The backbone's maps of RGB in 0..255, the coarsest last.

        Raises:
            ValueError: they do not lie on every stride-th pixel, the first included, as those
                of a backbone that cuts the image into patches.
        """
        maps = list(self.backbone(self.prepare(image)))
        expected = [ceil(n / self.output_stride) for n in image.shape[2:]]
        if list(maps[-1].shape[2:]) != expected:
            raise ValueError(
                f"the backbone gives {tuple(maps[-1].shape[2:])} features of an image of "
                f"{tuple(image.shape[2:])} pixels, expected {tuple(expected)}, one for every "
                f"{self.output_stride} pixels from the first on: choose one whose convolutions "
                "pad, not one that cuts the image into patches."
            )
        return maps

    def encode(self, features: Tensor) -> Tensor:
        """The pyramid's result, (B, head_channels, h, w), of the coarsest features."""
        pooled = pool_image(self.image_pooling, features, self.pool_cells)
        branches = [
            spread(pooled, features.shape[2:]),
            self.aspp0(features),
            *(branch(features) for branch in self.atrous),
        ]
        return self.dropout(self.project(torch.cat(branches, dim=1)))  # type: ignore[no-any-return]

    @property
    def pool_cells(self) -> int | None:
        """Side of image pooling's window in cells of the features; none for the whole image."""
        return None if self.pool_window is None else ceil(self.pool_window / self.output_stride)

    def check_size(self, batch: int, height: int, width: int) -> None:
        """As of every network; and image pooling's window must fit into the image."""
        super().check_size(batch, height, width)
        smallest = 1 if self.pool_cells is None else (self.pool_cells - 1) * self.output_stride + 1
        if min(height, width) < smallest:
            raise ValueError(
                f"an image of {height} x {width} pixels is smaller than image pooling's window "
                f"(pool_window={self.pool_window}): the nearest size that works is "
                f"{max(height, smallest)} x {max(width, smallest)}; or pass pool_window=None."
            )


def pool_image(layers: nn.Sequential, features: Tensor, window: int | None = None) -> Tensor:
    """The image pooling branch: mean, then its convolution.

    In train mode a batch of one leaves its BN a single value per channel, whose variance
    is zero: the running statistics are used there.

    Args:
        layers: convolution, BN and ReLU.
        features: (B, C, h, w).
        window: side of the window of the mean; none for the whole map.

    Returns:
        (B, channels, 1, 1), or (B, channels, h - window + 1, w - window + 1).
    """
    convolve, norm, activate = layers
    if window is None:
        mean = F.adaptive_avg_pool2d(features, 1)
    else:
        mean = F.avg_pool2d(features, window, stride=1)
    pooled = convolve(mean)
    if norm.training and pooled.shape[0] * pooled.shape[2] * pooled.shape[3] == 1:
        assert isinstance(norm, nn.BatchNorm2d)
        pooled = F.batch_norm(
            pooled, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
    else:
        pooled = norm(pooled)
    return activate(pooled)  # type: ignore[no-any-return]


def spread(pooled: Tensor, size: torch.Size) -> Tensor:
    """The pooled map at the size of the features: one value everywhere, or bilinear."""
    if pooled.shape[2:] == (1, 1):
        return pooled.expand(-1, -1, *size)
    return F.interpolate(pooled, size, mode="bilinear", align_corners=True)
