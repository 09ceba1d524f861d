"""One name for every backbone: its config, and the module that a config describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from models.backbone import Backbone
from models.resnet import ResNetBackbone, ResNetConfig
from models.timm_backbone import TimmConfig, load_timm, published_normalization, timm_backbone
from models.xception import XceptionBackbone, XceptionConfig

DilatedConfig = ResNetConfig | XceptionConfig | TimmConfig


@dataclass(frozen=True)
class BuiltBackbone:
    """A backbone's module, and the channels of its features.

    Attributes:
        module: normalised image to features, at stride 4 first where asked for, the coarsest
            last.
        low_channels: of the features at stride 4.
        channels: of the coarsest.
    """

    module: nn.Module
    low_channels: int
    channels: int


def build_backbone(
    config: DilatedConfig, output_stride: int, *, low_level: bool = False
) -> BuiltBackbone:
    """The module that a config describes, dilated.

    Args:
        config: of one backbone.
        output_stride: image size over feature size.
        low_level: the first features are at stride 4.
    """
    if isinstance(config, TimmConfig):
        timm_module = timm_backbone(config, output_stride, low_level=low_level)
        channels = timm_module.feature_info.channels()  # type: ignore[union-attr, operator]
        return BuiltBackbone(timm_module, channels[0], channels[-1])
    module: Backbone
    if isinstance(config, ResNetConfig):
        module = ResNetBackbone(config, output_stride)
    else:
        module = XceptionBackbone(config, output_stride)
    return BuiltBackbone(module, module.channels[0], module.channels[-1])


def load_backbone(backbone: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load the state dict of the ImageNet classifier that a backbone was cut from.

    Raises:
        ValueError: it is another architecture's.
    """
    if isinstance(backbone, Backbone):
        backbone.load_pretrained(state)
    else:
        load_timm(backbone, state)


def backbone_named(name: str) -> DilatedConfig:
    """The config of a backbone by its name.

    Args:
        name: resnet50 and resnet101 are torchvision's, xception41, xception65 and xception71
            timm's with the decoder's tap; any other is timm's.

    Raises:
        ValueError: there is none of that name, or its input is normalised in a way of its own.
    """
    if name in ("resnet50", "resnet101"):
        return ResNetConfig(depth=int(name.removeprefix("resnet")))
    if name in ("xception41", "xception65", "xception71"):
        return XceptionConfig(depth=int(name.removeprefix("xception")))
    TimmConfig(name)  # its error suggests similar names
    return TimmConfig(name, normalization=published_normalization(name))
