"""Any of timm's backbones that can be dilated, MobileNetV2 among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

import timm
import torch
from torch import Tensor, nn

from models.backbone import load_state
from models.normalization import AFFINE, MEAN, NormalizationName

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
    """timm's own module, its keys timm's: normalised image to a list of features.

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
    """timm's module; all features where no indices are given."""
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
    """What the weights that timm publishes under a name were trained with.

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
