"""MSC of DeepLab v2: the image at several scales through one network, fused by the maximum.

Chen, Papandreou, Kokkinos, Murphy and Yuille, "DeepLab: Semantic Image Segmentation with
Deep Convolutional Nets, Atrous Convolution, and Fully Connected CRFs", 2018, section 4.1.2.
Which grid each loss is taken on is that of the authors' published prototxt.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from models.network import ScaleLogits


def scaled_size(size: int, scale: float) -> int:
    """Pixels of an image side at a scale, corners on corners: (size - 1) scale + 1."""
    return round((size - 1) * scale) + 1


def rescale(image: Tensor, scale: float) -> Tensor:
    """The image at a scale, bilinear: 321 pixels at 0.75 are 241."""
    size = [scaled_size(n, scale) for n in image.shape[2:]]
    return resize(image, size)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, corners on corners."""
    if list(x.shape[2:]) == list(size):
        return x
    return F.interpolate(x, list(size), mode="bilinear", align_corners=True)


def fuse(maps: Sequence[Tensor]) -> Tensor:
    """The maximum over the scales, on the grid of the last.

    max, not maximum or amax: where scales tie, the gradient goes to one of them.

    Args:
        maps: logits of every scale, the largest scale last.
    """
    if len(maps) == 1:
        return maps[0]
    size = maps[-1].shape[2:]
    return torch.stack([resize(x, size) for x in maps]).max(dim=0).values


def scale_logits(maps: Sequence[Tensor], scales: Sequence[float], stride: int) -> list[ScaleLogits]:
    """The logits of every scale on the grid that its loss is taken on.

    At scale s the logits sit at every stride / s-th pixel. Where that is a whole number they
    stay there; elsewhere (0.75) they are resized to the grid of the full scale.

    Args:
        maps: logits of every scale, the largest scale last.
        scales: of the image.
        stride: of the network.
    """
    size = maps[-1].shape[2:]
    return [
        ScaleLogits(x, round(stride / scale))
        if (stride / scale).is_integer()
        else ScaleLogits(resize(x, size), stride)
        for x, scale in zip(maps, scales, strict=True)
    ]
