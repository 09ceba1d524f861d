"""Build every network by its name, and tell how its authors trained it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal

from models.backbones import DilatedConfig, TimmConfig
from models.deeplab_v1 import DeepLabV1, DeepLabV1Config
from models.deeplab_v2 import DeepLabV2, DeepLabV2Config
from models.deeplab_v3 import (
    CascadeConfig,
    DeepLabV3,
    DeepLabV3Cascade,
    DeepLabV3Config,
    DeepLabV3Plus,
    DeepLabV3PlusConfig,
)
from models.network import Network
from models.resnet import ResNetConfig
from models.vgg import VggConfig
from models.xception import XceptionConfig

# One name for every network: its config, its dictionary, and the module it describes.

NetworkConfig = (
    DeepLabV1Config | DeepLabV2Config | DeepLabV3Config | CascadeConfig | DeepLabV3PlusConfig
)

NETWORKS: dict[Any, Callable[[int, Any], Network]] = {
    DeepLabV1Config: DeepLabV1,
    DeepLabV2Config: DeepLabV2,
    DeepLabV3Config: DeepLabV3,
    CascadeConfig: DeepLabV3Cascade,
    DeepLabV3PlusConfig: DeepLabV3Plus,
}
BACKBONES = (VggConfig, ResNetConfig, XceptionConfig, TimmConfig)

KINDS: dict[str, Any] = {config.kind: config for config in (*NETWORKS, *BACKBONES)}


def register(config: Any, build: Callable[[int, Any], Network]) -> None:
    """Make a network of your own known to recipes, checkpoints and commands.

    Args:
        config: frozen dataclass of its numbers, with a name of its own as
            `kind: Literal["mine"] = field(default="mine", init=False)`.
        build: called with (num_classes, config); usually the subclass of `Network` itself.

    Raises:
        ValueError: another network or backbone has that name.
    """
    if KINDS.get(config.kind, config) is not config:
        raise ValueError(f"kind {config.kind!r} is the name of {KINDS[config.kind].__name__}.")
    NETWORKS[config] = build
    KINDS[config.kind] = config


def build_network(config: NetworkConfig, num_classes: int) -> Network:
    """Build the module that a config describes."""
    return NETWORKS[type(config)](num_classes, config)


def network_from_dict(values: Mapping[str, Any]) -> NetworkConfig:
    """Rebuild the config whose `dataclasses.asdict` is `values`.

    Raises:
        KeyError: of a kind that is not registered.
        TypeError: with other fields than this version's.
    """
    arguments = {
        key: network_from_dict(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if key != "kind"
    }
    return KINDS[values["kind"]](**arguments)  # type: ignore[no-any-return]


def without_pretrained(config: NetworkConfig) -> NetworkConfig:
    """Describe the same network without fetching weights: they come from elsewhere."""
    if "backbone" not in {f.name for f in fields(config)}:
        return config
    return replace(config, backbone=replace(config.backbone, pretrained=False))  # type: ignore[arg-type]


def at_output_stride(config: NetworkConfig, output_stride: int) -> NetworkConfig:
    """Describe the same network with finer or coarser features; its weights still fit.

    Raises:
        ValueError: it has one output stride, as DeepLab v1 and v2.
    """
    if "output_stride" not in {f.name for f in fields(config)}:
        raise ValueError(f"output_stride: {config.kind} has only one output stride; leave it out.")
    return replace(config, output_stride=output_stride)  # type: ignore[arg-type]


def with_backbone(config: NetworkConfig, backbone: DilatedConfig) -> NetworkConfig:
    """Put the same head behind another backbone.

    Raises:
        ValueError: the head belongs to its backbone, as in DeepLab v1, v2 and the cascade.
    """
    if not isinstance(config, DeepLabV3Config | DeepLabV3PlusConfig):
        raise ValueError(
            f"another backbone goes with the heads of DeepLab v3 and v3+, not with "
            f"{config.kind}: choose a builder deeplab_v3_... or deeplab_v3plus_...."
        )
    return replace(config, backbone=backbone)


# How the authors trained each DeepLab.
#
# Numbers of the papers and of the authors' published definitions; `note` says what they leave
# open. `python -m models describe` shows them, and the recipes of `train` that carry a paper's
# name read them here.


@dataclass(frozen=True)
class PublishedRecipe:
    """SGD with momentum 0.9 on PASCAL VOC 2012 with the SBD annotations.

    Attributes:
        crop: pixels.
        batch: images.
        steps: iterations.
        lr: of the backbone's weights, at the first step.
        schedule: "step" divides by 10 every 2000 iterations, "poly" is (1 - t / T)^0.9.
        head_multiplier: of the head's learning rate.
        weight_decay: of weights.
        bias_multiplier: of the learning rate of biases.
        label_stride: pixels from one label of the loss to the next.
        note: what else belongs to it.
    """

    crop: int
    batch: int
    steps: int
    lr: float
    schedule: Literal["step", "poly"]
    head_multiplier: float
    weight_decay: float
    bias_multiplier: float = 1
    label_stride: Literal[1, 8] = 1
    note: str = ""

    def __str__(self) -> str:
        """Write one line for tables."""
        text = (
            f"crop {self.crop}, batch {self.batch}, {self.steps // 1000}k steps, "
            f"lr {self.lr:g} {self.schedule}, head x{self.head_multiplier:g}, "
            f"biases x{self.bias_multiplier:g}, decay {self.weight_decay:g}, "
            f"labels at stride {self.label_stride}"
        )
        return f"{text}; {self.note}" if self.note else text


V1_RECIPE = PublishedRecipe(321, 20, 6_000, 1e-3, "step", 10, 5e-4, 2, 8)
V1_MSC = PublishedRecipe(321, 20, 6_000, 1e-3, "step", 10, 5e-4, 2, 8, "only the branches learn")
V2_VGG = PublishedRecipe(321, 10, 20_000, 1e-3, "poly", 10, 5e-4, 2, 8)
V2_RESNET = PublishedRecipe(321, 10, 20_000, 2.5e-4, "poly", 10, 5e-4, 2, 8, "frozen BN")
V3_RECIPE = PublishedRecipe(513, 16, 30_000, 7e-3, "poly", 1, 1e-4)
V3_STRIDE_8 = PublishedRecipe(
    513, 16, 30_000, 1e-3, "poly", 1, 1e-4, note="from stride 16, frozen BN"
)
V3PLUS_RESNET = PublishedRecipe(513, 16, 30_000, 7e-3, "poly", 1, 1e-4)
V3PLUS_XCEPTION = PublishedRecipe(
    513, 16, 30_000, 7e-3, "poly", 1, 4e-5, note="depthwise weights do not decay"
)


# Every network by its name, with every number that is not a default.
#
#     build("deeplab_v3plus_xception65", num_classes=21)
#
# The defaults of the configs are the papers' values. Names of DeepLab v1 and v2 end in `_msc`
# where several scales are added or fused; those of v3 and v3+ in `_os8` at output stride 8.


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
    """Build the network of a name.

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
    """Find the entry of a name.

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
    """Describe the same network with the ImageNet weights of torchvision or timm.

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
    """Describe a ResNet of v3 or v3+."""
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
    """Describe v3+ with atrous separable convolutions in pyramid and decoder."""
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
    """List all networks, by version."""
    found: dict[str, Builder] = {}
    for name, backbone in V1.items():
        config = DeepLabV1Config(backbone=backbone)
        found[f"deeplab_v1_{name}"] = Builder(config, V1_RECIPE)
        found[f"deeplab_v1_{name}_msc"] = Builder(replace(config, msc=True), V1_MSC)
    for name, v2 in V2.items():
        recipe = V2_VGG if name.startswith("vgg") else V2_RESNET
        found[f"deeplab_v2_{name}"] = Builder(v2, recipe)
        found[f"deeplab_v2_{name}_msc"] = Builder(replace(v2, scales=SCALES), recipe)
    for name, v3 in V3.items():
        found[f"deeplab_v3_{name}"] = Builder(v3, V3_RECIPE)
        found[f"deeplab_v3_{name}_os8"] = Builder(replace(v3, output_stride=8), V3_STRIDE_8)
    for name, v3plus in V3PLUS.items():
        xception = isinstance(v3plus.backbone, XceptionConfig)
        recipe = V3PLUS_XCEPTION if xception else V3PLUS_RESNET
        found[f"deeplab_v3plus_{name}"] = Builder(v3plus, recipe)
        found[f"deeplab_v3plus_{name}_os8"] = Builder(replace(v3plus, output_stride=8), recipe)
    return found


BUILDERS = registry()


def published_network() -> DeepLabV3Config:
    """Return the config of the published MobileNetV2 weights."""
    return PUBLISHED_MOBILENET
