"""Fully-connected CRFs for segmentation, trainable end to end (CRF-as-RNN)."""

from __future__ import annotations

from crfrnn.crf import CrfRnn
from crfrnn.presets import PRESETS, Preset
from crfrnn.refine import refine

__all__ = ["PRESETS", "CrfRnn", "Preset", "refine"]
__version__ = "0.2.0"
