"""torchvision's VGG-16, its last strides removed and its fully connected layers convolved.

Simonyan and Zisserman, 2015; Chen, Papandreou, Kokkinos, Murphy and Yuille, "Semantic Image
Segmentation with Deep Convolutional Nets and Fully Connected CRFs", 2015, section 3.1; the
layers are those of the authors' published prototxt.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn
from torchvision.models import VGG16_Weights
from torchvision.models.vgg import cfgs, make_layers

from models.layers import Backbone, NormalizationName, load_state

POOL_CHANNELS = (64, 128, 256, 512)  # of pool1 to pool4
POOLS = (4, 9, 16, 23, 30)  # where torchvision's features pool
POOL_STRIDES = (2, 2, 2, 1, 1)  # of pool1 to pool5: VGG's own are all 2
CONV5_RATE = 2
FULL_KERNEL, FULL_CHANNELS = 7, 4096  # of VGG's own fc6 and fc7


@dataclass(frozen=True)
class VggConfig:
    """The numbers of one VGG-16 with convolved fc6 and fc7.

    Attributes:
        pretrained: load torchvision's ImageNet weights (needs the internet).
        normalization: of the input; "imagenet" for torchvision's weights, "caffe" for the
            authors'.
        fc_kernel: of fc6: 7, 4 or 3, which keep every, every second or every third tap of
            VGG's 7x7.
        fc_channels: of fc6 and fc7: a divisor of 4096.
        rates: of fc6, one for each parallel branch of fc6 and fc7.
        average_pool: a 3x3 average after pool5 (LargeFOV of DeepLab v1).
        dropout: after fc6 and after fc7.
    """

    kind: Literal["vgg"] = field(default="vgg", init=False)
    pretrained: bool = False
    normalization: NormalizationName = "imagenet"
    fc_kernel: int = 3
    fc_channels: int = 1024
    rates: tuple[int, ...] = (12,)
    average_pool: bool = False
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if self.fc_kernel not in (7, 4, 3):
            raise ValueError(f"fc_kernel must be 7, 4 or 3, got {self.fc_kernel}.")
        if self.fc_channels < 1 or FULL_CHANNELS % self.fc_channels:
            raise ValueError(f"fc_channels must divide 4096, got {self.fc_channels}.")
        if not self.rates or any(r < 1 or r * (self.fc_kernel - 1) % 2 for r in self.rates):
            raise ValueError(
                f"rates must be at least 1, and even for the 4x4 kernel, whose padding would "
                f"otherwise be lopsided; got {self.rates}."
            )


class VggBackbone(Backbone):
    """VGG-16 at output stride 8 up to fc7, one or more branches from fc6 on.

    Args:
        config: the numbers.

    Shapes: normalised image (B, 3, H, W) -> pool1 to pool4 at strides 2, 4, 8 and 8, then
    fc7 of every branch, (B, fc_channels, ceil(H / 8), ceil(W / 8)).
    """

    def __init__(self, config: VggConfig) -> None:
        super().__init__(channels=(*POOL_CHANNELS, *[config.fc_channels] * len(config.rates)))
        self.features = dilated_features()
        self.pool5a = nn.AvgPool2d(3, stride=1, padding=1) if config.average_pool else nn.Identity()
        self.branches = nn.ModuleList(fc_branch(config, rate) for rate in config.rates)
        if config.pretrained:
            self.load_pretrained(VGG16_Weights.IMAGENET1K_V1.get_state_dict(progress=True))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute four pooled maps, then fc7 of every branch."""
        pooled, x = [], image
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in POOLS:
                pooled.append(x)
        x = self.pool5a(x)
        return [*pooled[:4], *(branch(x) for branch in self.branches)]

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Load a torchvision classifier's state dict; fc6 and fc7 are decimated from its own."""
        features = {k: v for k, v in state.items() if not k.startswith("classifier.")}
        for index, branch in enumerate(self.branches):
            for key, value in decimated_fc(state, branch.fc6).items():  # type: ignore[arg-type]
                features[f"branches.{index}.{key}"] = value
        load_state(self, features, unused=())


def dilated_features() -> nn.Sequential:
    """Build torchvision's convolutions of VGG-16 with the pools and rates of DeepLab v1."""
    features = make_layers(cfgs["D"])
    for index, stride in zip(POOLS, POOL_STRIDES, strict=True):
        assert isinstance(features[index], nn.MaxPool2d)
        features[index] = nn.MaxPool2d(3, stride=stride, padding=1)
    for index, layer in enumerate(features):
        if isinstance(layer, nn.Conv2d):
            init_convolution(layer)
            if index > POOLS[3]:
                layer.dilation = layer.padding = (CONV5_RATE, CONV5_RATE)
    return features  # type: ignore[no-any-return]


def fc_branch(config: VggConfig, rate: int) -> nn.Sequential:
    """Build the convolved fc6 of that rate and fc7, each with ReLU and dropout."""
    channels, kernel = config.fc_channels, config.fc_kernel
    padding = rate * (kernel - 1) // 2
    fc6 = nn.Conv2d(POOL_CHANNELS[-1], channels, kernel, padding=padding, dilation=rate)
    fc7 = nn.Conv2d(channels, channels, 1)
    init_convolution(fc6)
    init_convolution(fc7)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in (("6", fc6), ("7", fc7)):
        layers[f"fc{name}"] = layer
        layers[f"relu{name}"] = nn.ReLU()
        layers[f"drop{name}"] = nn.Dropout(config.dropout)
    return nn.Sequential(layers)


def init_convolution(layer: nn.Conv2d) -> None:
    """Initialise as torchvision does VGG's convolutions."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


def decimated_fc(state: Mapping[str, Tensor], fc6: nn.Conv2d) -> dict[str, Tensor]:
    """Thin VGG's own fc6 and fc7 to the kernel and channels of a convolved branch.

    Taps 0, 2, 4, 6 make a 4x4 kernel, taps 0, 3, 6 a 3x3 one; of the 4096 filters every
    4096 / channels-th stays, and of fc7 the inputs that belong to them.

    Args:
        state: with classifier.0, (4096, 512 * 7 * 7), and classifier.3, (4096, 4096).
        fc6: whose kernel and channels to thin to.

    Returns:
        Weights and biases of "fc6" and "fc7".

    Raises:
        ValueError: these layers are not in the state.
    """
    names = [f"classifier.{index}.{kind}" for index in (0, 3) for kind in ("weight", "bias")]
    missing = [name for name in names if name not in state]
    if missing:
        raise ValueError(
            f"these are not the weights of a VGG-16 classifier: missing {', '.join(missing)}."
        )
    fc6_weight, fc6_bias, fc7_weight, fc7_bias = (state[name] for name in names)
    tap = (FULL_KERNEL - 1) // (fc6.kernel_size[0] - 1)
    keep = FULL_CHANNELS // fc6.out_channels
    whole = fc6_weight.reshape(-1, POOL_CHANNELS[-1], FULL_KERNEL, FULL_KERNEL)
    return {
        "fc6.weight": whole[::keep, :, ::tap, ::tap],
        "fc6.bias": fc6_bias[::keep],
        "fc7.weight": fc7_weight[::keep, ::keep, None, None],
        "fc7.bias": fc7_bias[::keep],
    }
