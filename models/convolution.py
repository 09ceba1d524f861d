"""The convolution blocks of the heads: with batch normalisation, whole or separable."""

from __future__ import annotations

from torch import nn


def convolution(
    in_channels: int, out_channels: int, rate: int | None = None, *, separable: bool = False
) -> nn.Sequential:
    """A 1x1 convolution, or a 3x3 one of that atrous rate, then BN and ReLU.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        rate: of the 3x3 convolution; none makes it 1x1.
        separable: split the 3x3 convolution in a depthwise and a pointwise one.
    """
    if rate is None:
        return block(nn.Conv2d(in_channels, out_channels, 1, bias=False))
    if not separable:
        return block(
            nn.Conv2d(in_channels, out_channels, 3, padding=rate, dilation=rate, bias=False)
        )
    return separable_convolution(in_channels, out_channels, rate)


def separable_convolution(in_channels: int, out_channels: int, rate: int) -> nn.Sequential:
    """Depthwise 3x3, BN, ReLU, pointwise 1x1, BN, ReLU.

    DeepLab v3+, section 3.1: atrous separable convolution. Order and initial deviations are
    those of the authors' release (`_split_separable_conv2d`).
    """
    depthwise = nn.Conv2d(
        in_channels, in_channels, 3, padding=rate, dilation=rate, groups=in_channels, bias=False
    )
    pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    nn.init.trunc_normal_(depthwise.weight, std=0.33, a=-0.66, b=0.66)
    nn.init.trunc_normal_(pointwise.weight, std=0.06, a=-0.12, b=0.12)
    return nn.Sequential(*block(depthwise), *block(pointwise))


def block(layer: nn.Conv2d) -> nn.Sequential:
    """The layer, then BN and ReLU."""
    return nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU())


def classifier(in_channels: int, num_classes: int, kernel: int = 1, rate: int = 1) -> nn.Conv2d:
    """The convolution that gives logits: weights of N(0, 0.01), bias 0, as in every DeepLab."""
    layer = nn.Conv2d(in_channels, num_classes, kernel, padding=rate * (kernel // 2), dilation=rate)
    init_classifier(layer)
    return layer


def init_classifier(layer: nn.Conv2d) -> None:
    """Weights of N(0, 0.01), bias 0."""
    nn.init.normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
