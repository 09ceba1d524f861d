"""Fully-connected CRFs for segmentation, trainable end to end (CRF-as-RNN)."""

from __future__ import annotations

from crfrnn.crf import CrfRnn
from crfrnn.presets import PRESETS, Preset

__all__ = ["PRESETS", "CrfRnn", "Preset"]
__version__ = "0.1.0"
