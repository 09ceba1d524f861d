"""DeepLab v1: VGG-16 with holes, alone or with multi-scale prediction (MSc).

Chen, Papandreou, Kokkinos, Murphy and Yuille, "Semantic Image Segmentation with Deep
Convolutional Nets and Fully Connected CRFs", 2015, sections 3.1 and 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from models.convolution import classifier
from models.multi_scale_branches import MultiScaleBranches
from models.network import Network
from models.vgg import VggBackbone, VggConfig

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
        """Logits at `logit_stride`, (B, L, h, w), of RGB in 0..255."""
        normalized = self.prepare(image)
        *pooled, fc7 = self.backbone(normalized)
        logits: Tensor = self.fc8(fc7)
        if self.branches is None:
            return logits
        sources = [normalized, *pooled]
        return self.branches(logits, sources, full=self.logit_stride == 1)  # type: ignore[no-any-return]
