"""timm's aligned Xception-41, 65 and 71, with the decoder's tap and multi-grid.

Chen, Zhu, Papandreou, Schroff and Adam, "Encoder-Decoder with Atrous Separable Convolution
for Semantic Image Segmentation", 2018, section 3.2; the authors' `core/xception.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import timm
from torch import Tensor, nn

from models.layers import Backbone, NormalizationName, load_state, set_eps
from models.resnet import check_multi_grid

DEPTHS = (41, 65, 71)


@dataclass(frozen=True)
class XceptionConfig:
    """The numbers of one aligned Xception.

    Attributes:
        depth: 41, 65 or 71.
        pretrained: load timm's ImageNet weights (needs the internet).
        normalization: of the input; "half" for timm's weights and the authors'.
        multi_grid: factors of the rates of the last module's three convolutions.
        batch_norm_eps: added to the variance.
    """

    kind: Literal["xception"] = field(default="xception", init=False)
    depth: int = 65
    pretrained: bool = False
    normalization: NormalizationName = "half"
    multi_grid: tuple[int, int, int] = (1, 1, 1)
    batch_norm_eps: float = 1e-3

    def __post_init__(self) -> None:
        if self.depth not in DEPTHS:
            raise ValueError(f"Xception depth must be 41, 65 or 71, got {self.depth}.")
        check_multi_grid(self.multi_grid)


class XceptionBackbone(Backbone):
    """Aligned Xception without its classifier, its keys timm's.

    Args:
        config: the numbers.
        output_stride: 8, 16 or 32.

    Shapes: normalised image (B, 3, H, W) -> features at stride 4, (B, 256, ...), the output
    of the second convolution of the second entry module before its ReLU, and at the output
    stride, (B, 2048, ...).
    """

    def __init__(self, config: XceptionConfig, output_stride: int) -> None:
        super().__init__(channels=(256, 2048))
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride must be 8, 16 or 32, got {output_stride}.")
        network = timm.create_model(
            f"xception{config.depth}", pretrained=config.pretrained, num_classes=0
        )
        stem, blocks = network.stem, network.blocks
        assert isinstance(stem, nn.Sequential)
        assert isinstance(blocks, nn.Sequential)
        self.stem, self.blocks = stem, blocks
        dilate(self.blocks, output_stride, config.multi_grid)
        # timm rectifies in place, which would overwrite the tap.
        self.blocks.get_submodule("1.stack.act3").inplace = False  # type: ignore[assignment]
        set_eps(self, config.batch_norm_eps)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features at stride 4 and at the output stride."""
        first, second, *others = self.blocks
        x = first(self.stem(image))
        *before, act3, conv3 = second.get_submodule("stack").children()
        low = x
        for layer in before:
            low = layer(low)
        x = conv3(act3(low)) + second.get_submodule("shortcut")(x)
        for module in others:
            x = module(x)
        return low, x

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Load timm's state dict, all but its classifier."""
        load_state(self, state, unused=("head.",))


def dilate(blocks: nn.Sequential, output_stride: int, multi_grid: tuple[int, int, int]) -> None:
    """Remove the strides past the output stride and dilate what follows, in place.

    timm does this itself while it builds, but then leaves the projection out of a shortcut
    whose stride is removed: Xception-71 at stride 8 would lose one that its weights have.

    Args:
        blocks: the modules of entry, middle and exit flow, built for stride 32.
        output_stride: to keep.
        multi_grid: factors of the rates of the last module.
    """
    stride, rate = 2, 1  # after the stem
    for block in blocks:
        last = depthwise(block, 3)
        removed = last.stride == (2, 2) and stride == output_stride
        stride *= 1 if removed else last.stride[0]
        if removed:
            last.stride = (1, 1)
            block.get_submodule("shortcut.conv").stride = (1, 1)  # type: ignore[assignment]
        for index, factor in enumerate(multi_grid, start=1):
            set_rate(depthwise(block, index), rate * factor if block is blocks[-1] else rate)
        rate *= 2 if removed else 1


def depthwise(block: nn.Module, index: int) -> nn.Conv2d:
    """Find the depthwise convolution of a module's first, second or third separable one."""
    convolution = block.get_submodule(f"stack.conv{index}.conv_dw")
    assert isinstance(convolution, nn.Conv2d)
    return convolution


def set_rate(convolution: nn.Conv2d, rate: int) -> None:
    """Dilate a 3x3 convolution, its padding keeping the size."""
    convolution.dilation = convolution.padding = (rate, rate)
