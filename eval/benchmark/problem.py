"""What every path is given: a real photograph at any size, and logits such as a network's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from eval.benchmark.options import Shape, Thetas
from eval.filters import photograph

PHOTO = "astronaut.png"
TILE = (342, 500)  # the size at which the photograph is used whole
STRIDE = 8  # of the network whose logits these stand for


@dataclass(frozen=True)
class Problem:
    """One call of a CRF.

    Attributes:
        shape: height and width.
        labels: L.
        thetas: of the bilateral kernel.
        theta_gamma: of the spatial kernel.
        iterations: T.
        batch: B.
        training: forward and backward, with L x L weights and compatibility; else inference
            with Potts and scalar weights.
        learn_theta: whether the widths learn, too.
        device: where image, unary and gradient lie, made on the CPU in any case.
    """

    shape: Shape
    labels: int
    thetas: Thetas
    theta_gamma: float
    iterations: int
    batch: int = 1
    training: bool = False
    learn_theta: bool = False
    device: str = "cpu"

    @cached_property
    def image(self) -> Tensor:
        """(B, 3, H, W), uint8: the photograph, mirrored beyond its borders where it is too small.

        So its detail, and the lattice's vertices for each pixel, are the same at every size.
        """
        rows, columns = (_mirrored(n, period) for n, period in zip(self.shape, TILE, strict=True))
        image = _photo()[rows][:, columns].permute(2, 0, 1)
        return image.expand(self.batch, -1, -1, -1).contiguous().to(self.device)

    @cached_property
    def unary(self) -> Tensor:
        """(B, L, H, W) logits: noise at the stride of a network, enlarged."""
        generator = torch.Generator().manual_seed(0)
        coarse = [-(-n // STRIDE) for n in self.shape]
        noise = 3 * torch.randn(1, self.labels, *coarse, generator=generator)
        enlarged = F.interpolate(noise, self.shape, mode="bilinear", align_corners=False)
        return enlarged.expand(self.batch, -1, -1, -1).contiguous().to(self.device)

    @cached_property
    def logits_grad(self) -> Tensor:
        """(B, L, H, W), what a training step sends back."""
        generator = torch.Generator().manual_seed(1)
        grad = torch.randn(self.unary.shape, generator=generator) / self.unary.numel()
        return grad.to(self.device)

    @property
    def q_bytes(self) -> int:
        """Bytes of q in float32."""
        return 4 * self.batch * self.labels * self.shape[0] * self.shape[1]


@lru_cache(maxsize=1)
def _photo() -> Tensor:
    return photograph(PHOTO, TILE).to(torch.uint8)


def _mirrored(count: int, period: int) -> Tensor:
    """0, 1, ..., period - 1, period - 1, ..., 1, 0, 0, 1, ...: (count,)."""
    index = torch.arange(count) % (2 * period)
    return torch.minimum(index, 2 * period - 1 - index)
