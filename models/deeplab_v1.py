"""DeepLab v1 (Chen et al., ICLR 2015): LargeFOV and multi-scale branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import classifier, init_classifier
from models.network import Network
from models.vgg import POOL_CHANNELS, VggBackbone, VggConfig

# MSc of DeepLab v1: logits from the image and the first four poolings, added.
#
# Chen et al. 2015, section 3.3: two layers, 128 3x3 filters and 128 1x1 filters, on each. The
# classifier over the five concatenated results is here one classifier for each, summed, which is
# the same. Strides and initial deviations are those of a port of the authors' prototxt.

CHANNELS = 128
STRIDES = (8, 4, 2, 1, 1)  # of the first layer, from strides 1, 2, 4, 8, 8 of the image to 8
FIRST_STD = 0.001
SECOND_STD = (0.001, 0.001, 0.001, 0.001, 0.005)


class MultiScaleBranches(nn.Module):
    """Five branches that add to the network's logits.

    Args:
        num_classes: L.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        sources = zip((3, *POOL_CHANNELS), STRIDES, SECOND_STD, strict=True)
        self.branches = nn.ModuleList(Branch(num_classes, *source) for source in sources)

    def forward(self, logits: Tensor, sources: Sequence[Tensor], *, full: bool) -> Tensor:
        """Add the logits of all branches.

        Args:
            logits: of the network, (B, L, h, w) at stride 8.
            sources: the normalised image (B, 3, H, W) and the four pooled maps.
            full: read every source at each of its positions and return (B, L, H, W);
                otherwise stride to the grid of `logits`.
        """
        maps = [
            logits,
            *(branch(x, full=full) for branch, x in zip(self.branches, sources, strict=True)),
        ]
        return reduce(add, [enlarge(x, sources[0]) for x in maps] if full else maps)


class Branch(nn.Module):
    """3x3 and 1x1 convolutions of 128 filters, each with ReLU and dropout, and a classifier.

    Args:
        num_classes: L.
        channels: of the source.
        stride: of the 3x3 convolution.
        std: initial deviation of the 1x1 convolution.
    """

    def __init__(self, num_classes: int, channels: int, stride: int, std: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, CHANNELS, 3, stride=stride, padding=1)
        self.second = nn.Conv2d(CHANNELS, CHANNELS, 1)
        # Without bias: that of the network's own classifier serves all.
        self.classifier = nn.Conv2d(CHANNELS, num_classes, 1, bias=False)
        self.dropout = nn.Dropout(0.5)
        nn.init.normal_(self.first.weight, std=FIRST_STD)
        nn.init.normal_(self.second.weight, std=std)
        init_classifier(self.classifier)
        for layer in (self.first, self.second):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, source: Tensor, *, full: bool) -> Tensor:
        """Compute logits at the stride of the network, or at every position of the source."""
        first = self.first
        stride = (1, 1) if full else first.stride
        x = F.conv2d(source, first.weight, first.bias, stride, first.padding).relu()
        x = self.dropout(x)
        return self.classifier(self.dropout(self.second(x).relu()))  # type: ignore[no-any-return]


def enlarge(x: Tensor, image: Tensor) -> Tensor:
    """Resize, bilinear, to the size of the image, corners on corners."""
    return F.interpolate(x, image.shape[2:], mode="bilinear", align_corners=True)


# DeepLab v1: VGG-16 with holes, alone or with multi-scale prediction (MSc).
#
# Chen, Papandreou, Kokkinos, Murphy and Yuille, "Semantic Image Segmentation with Deep
# Convolutional Nets and Fully Connected CRFs", 2015, sections 3.1 and 3.3.

STRIDE = 8


@dataclass(frozen=True)
class DeepLabV1Config:
    """The numbers of one DeepLab v1.

    Attributes:
        backbone: VGG-16 and its convolved fc6 and fc7.
        msc: add the logits of five two-layer branches from the image and the first four
            poolings.
        msc_full_resolution: in eval mode, run these branches at the resolution of what they
            read and return logits at stride 1, as a public port does; otherwise at stride 8,
            as they are trained.
    """

    kind: Literal["v1"] = field(default="v1", init=False)
    backbone: VggConfig = field(default_factory=lambda: VggConfig(average_pool=True))
    msc: bool = False
    msc_full_resolution: bool = False

    def __post_init__(self) -> None:
        if len(self.backbone.rates) != 1:
            raise ValueError(
                f"DeepLab v1 has one branch of fc6 and fc7, got rates {self.backbone.rates}: "
                "several are DeepLab v2's."
            )
        if self.msc_full_resolution and not self.msc:
            raise ValueError("msc_full_resolution says how MSc is evaluated: pass msc=True.")


class DeepLabV1(Network):
    """RGB in 0..255 to logits at stride 8.

    Args:
        num_classes: L.
        config: the numbers.
    """

    def __init__(self, num_classes: int, config: DeepLabV1Config) -> None:
        super().__init__(config.backbone.normalization, output_stride=STRIDE)
        self.config = config
        self.backbone = VggBackbone(config.backbone)
        self.fc8 = classifier(config.backbone.fc_channels, num_classes)
        self.branches = MultiScaleBranches(num_classes) if config.msc else None

    @property
    def logit_stride(self) -> int:
        """8; 1 where MSc is evaluated at full resolution."""
        return 1 if self.config.msc_full_resolution and not self.training else STRIDE

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at `logit_stride`, (B, L, h, w), of RGB in 0..255."""
        normalized = self.prepare(image)
        *pooled, fc7 = self.backbone(normalized)
        logits: Tensor = self.fc8(fc7)
        if self.branches is None:
            return logits
        sources = [normalized, *pooled]
        return self.branches(logits, sources, full=self.logit_stride == 1)  # type: ignore[no-any-return]
