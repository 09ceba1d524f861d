"""A scene that a CRF can improve: two colours, and a network that is unsure of the border."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from data.dataset import LabelSet, voc_palette
from eval.explore.scenes import Scene, Scenes
from eval.predict import POST_HOC

SETTING = replace(POST_HOC, theta_alpha=8.0, theta_beta=20.0, num_iterations_eval=4)
LABELS = LabelSet(("ground", "tree", "<sky>"), (0, 1, 2), voc_palette())


def two_colours(height: int = 40, width: int = 60, *, truth: bool = True) -> Scene:
    """The right part is another colour; the logits are noisy and their border is off by four."""
    generator = np.random.default_rng(0)
    true = np.zeros((height, width), dtype=np.uint8)
    true[:, width // 2 :] = 1
    colours = np.array([[60, 140, 50], [180, 170, 40]])
    pixels = (colours[true] + generator.normal(0, 4, (height, width, 3))).clip(0, 255)
    seen = np.roll(true, 4, axis=1)
    seen[:, :4] = 0
    logits = np.eye(3)[seen].transpose(2, 0, 1) + generator.normal(0, 0.3, (3, height, width))
    if truth:
        true[0] = 255
    return Scene(
        "two",
        pixels.astype(np.uint8),
        torch.from_numpy(logits[None].astype(np.float32)),
        true if truth else None,
    )


def two_scenes() -> Scenes:
    """The scene with its truth, and one of another size without."""
    loaders = {"one": two_colours, "other": lambda: two_colours(30, 50, truth=False)}
    return Scenes(LABELS, loaders, {"one": Path("one.png")})
