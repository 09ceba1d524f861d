"""DeepLabv3+: the encoder of DeepLabv3 with a decoder behind it.

Chen, Zhu, Papandreou, Schroff and Adam, "Encoder-Decoder with Atrous Separable Convolution
for Semantic Image Segmentation", 2018.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from models.aspp import AsppConfig, AsppNetwork
from models.backbones import DilatedConfig
from models.convolution import classifier
from models.decoder import Decoder
from models.resnet import ResNetConfig


@dataclass(frozen=True)
class DeepLabV3PlusConfig(AsppConfig):
    """The numbers of one DeepLabv3+; see `AsppConfig`.

    Attributes:
        low_level_channels: that the backbone's features at stride 4 are reduced to.
        decoder_channels: of the decoder's two 3x3 convolutions.
        separable_decoder: split them in depthwise and pointwise ones.
    """

    kind: Literal["v3plus"] = field(default="v3plus", init=False)
    backbone: DilatedConfig = field(
        default_factory=lambda: ResNetConfig(depth=101, multi_grid=(1, 2, 4))
    )
    low_level_channels: int = 48
    decoder_channels: int = 256
    separable_decoder: bool = False


class DeepLabV3Plus(AsppNetwork):
    """RGB in 0..255 to logits at stride 4.

    Args:
        num_classes: L.
        config: the numbers.
    """

    def __init__(self, num_classes: int, config: DeepLabV3PlusConfig) -> None:
        super().__init__(config, low_level=True)
        self.config = config
        self.decoder = Decoder(
            self.low_channels,
            config.head_channels,
            reduced_channels=config.low_level_channels,
            channels=config.decoder_channels,
            separable=config.separable_decoder,
        )
        self.classifier = classifier(config.decoder_channels, num_classes)
        self.finish_head(config)

    @property
    def logit_stride(self) -> int:
        """That of the low-level features."""
        return 4

    def forward(self, image: Tensor) -> Tensor:
        """Logits at stride 4, (B, L, h, w), of RGB in 0..255."""
        low, features = self.features(image)
        return self.classifier(self.decoder(low, self.encode(features)))  # type: ignore[no-any-return]
