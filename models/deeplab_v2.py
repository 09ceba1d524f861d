"""DeepLab v2 (Chen et al., PAMI 2018): ASPP of sums and an input pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from math import lcm
from operator import add
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import classifier
from models.network import Network, NetworkOutput, ScaleLogits
from models.resnet import ResNetBackbone, ResNetConfig
from models.vgg import VggBackbone, VggConfig

# MSC of DeepLab v2: the image at several scales through one network, fused by the maximum.
#
# Chen, Papandreou, Kokkinos, Murphy and Yuille, "DeepLab: Semantic Image Segmentation with Deep
# Convolutional Nets, Atrous Convolution, and Fully Connected CRFs", 2018, section 4.1.2. Which
# grid each loss is taken on is that of the authors' published prototxt.


def scaled_size(size: int, scale: float) -> int:
    """Count the pixels of an image side at a scale, corners on corners: (size - 1) scale + 1."""
    return round((size - 1) * scale) + 1


def rescale(image: Tensor, scale: float) -> Tensor:
    """Resize the image by a scale, bilinear: 321 pixels at 0.75 are 241."""
    size = [scaled_size(n, scale) for n in image.shape[2:]]
    return resize(image, size)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize, bilinear, corners on corners."""
    if list(x.shape[2:]) == list(size):
        return x
    return F.interpolate(x, list(size), mode="bilinear", align_corners=True)


def fuse(maps: Sequence[Tensor]) -> Tensor:
    """Take the maximum over the scales, on the grid of the last.

    max, not maximum or amax: where scales tie, the gradient goes to one of them.

    Args:
        maps: logits of every scale, the largest scale last.
    """
    if len(maps) == 1:
        return maps[0]
    size = maps[-1].shape[2:]
    return torch.stack([resize(x, size) for x in maps]).max(dim=0).values


def scale_logits(maps: Sequence[Tensor], scales: Sequence[float], stride: int) -> list[ScaleLogits]:
    """Put the logits of every scale on the grid that its loss is taken on.

    At scale s the logits sit at every stride / s-th pixel. Where that is a whole number they
    stay there; elsewhere (0.75) they are resized to the grid of the full scale.

    Args:
        maps: logits of every scale, the largest scale last.
        scales: of the image.
        stride: of the network.
    """
    size = maps[-1].shape[2:]
    return [
        ScaleLogits(x, round(stride / scale))
        if (stride / scale).is_integer()
        else ScaleLogits(resize(x, size), stride)
        for x, scale in zip(maps, scales, strict=True)
    ]


# DeepLab v2: VGG-16 or ResNet-101, LargeFOV or a summed atrous pyramid, one or more scales.
#
# Chen, Papandreou, Kokkinos, Murphy and Yuille, "DeepLab: Semantic Image Segmentation with Deep
# Convolutional Nets, Atrous Convolution, and Fully Connected CRFs", 2018.

STRIDE = 8


@dataclass(frozen=True)
class DeepLabV2Config:
    """The numbers of one DeepLab v2.

    Attributes:
        backbone: VGG-16, whose `rates` are the pyramid's, or ResNet.
        rates: of the classifiers behind a ResNet: (12,) is LargeFOV, (6, 12, 18, 24) ASPP-L;
            empty behind VGG, whose branches have the rates.
        scales: of the input pyramid, the last of them 1: (0.5, 0.75, 1) in the paper.
        freeze_batch_norm: keep every BN as it is, as the authors did; VGG has none.
    """

    kind: Literal["v2"] = field(default="v2", init=False)
    backbone: VggConfig | ResNetConfig = field(
        default_factory=lambda: ResNetConfig(depth=101, stride_in_1x1=True)
    )
    rates: tuple[int, ...] = (6, 12, 18, 24)
    scales: tuple[float, ...] = (1.0,)
    freeze_batch_norm: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.backbone, VggConfig) and self.rates:
            raise ValueError(
                f"behind VGG the rates are those of fc6: pass rates=() and backbone.rates, got "
                f"{self.rates}."
            )
        if isinstance(self.backbone, ResNetConfig) and not self.rates:
            raise ValueError("behind a ResNet rates must have at least one value, got none.")
        if any(rate < 1 for rate in self.rates):
            raise ValueError(f"rates must be at least 1, got {self.rates}.")
        if not self.scales or self.scales[-1] != 1 or not all(0 < s <= 1 for s in self.scales):
            raise ValueError(
                f"scales must be in (0, 1] and end with 1, for example (0.5, 0.75, 1), got "
                f"{self.scales}."
            )
        for scale in self.scales:
            denominator(scale)


class DeepLabV2(Network):
    """RGB in 0..255 to logits at stride 8.

    Args:
        num_classes: L.
        config: the numbers.
    """

    backbone: VggBackbone | ResNetBackbone

    def __init__(self, num_classes: int, config: DeepLabV2Config) -> None:
        super().__init__(
            config.backbone.normalization,
            output_stride=STRIDE,
            size_step=exact_step(config.scales),
            freeze_batch_norm=config.freeze_batch_norm,
        )
        self.config = config
        if isinstance(config.backbone, VggConfig):
            self.backbone = VggBackbone(config.backbone)
            layers = [
                classifier(config.backbone.fc_channels, num_classes) for _ in config.backbone.rates
            ]
        else:
            self.backbone = ResNetBackbone(config.backbone, STRIDE)
            layers = [classifier(2048, num_classes, 3, rate) for rate in config.rates]
        self.classifiers = nn.ModuleList(layers)
        self.finish()

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8, (B, L, h, w): the maximum over the scales."""
        return self.outputs(image).logits

    def outputs(self, image: Tensor) -> NetworkOutput:
        """Compute the maximum over the scales; in train mode the logits of every scale, too.

        A single scale has no loss besides its result's.
        """
        normalized, scales = self.prepare(image), self.config.scales
        maps = [self.single_scale(rescale(normalized, scale)) for scale in scales]
        extra = scale_logits(maps, scales, STRIDE) if self.training and len(maps) > 1 else []
        return NetworkOutput(fuse(maps), tuple(extra))

    def single_scale(self, normalized: Tensor) -> Tensor:
        """Add the logits of all classifiers for a normalised image at one scale."""
        features = self.backbone(normalized)
        count = len(self.classifiers)
        maps = (
            features[-count:] if isinstance(self.backbone, VggBackbone) else features[-1:] * count
        )
        logits = [layer(x) for layer, x in zip(self.classifiers, maps, strict=True)]
        return reduce(add, logits)  # type: ignore[no-any-return]

    def check_size(self, batch: int, height: int, width: int) -> None:
        """Check as every network does, and that every scale of the pyramid has whole pixels."""
        super().check_size(batch, height, width)
        whole = lcm(*(denominator(scale) for scale in self.config.scales))
        if (height - 1) % whole or (width - 1) % whole:
            near = [round((n - 1) / whole) * whole + 1 for n in (height, width)]
            raise ValueError(
                f"the scales {self.config.scales} of an image need sides of {whole} k + 1 "
                f"pixels, got {height} x {width}: the nearest size that works is "
                f"{near[0]} x {near[1]}."
            )

    @property
    def coarsest_stride(self) -> int:
        """That of the smallest scale, in pixels of the image."""
        return round(STRIDE / min(self.config.scales))


def denominator(scale: float) -> int:
    """Find the smallest whole d with scale * d whole: 4 for 0.75.

    Raises:
        ValueError: there is none up to 64: images have no whole pixels at that scale.
    """
    for d in range(1, 65):
        if (scale * d).is_integer():
            return d
    raise ValueError(
        f"no image has whole pixels at scale {scale}: choose 0.5 or 0.75, for example."
    )


def exact_step(scales: tuple[float, ...]) -> int:
    """Compute the step: at sizes step * k + 1 the corners of all scales coincide."""
    return STRIDE * lcm(*(denominator(scale) for scale in scales))
