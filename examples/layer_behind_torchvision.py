"""Train the CRF together with a segmentation model of torchvision, on a toy set.

    python examples/layer_behind_torchvision.py [OUT.png] [STEPS]

A small LR-ASPP on MobileNetV3 starts from random weights and learns three materials: ellipses of
brick, grass and gravel on each other. Its maps are coarse, and the CRF behind it makes them sharp.
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage import data
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from crfrnn import CrfRnn

SIDE = 96
TEXTURES = (data.brick(), data.grass(), data.gravel())  # (512, 512) uint8 each
TINTS = np.array([(220, 130, 100), (120, 180, 80), (150, 160, 190)])


def scenes(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw images, (B, 3, H, W) uint8, and their labels, (B, H, W) int64."""
    y, x = np.mgrid[:SIDE, :SIDE]
    images, labels = np.zeros((count, SIDE, SIDE, 3)), np.zeros((count, SIDE, SIDE), np.int64)
    for image, label in zip(images, labels, strict=True):
        label[:] = rng.integers(3)
        for _ in range(6):
            cy, cx, a, b, angle = rng.uniform((0, 0, 4, 4, 0), (SIDE, SIDE, 28, 28, 3))
            u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
            v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
            label[(u / a) ** 2 + (v / b) ** 2 < 1] = rng.integers(3)
        for material, texture in enumerate(TEXTURES):
            top, left = rng.integers(0, 512 - SIDE, 2)
            grey = texture[top : top + SIDE, left : left + SIDE, None] / 4 - 32.0
            inside = label == material
            image[inside] = (grey + TINTS[material] + rng.normal(0, 20, 3))[inside]
    pixels = torch.from_numpy(images.clip(0, 255).astype(np.uint8))
    return pixels.permute(0, 3, 1, 2), torch.from_numpy(labels)


def draw(out: str, images: Tensor, *maps: Tensor) -> None:
    """Draw two scenes with the masks of network, CRF and truth, each (B, H, W)."""
    share = [f"{100 * (mask == maps[-1]).float().mean():.1f} % right" for mask in maps]
    titles = ["image", f"network, {share[0]}", f"network + CRF, {share[1]}", "truth"]
    figure, axes = plt.subplots(2, 4, figsize=(12, 6.2), layout="constrained")
    busy = sorted(range(len(images)), key=lambda i: -len(maps[-1][i].unique()))
    for row, index in zip(axes, busy, strict=False):
        panels = (images[index].permute(1, 2, 0), *(mask[index] for mask in maps))
        for ax, panel in zip(row, panels, strict=True):
            ax.imshow(panel, vmin=0, vmax=2)
            ax.axis("off")
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    figure.savefig(out, dpi=70)
    print(f"{out}: {', '.join(titles[1:3])}")


def main(out: str, steps: int) -> None:
    """Train network and CRF from one loss, then draw scenes that they have not seen."""
    torch.manual_seed(0)
    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 0.1  # torchvision's 0.01 is for long trainings
    # Weak at first: a random network is not to be trusted.
    crf = CrfRnn.from_scratch(3, theta_alpha=20, theta_beta=20, bilateral_weight=0.5)
    optimizer = torch.optim.Adam(
        [{"params": network.parameters(), "lr": 2e-3}, {"params": crf.parameters(), "lr": 2e-2}]
    )
    rng = np.random.default_rng(0)
    for step in range(1, steps + 1):
        images, labels = scenes(8, rng)
        unary = network(images / 127.5 - 1)["out"]  # (B, L, H, W) logits
        refined = crf(unary, images)  # the layer wants the image in 0..255
        loss = cross_entropy(unary, labels) + cross_entropy(refined, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 25 == 0:
            weight = crf.potentials.weight("bilateral").mean().item()
            print(f"step {step:3d}: loss {loss.item():.3f}, bilateral weight {weight:.2f}")

    network.eval()
    crf.eval()  # 10 iterations instead of 5
    images, labels = scenes(16, np.random.default_rng(1))
    with torch.inference_mode():
        unary = network(images / 127.5 - 1)["out"]
        draw(out, images, unary.argmax(1), crf(unary, images).argmax(1), labels)


if __name__ == "__main__":
    out = sys.argv[1] if len(sys.argv) > 1 else "layer_behind_torchvision.png"
    main(out, int(sys.argv[2]) if len(sys.argv) > 2 else 150)
