"""Clean a noisy segmentation of a volume: three axes, thick slices, one grey channel.

    python examples/volume.py [OUT.png]

The same layer takes (B, L, D, H, W). One width for each axis allows for voxels that are thicker
than wide.
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage.data import binary_blobs

from crfrnn import CrfRnn

DEPTH, SIDE = 24, 96


def main(out: str) -> None:
    """Make a volume and noisy logits, refine them, and draw one slice."""
    rng = np.random.default_rng(0)
    blobs = binary_blobs(SIDE, blob_size_fraction=0.15, n_dim=3, volume_fraction=0.4, rng=0)
    truth = torch.from_numpy(blobs[:: SIDE // DEPTH])  # slices 4 voxels apart
    scan = (90 + 60 * truth.numpy() + rng.normal(0, 12, truth.shape)).clip(0, 255).astype(np.uint8)
    evidence = torch.from_numpy(rng.normal(0, 2.0, truth.shape)).float() + truth.float() * 2 - 1
    unary = torch.stack([-evidence, evidence])[None]  # (1, 2, D, H, W), a noisy classifier

    crf = CrfRnn(
        num_labels=2,
        theta_alpha=(2.0, 8.0, 8.0),  # voxels along depth, height, width
        theta_beta=20.0,  # grey levels
        theta_gamma=(0.5, 1.5, 1.5),
        bilateral_weight=4.0,
        spatial_weight=1.0,
        normalization="after",
    ).eval()
    with torch.inference_mode():
        q = crf.marginals(unary, torch.from_numpy(scan)[None, None])

    masks = {"noisy classifier": evidence > 0, "dense CRF": q[0, 1] > 0.5, "truth": truth}
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.9), layout="constrained")
    axes[0].imshow(scan[DEPTH // 2], cmap="gray")
    axes[0].set_title("slice of the scan")
    for ax, (title, mask) in zip(axes[1:], masks.items(), strict=True):
        share = (mask == truth).float().mean().item()
        ax.imshow(mask[DEPTH // 2], cmap="gray")
        ax.set_title(f"{title}, {100 * share:.1f} % right")
    for ax in axes:
        ax.axis("off")
    figure.savefig(out, dpi=80)
    print(f"{out}: " + ", ".join(ax.get_title() for ax in axes[1:]))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "volume.png")
