"""A checkpoint of random weights, and photographs to show it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data import CollageConfig, DataConfig, config_to_dict
from models import CrfConfig, Segmenter, SegmenterConfig
from runtime.checkpoint import save_checkpoint
from tests.eval.plain_networks import CRF, TINY


def tiny_checkpoint(
    path: Path, crf: CrfConfig | None = CRF, data: DataConfig | None = None
) -> Path:
    """Written with the same weights whatever the CRF."""
    torch.manual_seed(0)
    config = data or CollageConfig(size=33)
    classes = len(config.label_set().classes)
    segmenter = Segmenter(SegmenterConfig(classes, TINY, crf)).eval()
    # So that several classes win somewhere: random weights alone hardly move the logits.
    for parameter in segmenter.network.parameters():
        parameter.data *= 1.15
    of_data = config_to_dict(config)
    save_checkpoint(path, segmenter, data=of_data, arm="joint", seed=0, step=1, training={})
    return path


def write_photograph(path: Path, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blobs of colour, (H, W, 3) uint8; a PNG, so that it is read as it is written."""
    generator = np.random.default_rng(seed)
    colours = generator.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    picture = Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return np.asarray(picture)
