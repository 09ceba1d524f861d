"""Sharpen a coarse mask with the edges of one photograph.

    python examples/refine_photograph.py [OUT.png]

A network that works at stride 16 knows where an object is, but not its outline. Here an ellipse on
a grid of 32 x 32 plays its part. `refine` needs the probabilities and the photograph, no training.
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np
from skimage import data
from skimage.transform import resize

from crfrnn import refine


def coarse_map(size: tuple[int, int], stride: int = 16) -> np.ndarray:
    """Return the probability of "person" that a coarse network may give, (H, W) float32."""
    height, width = size[0] // stride, size[1] // stride
    y, x = np.mgrid[:height, :width] / (height - 1)
    head = ((x - 0.43) / 0.16) ** 2 + ((y - 0.2) / 0.22) ** 2
    body = ((x - 0.40) / 0.38) ** 2 + ((y - 0.85) / 0.5) ** 2
    inside = np.minimum(head, body) < 1
    return resize(0.1 + 0.8 * inside, size, order=1).astype(np.float32)


def main(out: str) -> None:
    """Refine with three settings, and draw them beside each other."""
    photograph = data.astronaut()  # (512, 512, 3) uint8
    person = coarse_map(photograph.shape[:2])  # one map: background is 1 - person
    masks = {"coarse map": person > 0.5}
    for preset in ("deeplab_v2_resnet101", "stego", "psa"):
        q = refine(person, photograph, preset)  # (2, H, W), sums to one
        masks[f'refine(..., "{preset}")'] = q[1] > 0.5

    figure, axes = plt.subplots(1, 4, figsize=(16, 4.4), layout="constrained")
    for ax, (title, mask) in zip(axes, masks.items(), strict=True):
        ax.imshow(np.where(mask[..., None], photograph, 255 - (255 - photograph) // 5))
        ax.contour(mask, [0.5], colors="deepskyblue", linewidths=1)
        ax.set_title(title)
        ax.axis("off")
    figure.savefig(out, dpi=80)
    changed = (masks["coarse map"] != masks['refine(..., "deeplab_v2_resnet101")']).mean()
    print(f"{out}: the CRF changed {100 * changed:.1f} % of the pixels")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "refine_photograph.png")
