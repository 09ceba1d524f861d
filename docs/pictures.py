"""Draw the pictures of README and pages: `python docs/pictures.py WEIGHTS.safetensors`.

WEIGHTS is a published DeepLabv3 on MobileNetV2 (see docs/training.md); the photograph of a
motorcycle is scikit-image's. Everything else follows from the two.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from skimage import data as photographs

from crfrnn import refine
from models import Segmenter, SegmenterConfig, load_weights, published_network

PICTURES = Path(__file__).parent / "pictures"
LABEL, COLOUR = 14, np.array([0, 160, 255])  # the motorbike of VOC


def main(weights: Path) -> None:
    """Draw all pictures."""
    image = photographs.stereo_motorcycle()[0][60:470, 60:]
    p = probabilities(image, weights)
    sharp = refine(p, image, "deeplab_v2_resnet101")
    figure, axes = plt.subplots(1, 3, figsize=(12, 2.75), layout="constrained")
    panel(axes[0], image, "photograph")
    panel(axes[1], overlay(image, p), "network, stride 16")
    panel(axes[2], overlay(image, sharp), "network + dense CRF")
    save(figure, "motorcycle.jpg")
    sweep(image, p)


def probabilities(image: np.ndarray, weights: Path) -> np.ndarray:
    """Return the network's (21, H, W) softmax."""
    segmenter = Segmenter(SegmenterConfig(21, published_network(), None)).eval()
    load_weights(segmenter.network, weights)
    with torch.inference_mode():
        output = segmenter(torch.from_numpy(image).permute(2, 0, 1)[None])
    return output.unary[0].softmax(0).numpy()


def sweep(image: np.ndarray, p: np.ndarray) -> None:
    """Draw one photograph under several widths: theta_alpha by columns, theta_beta by rows."""
    alphas, betas = (10, 40, 80, 160), (3, 13, 40)
    figure, axes = plt.subplots(len(betas), len(alphas), figsize=(12, 8.6), layout="constrained")
    for row, beta in zip(axes, betas, strict=True):
        for ax, alpha in zip(row, alphas, strict=True):
            q = refine(p, image, theta_alpha=alpha, theta_beta=beta)
            panel(
                ax, overlay(image, q)[120:400, 330:640], f"theta_alpha {alpha}, theta_beta {beta}"
            )
    save(figure, "theta.jpg")


def overlay(image: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Tint the pixels whose likeliest label is the motorbike, and draw their border."""
    mask = q.argmax(0) == LABEL
    border = mask ^ (
        mask
        & np.roll(mask, 1, 0)
        & np.roll(mask, -1, 0)
        & np.roll(mask, 1, 1)
        & np.roll(mask, -1, 1)
    )
    tinted = np.where(mask[..., None], 0.5 * image + 0.5 * COLOUR, 0.6 * image + 90)
    return np.where(border[..., None], COLOUR, tinted).astype(np.uint8)


def panel(ax: Axes, picture: np.ndarray, title: str) -> None:
    """Show one picture under its title."""
    ax.imshow(picture)
    ax.set_title(title, fontsize=11)
    ax.axis("off")


def save(figure: Figure, name: str) -> None:
    """Write a picture that is light to load."""
    PICTURES.mkdir(exist_ok=True)
    figure.savefig(PICTURES / name, dpi=100, pil_kwargs={"quality": 85})
    plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
