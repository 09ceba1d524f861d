"""DeepLab networks and their union with the CRF."""

from __future__ import annotations

from models.backbones import TimmConfig, backbone_named
from models.crf import CrfConfig, CrfForm
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
from models.network import (
    Network,
    NetworkOutput,
    ScaleLogits,
    load_backbone_weights,
    load_weights,
)
from models.registry import (
    BUILDERS,
    NetworkConfig,
    build,
    build_network,
    builder,
    pretrained_config,
    published_network,
    register,
    with_backbone,
    without_pretrained,
)
from models.resnet import ResNetConfig
from models.segmenter import Segmenter, SegmenterConfig, SegmenterOutput
from models.vgg import VggConfig
from models.xception import XceptionConfig

__all__ = [
    "BUILDERS",
    "CascadeConfig",
    "CrfConfig",
    "CrfForm",
    "DeepLabV1",
    "DeepLabV1Config",
    "DeepLabV2",
    "DeepLabV2Config",
    "DeepLabV3",
    "DeepLabV3Cascade",
    "DeepLabV3Config",
    "DeepLabV3Plus",
    "DeepLabV3PlusConfig",
    "Network",
    "NetworkConfig",
    "NetworkOutput",
    "ResNetConfig",
    "ScaleLogits",
    "Segmenter",
    "SegmenterConfig",
    "SegmenterOutput",
    "TimmConfig",
    "VggConfig",
    "XceptionConfig",
    "backbone_named",
    "build",
    "build_network",
    "builder",
    "load_backbone_weights",
    "load_weights",
    "pretrained_config",
    "published_network",
    "register",
    "with_backbone",
    "without_pretrained",
]
