"""Train the CRF together with a model of segmentation_models.pytorch, on a toy set.

    pip install segmentation-models-pytorch
    python examples/layer_behind_smp.py [OUT.png] [STEPS]

The scenes are those of layer_behind_torchvision.py, the network is a PSPNet with maps of stride 8.
Network and CRF are one module here, as a training script of smp wants it.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from layer_behind_torchvision import draw, scenes
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from crfrnn import CrfRnn

try:
    import segmentation_models_pytorch as smp
except ModuleNotFoundError:
    sys.exit("This example needs smp: pip install segmentation-models-pytorch")


class WithCrf(nn.Module):
    """A network and the CRF behind it: (B, 3, H, W) uint8 to two maps of (B, L, H, W) logits."""

    def __init__(self, network: nn.Module, crf: CrfRnn) -> None:
        super().__init__()
        self.network, self.crf = network, crf

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits before the CRF and behind it, which sees the image in 0..255."""
        unary = self.network(images / 127.5 - 1)
        return unary, self.crf(unary, images)


def main(out: str, steps: int) -> None:
    """Train network and CRF from one loss, then draw scenes that they have not seen."""
    torch.manual_seed(0)
    network = smp.PSPNet("resnet18", encoder_weights=None, encoder_depth=3, classes=3)
    # Weak at first: a random network is not to be trusted.
    crf = CrfRnn.from_scratch(3, theta_alpha=20, theta_beta=20, bilateral_weight=0.5)
    model = WithCrf(network, crf)
    optimizer = torch.optim.Adam(
        [{"params": network.parameters(), "lr": 1e-3}, {"params": crf.parameters(), "lr": 2e-2}]
    )
    rng = np.random.default_rng(0)
    for step in range(1, steps + 1):
        images, labels = scenes(8, rng)
        unary, refined = model(images)
        loss = cross_entropy(unary, labels) + cross_entropy(refined, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 25 == 0:
            print(f"step {step:3d}: loss {loss.item():.3f}")

    model.eval()
    images, labels = scenes(16, np.random.default_rng(1))
    with torch.inference_mode():
        draw(out, images, *(logits.argmax(1) for logits in model(images)), labels)


if __name__ == "__main__":
    out = sys.argv[1] if len(sys.argv) > 1 else "layer_behind_smp.png"
    main(out, int(sys.argv[2]) if len(sys.argv) > 2 else 150)
