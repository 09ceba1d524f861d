"""What a backbone makes of RGB in 0..255 before its first convolution."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

NormalizationName = Literal["imagenet", "half", "caffe"]


class Affine(NamedTuple):
    """x -> x / scale - shift, channel by channel."""

    scale: tuple[float, float, float]
    shift: tuple[float, float, float]


MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in 0..1

AFFINE: dict[NormalizationName, Affine] = {
    "imagenet": Affine(
        scale=(255 * DEVIATION[0], 255 * DEVIATION[1], 255 * DEVIATION[2]),
        shift=(MEAN[0] / DEVIATION[0], MEAN[1] / DEVIATION[1], MEAN[2] / DEVIATION[2]),
    ),
    "half": Affine(scale=(127.5, 127.5, 127.5), shift=(1.0, 1.0, 1.0)),
    "caffe": Affine(scale=(1.0, 1.0, 1.0), shift=(104.008, 116.669, 122.675)),
}


class InputNormalization(nn.Module):
    """RGB in 0..255 as the weights of a backbone expect it.

    Args:
        name: "imagenet", mean and deviation of ImageNet (torchvision's weights); "half",
            x / 127.5 - 1 (Xception, the TensorFlow releases); "caffe", BGR less its means
            (DeepLab v1 and v2 as published).

    Shapes: (B, 3, H, W) of any number type -> (B, 3, H, W) floating.
    """

    def __init__(self, name: NormalizationName) -> None:
        super().__init__()
        if name not in AFFINE:
            raise ValueError(f"normalization must be one of {', '.join(AFFINE)}, got {name!r}.")
        self.name = name
        # Not of the state: weight files know nothing of them.
        for field, values in AFFINE[name]._asdict().items():
            self.register_buffer(field, torch.tensor(values)[:, None, None], persistent=False)
        self.scale: Tensor
        self.shift: Tensor

    def forward(self, image: Tensor) -> Tensor:
        """The normalised image."""
        channels = image.flip(1) if self.name == "caffe" else image
        return channels / self.scale - self.shift

    def extra_repr(self) -> str:
        """Which one."""
        return self.name
