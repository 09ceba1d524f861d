"""The decoder of DeepLab v3+: coarse semantics and fine detail, refined together.

Chen, Zhu, Papandreou, Schroff and Adam, "Encoder-Decoder with Atrous Separable Convolution
for Semantic Image Segmentation", 2018, section 3.1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.convolution import convolution


class Decoder(nn.Module):
    """The low-level features reduced, beside the encoder's, through two 3x3 convolutions.

    Args:
        low_channels: of the low-level features.
        encoder_channels: of the encoder's.
        reduced_channels: that the low-level features are reduced to: 48 in the paper.
        channels: of the two convolutions.
        separable: split them in depthwise and pointwise ones.

    Shapes: (B, low_channels, H, W) and (B, encoder_channels, h, w) -> (B, channels, H, W).
    """

    def __init__(
        self,
        low_channels: int,
        encoder_channels: int,
        *,
        reduced_channels: int,
        channels: int,
        separable: bool,
    ) -> None:
        super().__init__()
        joined = reduced_channels + encoder_channels
        self.reduce = convolution(low_channels, reduced_channels)
        self.refine = nn.Sequential(
            convolution(joined, channels, 1, separable=separable),
            convolution(channels, channels, 1, separable=separable),
        )

    def forward(self, low: Tensor, encoded: Tensor) -> Tensor:
        """Refined features on the grid of the low-level ones."""
        enlarged = F.interpolate(encoded, low.shape[2:], mode="bilinear", align_corners=True)
        return self.refine(torch.cat([enlarged, self.reduce(low)], dim=1))  # type: ignore[no-any-return]
