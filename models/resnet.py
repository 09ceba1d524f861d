"""torchvision's ResNet-50 and 101, dilated in place.

He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", 2016. The table of
strides and rates is that of DeepLab v3, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, ResNet101_Weights, resnet50, resnet101
from torchvision.models.resnet import Bottleneck

from models.layers import Backbone, NormalizationName, load_state, set_eps

BUILDERS = {50: resnet50, 101: resnet101}
WEIGHTS = {50: ResNet50_Weights.IMAGENET1K_V1, 101: ResNet101_Weights.IMAGENET1K_V1}

# Output stride -> stride and rate of the stages layer1 to layer4.
STRIDES = {8: (1, 2, 1, 1), 16: (1, 2, 2, 1), 32: (1, 2, 2, 2)}
RATES = {8: (1, 1, 2, 4), 16: (1, 1, 1, 2), 32: (1, 1, 1, 1)}


@dataclass(frozen=True)
class ResNetConfig:
    """The numbers of one ResNet.

    Attributes:
        depth: 50 or 101.
        pretrained: load torchvision's ImageNet weights (needs the internet).
        normalization: of the input; "imagenet" for torchvision's weights.
        stride_in_1x1: where the first unit of a stage strides: in its first 1x1 convolution
            (He et al., and the Caffe models of DeepLab v2), or in its 3x3 (torchvision's
            weights, and nearly all of TensorFlow's).
        dilate_first: the first unit of a stage has the stage's own rate (the papers), or that
            of the stage before (torchvision).
        multi_grid: factors of the rates of layer4's three units (DeepLab v3, section 3.2).
        deep_stem: three 3x3 convolutions in the place of the 7x7, as in the authors' "beta"
            release.
        batch_norm_eps: added to the variance.
    """

    kind: Literal["resnet"] = field(default="resnet", init=False)
    depth: int = 101
    pretrained: bool = False
    normalization: NormalizationName = "imagenet"
    stride_in_1x1: bool = False
    dilate_first: bool = True
    multi_grid: tuple[int, int, int] = (1, 1, 1)
    deep_stem: bool = False
    batch_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.depth not in BUILDERS:
            raise ValueError(f"ResNet depth must be 50 or 101, got {self.depth}.")
        check_multi_grid(self.multi_grid)
        if self.pretrained and (self.stride_in_1x1 or self.deep_stem):
            raise ValueError(
                "torchvision's ImageNet weights have the stride in the 3x3 convolution and a 7x7 "
                "stem: pass stride_in_1x1=False and deep_stem=False with pretrained=True, or "
                "load other weights from a file."
            )


class ResNetBackbone(Backbone):
    """ResNet without its classifier, its keys torchvision's.

    Args:
        config: the numbers.
        output_stride: 8, 16 or 32.

    Shapes: normalised image (B, 3, H, W) -> features at stride 4, (B, 256, ...), and at the
    output stride, (B, 2048, ...).
    """

    def __init__(self, config: ResNetConfig, output_stride: int) -> None:
        super().__init__(channels=(256, 2048))
        if output_stride not in STRIDES:
            raise ValueError(f"output_stride must be 8, 16 or 32, got {output_stride}.")
        network = BUILDERS[config.depth](weights=None)
        if config.deep_stem:
            deepen_stem(network)
        dilate(network, output_stride, config)
        self.conv1: nn.Module = network.conv1
        self.bn1: nn.Module = network.bn1
        self.relu: nn.Module = network.relu
        self.maxpool: nn.Module = network.maxpool
        self.layer1: nn.Sequential = network.layer1
        self.layer2: nn.Sequential = network.layer2
        self.layer3: nn.Sequential = network.layer3
        self.layer4: nn.Sequential = network.layer4
        set_eps(self, config.batch_norm_eps)
        if config.pretrained:
            self.load_pretrained(WEIGHTS[config.depth].get_state_dict(progress=True))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features at stride 4 and at the output stride."""
        stem = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        low = self.layer1(stem)
        return low, self.layer4(self.layer3(self.layer2(low)))

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Load a torchvision classifier's state dict, all but its last layer."""
        load_state(self, state, unused=("fc.",))


def dilate(network: nn.Module, output_stride: int, config: ResNetConfig) -> None:
    """Set stride and rate of every unit of a torchvision ResNet, in place.

    Args:
        network: with the stages layer1 to layer4 of bottlenecks.
        output_stride: a key of `STRIDES`.
        config: where the strides are, and the rates of the first units.
    """
    rates = RATES[output_stride]
    for index, stride in enumerate(STRIDES[output_stride]):
        grid = config.multi_grid if index == 3 else (1,)
        before = rates[index] if config.dilate_first else rates[max(index - 1, 0)]
        for unit, bottleneck in enumerate(units(network, f"layer{index + 1}")):
            first = unit == 0
            rate = (before if first else rates[index]) * grid[unit % len(grid)]
            arrange(bottleneck, stride if first else 1, rate, in_1x1=config.stride_in_1x1)


def arrange(unit: Bottleneck, stride: int, rate: int, *, in_1x1: bool) -> None:
    """Set stride and rate of one unit, and the padding that keeps the size."""
    unit.stride = stride
    unit.conv1.stride = (stride, stride) if in_1x1 else (1, 1)
    unit.conv2.stride = (1, 1) if in_1x1 else (stride, stride)
    unit.conv2.dilation = unit.conv2.padding = (rate, rate)
    if unit.downsample is not None:
        unit.downsample[0].stride = (stride, stride)


def units(network: nn.Module, stage: str) -> Iterator[Bottleneck]:
    """Yield the bottlenecks of a stage, in order."""
    for unit in network.get_submodule(stage).children():
        assert isinstance(unit, Bottleneck)
        yield unit


def deepen_stem(network: nn.Module) -> None:
    """3x3/2 64, 3x3 64, 3x3 128 for the 7x7/2 64; layer1's first unit takes 128 channels."""
    widths = ((3, 64, 2), (64, 64, 1), (64, 128, 1))
    layers: list[nn.Module] = []
    for into, out, stride in widths:
        layers += [nn.Conv2d(into, out, 3, stride=stride, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
    # The last BN and ReLU are torchvision's own bn1 and relu, that of 128 channels.
    network.conv1 = nn.Sequential(*layers[:-2])
    network.bn1 = layers[-2]
    unit = next(units(network, "layer1"))
    assert unit.downsample is not None
    unit.conv1 = nn.Conv2d(128, 64, 1, bias=False)
    unit.downsample[0] = nn.Conv2d(128, 256, 1, bias=False)
    for layer in (*network.conv1, unit.conv1, unit.downsample[0]):
        if isinstance(layer, nn.Conv2d):  # as torchvision initialises all others
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def check_multi_grid(multi_grid: tuple[int, ...]) -> None:
    """Raise ValueError unless these are three factors."""
    if len(multi_grid) != 3 or min(multi_grid) < 1:
        raise ValueError(
            f"multi_grid must be three factors of at least 1, for example (1, 2, 4), got "
            f"{multi_grid}."
        )
