"""DeepLabv3 with parallel modules: a dilated backbone, the atrous pyramid and a classifier.

Chen, Papandreou, Schroff and Adam, "Rethinking Atrous Convolution for Semantic Image
Segmentation", 2017, section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from models.aspp import AsppConfig, AsppNetwork
from models.backbones import DilatedConfig
from models.convolution import classifier
from models.resnet import ResNetConfig


@dataclass(frozen=True)
class DeepLabV3Config(AsppConfig):
    """The numbers of one DeepLabv3; see `AsppConfig`."""

    kind: Literal["v3"] = field(default="v3", init=False)
    backbone: DilatedConfig = field(
        default_factory=lambda: ResNetConfig(depth=101, multi_grid=(1, 2, 4))
    )


class DeepLabV3(AsppNetwork):
    """RGB in 0..255 to logits at the output stride.

    Args:
        num_classes: L.
        config: the numbers.
    """

    def __init__(self, num_classes: int, config: DeepLabV3Config) -> None:
        super().__init__(config)
        self.config = config
        self.classifier = classifier(config.head_channels, num_classes)
        self.finish_head(config)

    def forward(self, image: Tensor) -> Tensor:
        """Logits at the output stride, (B, L, h, w), of RGB in 0..255."""
        return self.classifier(self.encode(self.features(image)[-1]))  # type: ignore[no-any-return]
