"""DeepLab networks and their union with the CRF."""

from __future__ import annotations

from models.backbones import backbone_named
from models.builders import BUILDERS, build, builder, pretrained_config, published_network
from models.cascade import CascadeConfig, DeepLabV3Cascade
from models.crf import CrfConfig, CrfForm
from models.deeplabv1 import DeepLabV1, DeepLabV1Config
from models.deeplabv2 import DeepLabV2, DeepLabV2Config
from models.deeplabv3 import DeepLabV3, DeepLabV3Config
from models.deeplabv3plus import DeepLabV3Plus, DeepLabV3PlusConfig
from models.network import Network, NetworkOutput, ScaleLogits
from models.networks import NetworkConfig, build_network, with_backbone, without_pretrained
from models.resnet import ResNetConfig
from models.segmenter import Segmenter, SegmenterConfig, SegmenterOutput
from models.timm_backbone import TimmConfig
from models.vgg import VggConfig
from models.weights import load_backbone_weights, load_weights
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
    "with_backbone",
    "without_pretrained",
]
