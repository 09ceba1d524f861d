"""Learn a mask from fifteen clicks, with and without the dense-CRF loss.

    python examples/weak_labels.py [OUT.png] [STEPS]

A small network sees one photograph and the labels of a few pixels. Cross-entropy alone explains the
clicks and leaves the rest to chance; the dense-CRF loss (Tang et al., ECCV 2018) asks pixels that
look alike for the same label, at every pixel, without a label.
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage import data
from skimage.transform import resize
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from crfrnn.losses import DenseCrfLoss

VOID = 255
# (row, column) in the photograph of 192 x 288: on the cup, its saucer and spoon; beside them
CUP = [(45, 90), (90, 112), (45, 172), (112, 172), (82, 210), (142, 112), (120, 45), (68, 135)]
TABLE = [(15, 22), (15, 262), (172, 22), (176, 262), (82, 15), (98, 278), (182, 142)]


def network() -> nn.Sequential:
    """Make a network that sees colour and place: (1, 5, H, W) to (1, 2, H, W)."""
    layers: list[nn.Module] = []
    channels = 5
    for dilation in (1, 2, 4):
        layers += [nn.Conv2d(channels, 24, 3, padding=dilation, dilation=dilation), nn.ReLU()]
        channels = 24
    return nn.Sequential(*layers, nn.Conv2d(channels, 2, 1))


def train(image: Tensor, clicks: Tensor, weight: float, steps: int) -> Tensor:
    """Return the mask, (H, W) bool, that is learnt from the clicks with this weight of the loss."""
    torch.manual_seed(0)
    model, dense_crf = network(), DenseCrfLoss(theta_alpha=60, theta_beta=12)
    height, width = image.shape[2:]
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    seen = torch.cat([image / 127.5 - 1, torch.stack([y, x])[None]], dim=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        logits = model(seen)
        loss = cross_entropy(logits, clicks, ignore_index=VOID)
        if weight > 0:
            loss = loss + weight * dense_crf(logits, image)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model(seen)[0].argmax(0).bool()


def main(out: str, steps: int) -> None:
    """Train twice, and draw both masks beside the clicks."""
    photograph = (resize(data.coffee(), (192, 288)) * 255).round().astype(np.uint8)
    image = torch.from_numpy(photograph).permute(2, 0, 1)[None]
    clicks = torch.full((1, 192, 288), VOID)
    for label, places in ((1, CUP), (0, TABLE)):
        for row, column in places:
            clicks[0, row, column] = label
    masks = {
        "cross-entropy of the clicks": train(image, clicks, 0.0, steps),
        "and the dense-CRF loss": train(image, clicks, 2.0, steps),
    }
    figure, axes = plt.subplots(1, 3, figsize=(15, 3.7), layout="constrained")
    axes[0].imshow(photograph)
    for places, colour in ((CUP, "deepskyblue"), (TABLE, "black")):
        axes[0].scatter([x for _, x in places], [y for y, _ in places], c=colour, s=60, ec="white")
    axes[0].set_title("photograph and clicks")
    for ax, (title, mask) in zip(axes[1:], masks.items(), strict=True):
        ax.imshow(np.where(mask[..., None], photograph, 255 - (255 - photograph) // 5))
        ax.set_title(title)
    for ax in axes:
        ax.axis("off")
    figure.savefig(out, dpi=80)
    print(f"{out}: " + ", ".join(f"{100 * m.float().mean():.0f} % cup" for m in masks.values()))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(
        arguments[0] if arguments else "weak_labels.png",
        int(arguments[1]) if len(arguments) > 1 else 100,
    )
