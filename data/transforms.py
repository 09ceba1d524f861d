"""Augmentation: scale, pad, crop and flip, for an image and its mask together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from data.sample import VOID, Sample


@dataclass(frozen=True)
class TransformConfig:
    """Which changes a training image goes through, in this order.

    Attributes:
        scale: the factor is drawn uniformly from (low, high); None leaves the size.
        crop_size: side of a square crop at a random place, pixels; smaller images are padded at the
            right and at the bottom first. None keeps the whole image.
        flip: mirror left and right in half of the cases.
        fill: colour of the padding, RGB in 0..255; padded pixels are void in the mask. The default
            is the mean of ImageNet, which becomes zero in a network that subtracts it.

    Raises:
        ValueError: a value that cannot be applied; the message names the field.
    """

    scale: tuple[float, float] | None = None
    crop_size: int | None = None
    flip: bool = True
    fill: tuple[int, int, int] = (124, 116, 104)

    def __post_init__(self) -> None:
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be (low, high) with 0 < low <= high, got {self.scale}")
        if self.crop_size is not None and self.crop_size < 1:
            raise ValueError(f"crop_size must be at least 1 pixel or None, got {self.crop_size}")
        if not all(0 <= value <= 255 for value in self.fill):
            raise ValueError(f"fill must be three grey levels of 0..255, got {self.fill}")


class Augment:
    """Applies a `TransformConfig`.

    The transforms of `torchvision.transforms.v2` draw from torch's global generator. Here every
    decision comes from the generator that the caller passes, so a sample can be made again, and the
    global one is left alone.

    Args:
        config: what to do.
    """

    def __init__(self, config: TransformConfig) -> None:
        self.config = config

    def __call__(self, sample: Sample, generator: Generator) -> Sample:
        """Change one sample.

        Args:
            sample: (3, H, W) uint8 image and (H, W) int64 mask.
            generator: on the CPU; advanced by the draws.

        Returns:
            A new sample of the same name, crop_size x crop_size where that is set.
        """
        config = self.config
        # uint8 holds every id and void, and lets one byte image run through the same kernels.
        image: Tensor = tv_tensors.Image(sample.image)
        mask: Tensor = tv_tensors.Mask(sample.mask.to(torch.uint8)[None])
        if config.scale is not None:
            low, high = config.scale
            factor = low + (high - low) * torch.rand((), generator=generator).item()
            image, mask = _resize(image, mask, factor)
        if config.crop_size is not None:
            image, mask = _pad(image, mask, config.crop_size, config.fill)
            top, left = (
                int(torch.randint(n - config.crop_size + 1, (), generator=generator))
                for n in image.shape[-2:]
            )
            window = (top, left, config.crop_size, config.crop_size)
            image, mask = F.crop(image, *window), F.crop(mask, *window)
        if config.flip and torch.rand((), generator=generator).item() < 0.5:
            image, mask = F.horizontal_flip(image), F.horizontal_flip(mask)
        return Sample(
            name=sample.name,
            image=image.as_subclass(Tensor).contiguous(),
            mask=mask.as_subclass(Tensor)[0].to(torch.int64),
        )

    def __repr__(self) -> str:
        return f"Augment({self.config})"


def _resize(image: Tensor, mask: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    size = [max(1, round(n * factor)) for n in image.shape[-2:]]
    image = F.resize(image, size, interpolation=InterpolationMode.BILINEAR, antialias=True)
    # v2 resizes a Mask with NEAREST, which reads the corner of the source pixel rather than its
    # centre and so shifts labels against the image by up to half a pixel. NEAREST_EXACT does not.
    plain = mask.as_subclass(Tensor)
    plain = F.resize(plain, size, interpolation=InterpolationMode.NEAREST_EXACT, antialias=False)
    return image, tv_tensors.Mask(plain)


def _pad(
    image: Tensor, mask: Tensor, size: int, fill: tuple[int, int, int]
) -> tuple[Tensor, Tensor]:
    down, right = (max(0, size - n) for n in image.shape[-2:])
    padding = [0, 0, right, down]
    return F.pad(image, padding, fill=list(fill)), F.pad(mask, padding, fill=VOID)
