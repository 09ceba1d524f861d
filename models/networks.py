"""One name for every network: its config, its dictionary, and the module it describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from models.backbones import DilatedConfig
from models.cascade import CascadeConfig, DeepLabV3Cascade
from models.deeplabv1 import DeepLabV1, DeepLabV1Config
from models.deeplabv2 import DeepLabV2, DeepLabV2Config
from models.deeplabv3 import DeepLabV3, DeepLabV3Config
from models.deeplabv3plus import DeepLabV3Plus, DeepLabV3PlusConfig
from models.network import Network
from models.resnet import ResNetConfig
from models.timm_backbone import TimmConfig
from models.vgg import VggConfig
from models.xception import XceptionConfig

NetworkConfig = (
    DeepLabV1Config | DeepLabV2Config | DeepLabV3Config | CascadeConfig | DeepLabV3PlusConfig
)

NETWORKS: dict[type, Callable[..., Network]] = {
    DeepLabV1Config: DeepLabV1,
    DeepLabV2Config: DeepLabV2,
    DeepLabV3Config: DeepLabV3,
    CascadeConfig: DeepLabV3Cascade,
    DeepLabV3PlusConfig: DeepLabV3Plus,
}
BACKBONES = (VggConfig, ResNetConfig, XceptionConfig, TimmConfig)

KINDS: dict[str, type] = {config.kind: config for config in (*NETWORKS, *BACKBONES)}  # type: ignore[attr-defined]


def build_network(config: NetworkConfig, num_classes: int) -> Network:
    """The module that a config describes."""
    return NETWORKS[type(config)](num_classes, config)


def network_from_dict(values: Mapping[str, Any]) -> NetworkConfig:
    """The config whose `dataclasses.asdict` is `values`.

    Raises:
        KeyError: of a kind that is none of ours.
        TypeError: with other fields than this version's.
    """
    arguments = {**values, "backbone": _from_dict(values["backbone"])}
    return _from_dict(arguments)  # type: ignore[no-any-return]


def _from_dict(values: Mapping[str, Any]) -> Any:
    arguments = {key: value for key, value in values.items() if key != "kind"}
    return KINDS[values["kind"]](**arguments)


def without_pretrained(config: NetworkConfig) -> NetworkConfig:
    """The same network, its weights not fetched: they come from elsewhere."""
    return replace(config, backbone=replace(config.backbone, pretrained=False))  # type: ignore[arg-type]


def at_output_stride(config: NetworkConfig, output_stride: int) -> NetworkConfig:
    """The same network with finer or coarser features; the weights go on fitting.

    Raises:
        ValueError: it has one output stride, as DeepLab v1 and v2.
    """
    if isinstance(config, DeepLabV1Config | DeepLabV2Config):
        raise ValueError(f"output_stride: {config.kind} has one output stride, 8; leave it out.")
    return replace(config, output_stride=output_stride)


def with_backbone(config: NetworkConfig, backbone: DilatedConfig) -> NetworkConfig:
    """The same head behind another backbone.

    Raises:
        ValueError: the head belongs to its backbone, as in DeepLab v1, v2 and the cascade.
    """
    if not isinstance(config, DeepLabV3Config | DeepLabV3PlusConfig):
        raise ValueError(
            f"another backbone goes with the heads of DeepLab v3 and v3+, not with "
            f"{config.kind}: choose a builder deeplab_v3_... or deeplab_v3plus_...."
        )
    return replace(config, backbone=backbone)
