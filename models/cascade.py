"""DeepLabv3 with cascaded modules: block4 repeated at growing rates, no pyramid.

Chen, Papandreou, Schroff and Adam, "Rethinking Atrous Convolution for Semantic Image
Segmentation", 2017, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from models.batch_norm import set_eps, set_momentum
from models.convolution import classifier
from models.network import Network
from models.resnet import ResNetBackbone, ResNetConfig, arrange

CHANNELS, WIDTH = 2048, 512  # of block4, outside and inside of its units


@dataclass(frozen=True)
class CascadeConfig:
    """The numbers of one cascaded DeepLabv3.

    Attributes:
        backbone: its multi-grid is that of block4 and of every further block.
        blocks: how many replicas of block4 follow it: 3 make blocks 5, 6 and 7.
        output_stride: 8 or 16. At 16 block4 has rate 2, and every block twice the rate of the
            one before.
        copy_block4: start the further blocks from block4's weights, all but the first
            convolution of each, whose input is wider. The paper duplicates the block; that its
            weights are meant is our reading.
        batch_norm_momentum: of every BN: 1 minus the paper's decay of 0.9997.
        freeze_batch_norm: keep every BN as it is.
    """

    kind: Literal["v3_cascade"] = field(default="v3_cascade", init=False)
    backbone: ResNetConfig = field(
        default_factory=lambda: ResNetConfig(depth=101, multi_grid=(1, 2, 1))
    )
    blocks: int = 3
    output_stride: int = 16
    copy_block4: bool = True
    batch_norm_momentum: float = 3e-4
    freeze_batch_norm: bool = False

    def __post_init__(self) -> None:
        if self.output_stride not in (8, 16):
            raise ValueError(f"output_stride must be 8 or 16, got {self.output_stride}.")
        if self.blocks < 0:
            raise ValueError(f"blocks must be at least 0, got {self.blocks}.")


class DeepLabV3Cascade(Network):
    """RGB in 0..255 to logits at the output stride.

    Args:
        num_classes: L.
        config: the numbers.
    """

    def __init__(self, num_classes: int, config: CascadeConfig) -> None:
        super().__init__(
            config.backbone.normalization,
            output_stride=config.output_stride,
            freeze_batch_norm=config.freeze_batch_norm,
        )
        self.config = config
        self.backbone = ResNetBackbone(config.backbone, config.output_stride)
        rate = 32 // config.output_stride  # of block4
        self.blocks = nn.ModuleList(
            replica(rate * 2**k, config.backbone) for k in range(1, config.blocks + 1)
        )
        self.classifier = classifier(CHANNELS, num_classes)
        if config.copy_block4:
            self.copy_block4()
        set_eps(self.blocks, config.backbone.batch_norm_eps)
        set_momentum(self, config.batch_norm_momentum)
        self.finish()

    def forward(self, image: Tensor) -> Tensor:
        """Logits at the output stride, (B, L, h, w), of RGB in 0..255."""
        features = self.backbone(self.prepare(image))[-1]
        for block in self.blocks:
            features = block(features)
        return self.classifier(features)  # type: ignore[no-any-return]

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """As of every network; the further blocks then start from the new block4."""
        super().load_backbone(state)
        if self.config.copy_block4:
            self.copy_block4()

    def copy_block4(self) -> None:
        """Copy block4's weights into every further block, where the shapes agree.

        Units 2 and 3 agree whole. The first unit has no projection here, and its first
        convolution takes 2048 channels instead of 1024: that one keeps its own start.
        """
        source = self.backbone.get_submodule("layer4").state_dict()
        for block in self.blocks:
            own = block.state_dict()
            fitting = {k: v for k, v in source.items() if k in own and v.shape == own[k].shape}
            block.load_state_dict({**own, **fitting})


def replica(rate: int, config: ResNetConfig) -> nn.Sequential:
    """Three bottlenecks at stride 1 with identity shortcuts.

    Args:
        rate: of the block, times its multi-grid.
        config: of the backbone, for multi-grid.
    """
    block = nn.Sequential(*(Bottleneck(CHANNELS, WIDTH) for _ in range(3)))
    for unit, factor in zip(block, config.multi_grid, strict=True):
        assert isinstance(unit, Bottleneck)
        arrange(unit, 1, rate * factor, in_1x1=config.stride_in_1x1)
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d):  # as torchvision initialises block4
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return block
