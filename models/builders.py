"""Every network by its name, with every number that is not a default.

    build("deeplab_v3plus_xception65", num_classes=21)

The defaults of the configs are the papers' values. Names of DeepLab v1 and v2 end in `_msc`
where several scales are added or fused; those of v3 and v3+ in `_os8` at output stride 8.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches

from models import published
from models.cascade import CascadeConfig
from models.deeplabv1 import DeepLabV1Config
from models.deeplabv2 import DeepLabV2Config
from models.deeplabv3 import DeepLabV3Config
from models.deeplabv3plus import DeepLabV3PlusConfig
from models.network import Network
from models.networks import NetworkConfig, build_network
from models.published import PublishedRecipe
from models.resnet import ResNetConfig
from models.timm_backbone import TimmConfig
from models.vgg import VggConfig
from models.xception import XceptionConfig


@dataclass(frozen=True)
class Builder:
    """One network of the registry.

    Attributes:
        config: its numbers.
        recipe: how the authors trained it.
    """

    config: NetworkConfig
    recipe: PublishedRecipe


def build(name: str, num_classes: int, *, pretrained: bool = False) -> Network:
    """The network of a name.

    Args:
        name: a key of `BUILDERS`.
        num_classes: L.
        pretrained: load ImageNet weights into the backbone (needs the internet); see
            `pretrained_config`.

    Raises:
        ValueError: there is no network of that name; suggests the nearest.
    """
    config = builder(name).config
    return build_network(pretrained_config(config) if pretrained else config, num_classes)


def builder(name: str) -> Builder:
    """The entry of a name.

    Raises:
        ValueError: there is none; suggests the nearest.
    """
    if name not in BUILDERS:
        near = get_close_matches(name, BUILDERS, n=3, cutoff=0.4)
        raise ValueError(
            f"unknown network {name!r}. Nearest names: {', '.join(near) or 'none'}; "
            "`python -m models list` shows all."
        )
    return BUILDERS[name]


def pretrained_config(config: NetworkConfig) -> NetworkConfig:
    """The same network with the ImageNet weights of torchvision or timm in its backbone.

    torchvision's ResNets were trained with the stride in the 3x3 convolution: it moves there.
    """
    backbone = config.backbone
    if isinstance(backbone, ResNetConfig):
        backbone = replace(backbone, stride_in_1x1=False)
    return replace(config, backbone=replace(backbone, pretrained=True))  # type: ignore[arg-type]


LARGE_FOV = VggConfig(fc_kernel=3, fc_channels=1024, rates=(12,))
SCALES = (0.5, 0.75, 1.0)
ASPP_S, ASPP_L = (2, 4, 8, 12), (6, 12, 18, 24)

V1 = {
    "7x7": VggConfig(fc_kernel=7, fc_channels=4096, rates=(4,)),
    "4x4": VggConfig(fc_kernel=4, fc_channels=4096, rates=(4,)),
    "4x4_r8": VggConfig(fc_kernel=4, fc_channels=4096, rates=(8,)),
    "largefov": replace(LARGE_FOV, average_pool=True),
}

V2 = {
    "vgg16_largefov": DeepLabV2Config(backbone=LARGE_FOV, rates=()),
    "vgg16_aspp_s": DeepLabV2Config(backbone=replace(LARGE_FOV, rates=ASPP_S), rates=()),
    "vgg16_aspp_l": DeepLabV2Config(backbone=replace(LARGE_FOV, rates=ASPP_L), rates=()),
    "resnet101_largefov": DeepLabV2Config(rates=(12,)),
    "resnet101_aspp_l": DeepLabV2Config(rates=ASPP_L),
}


def resnet(depth: int, multi_grid: tuple[int, int, int]) -> ResNetConfig:
    """A ResNet of v3 or v3+."""
    return ResNetConfig(depth=depth, multi_grid=multi_grid)


PYRAMID_GRID, CASCADE_GRID = (1, 2, 4), (1, 2, 1)  # v3, sections 4.2 and 4.1
BETA = replace(resnet(101, PYRAMID_GRID), deep_stem=True)

# The authors' published MobileNetV2 model: no atrous branches.
MOBILENET = TimmConfig("mobilenetv2_100", normalization="half")
PUBLISHED_MOBILENET = DeepLabV3Config(backbone=MOBILENET, atrous_rates=())

V3: dict[str, DeepLabV3Config | CascadeConfig] = {
    "resnet50": DeepLabV3Config(backbone=resnet(50, PYRAMID_GRID)),
    "resnet101": DeepLabV3Config(backbone=resnet(101, PYRAMID_GRID)),
    "resnet101_beta": DeepLabV3Config(backbone=BETA),
    "mobilenetv2": PUBLISHED_MOBILENET,
    **{
        f"resnet{depth}_block{4 + blocks}": CascadeConfig(
            backbone=resnet(depth, CASCADE_GRID), blocks=blocks
        )
        for depth in (50, 101)
        for blocks in range(4)
    },
}


def separable(backbone: ResNetConfig | XceptionConfig | TimmConfig) -> DeepLabV3PlusConfig:
    """v3+ with atrous separable convolutions in pyramid and decoder."""
    return DeepLabV3PlusConfig(backbone=backbone, separable_aspp=True, separable_decoder=True)


V3PLUS = {
    "resnet50": DeepLabV3PlusConfig(backbone=resnet(50, PYRAMID_GRID)),
    "resnet101": DeepLabV3PlusConfig(backbone=resnet(101, PYRAMID_GRID)),
    "resnet101_separable": separable(resnet(101, PYRAMID_GRID)),
    "xception41": separable(XceptionConfig(depth=41)),
    "xception65": separable(XceptionConfig(depth=65)),
    "xception65_standard": DeepLabV3PlusConfig(backbone=XceptionConfig(depth=65)),
    "xception71": separable(XceptionConfig(depth=71)),
    "mobilenetv2": separable(MOBILENET),
}


def registry() -> dict[str, Builder]:
    """All networks, by version."""
    found: dict[str, Builder] = {}
    for name, backbone in V1.items():
        config = DeepLabV1Config(backbone=backbone)
        found[f"deeplab_v1_{name}"] = Builder(config, published.V1)
        found[f"deeplab_v1_{name}_msc"] = Builder(replace(config, msc=True), published.V1_MSC)
    for name, v2 in V2.items():
        recipe = published.V2_VGG if name.startswith("vgg") else published.V2_RESNET
        found[f"deeplab_v2_{name}"] = Builder(v2, recipe)
        found[f"deeplab_v2_{name}_msc"] = Builder(replace(v2, scales=SCALES), recipe)
    for name, v3 in V3.items():
        found[f"deeplab_v3_{name}"] = Builder(v3, published.V3)
        found[f"deeplab_v3_{name}_os8"] = Builder(
            replace(v3, output_stride=8), published.V3_STRIDE_8
        )
    for name, v3plus in V3PLUS.items():
        xception = isinstance(v3plus.backbone, XceptionConfig)
        recipe = published.V3PLUS_XCEPTION if xception else published.V3PLUS_RESNET
        found[f"deeplab_v3plus_{name}"] = Builder(v3plus, recipe)
        found[f"deeplab_v3plus_{name}_os8"] = Builder(replace(v3plus, output_stride=8), recipe)
    return found


BUILDERS = registry()


def published_network() -> DeepLabV3Config:
    """The network of the published MobileNetV2 weights."""
    return PUBLISHED_MOBILENET
