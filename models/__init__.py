"""DeepLab networks and their union with the CRF."""

from __future__ import annotations

from models.crf import CrfConfig, CrfForm
from models.deeplabv3 import DeepLabV3, DeepLabV3Config
from models.segmenter import Segmenter, SegmenterConfig, SegmenterOutput
from models.weights import load_weights

__all__ = [
    "CrfConfig",
    "CrfForm",
    "DeepLabV3",
    "DeepLabV3Config",
    "Segmenter",
    "SegmenterConfig",
    "SegmenterOutput",
    "load_weights",
]
