"""Backbones by name: ours, and all of timm that can be dilated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

import timm
import torch
from torch import Tensor, nn

from models.layers import AFFINE, MEAN, Backbone, NormalizationName, load_state
from models.resnet import ResNetBackbone, ResNetConfig
from models.xception import XceptionBackbone, XceptionConfig

# Any of timm's backbones that can be dilated, MobileNetV2 among them.

HALF_MEAN = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class TimmConfig:
    """One of timm's backbones.

    Attributes:
        name: timm's.
        pretrained: load timm's ImageNet weights (needs the internet).
        normalization: of the input, as the weights were trained with;
            `published_normalization` knows.
    """

    kind: Literal["timm"] = field(default="timm", init=False)
    name: str = "mobilenetv2_100"
    pretrained: bool = False
    normalization: NormalizationName = "imagenet"

    def __post_init__(self) -> None:
        if not timm.is_model(self.name):
            near = get_close_matches(self.name, timm.list_models(), n=5, cutoff=0.5)
            raise ValueError(
                f"backbone must be one of timm's models, got {self.name!r}. "
                f"Similar names: {', '.join(near) or 'none'}."
            )


def timm_backbone(config: TimmConfig, output_stride: int, *, low_level: bool) -> nn.Module:
    """Build timm's own module, its keys timm's: normalised image to a list of features.

    Args:
        config: which.
        output_stride: that it is dilated to.
        low_level: return the features at stride 4, too, before the last.

    Raises:
        ValueError: it cannot be dilated, or has no features at stride 4.
    """
    indices: tuple[int, ...] = (-1,)
    if low_level:
        with torch.device("meta"):
            info = created(config, output_stride, None, pretrained=False).feature_info
        reductions = info.reduction()  # type: ignore[union-attr, operator]
        if 4 not in reductions:
            raise ValueError(
                f"backbone {config.name!r} has features at strides {reductions}: the decoder "
                "needs stride 4. Choose another, or a network without a decoder."
            )
        indices = (reductions.index(4), -1)
    return created(config, output_stride, indices, pretrained=config.pretrained)


def created(
    config: TimmConfig, output_stride: int, indices: tuple[int, ...] | None, *, pretrained: bool
) -> nn.Module:
    """Build timm's module; it returns all features where no indices are given."""
    try:
        return timm.create_model(
            config.name,
            pretrained=pretrained,
            features_only=True,
            output_stride=output_stride,
            out_indices=indices,
        )
    # Each of timm's families refuses in its own way; its VGG asserts.
    except (TypeError, NotImplementedError, AssertionError) as error:
        raise ValueError(
            f"backbone {config.name!r} cannot be dilated to output stride {output_stride} "
            f"({error!r}). Choose a convolutional network that timm builds with `output_stride`, "
            "for example mobilenetv2_100 or resnext50_32x4d."
        ) from error


def load_timm(backbone: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load the state dict of one of timm's classifiers into what `timm_backbone` made of it.

    Keys that the backbone lacks are the classifier's: its last layers were cut off.

    Raises:
        ValueError: a key of the backbone is missing or of another shape.
    """
    expected = backbone.state_dict()
    known = {key: value for key, value in state.items() if key in expected}
    load_state(backbone, known, unused=())


def published_normalization(name: str) -> NormalizationName:
    """Find the input normalisation of the weights that timm publishes under a name.

    Raises:
        ValueError: something that has no name here.
    """
    published = timm.get_pretrained_cfg(name)
    mean = MEAN if published is None else tuple(published.mean)
    known: dict[tuple[float, ...], NormalizationName] = {MEAN: "imagenet", HALF_MEAN: "half"}
    if mean not in known:
        raise ValueError(
            f"timm's weights of {name!r} were trained with the mean {mean}, which is none of "
            f"{', '.join(AFFINE)}: choose another backbone."
        )
    return known[mean]


# One name for every backbone: its config, and the module that a config describes.

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
    """Build the module that a config describes, dilated.

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
    """Find the config of a backbone by its name.

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
