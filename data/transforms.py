"""Augmentation: scale, crop, pad, flip and jitter, for an image and its mask together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from data.dataset import VOID, Sample

DEEPLAB_V2_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)
"""Chen et al., DeepLab, TPAMI 2018, section 4.1: 0.5 to 1.5, in the released code's steps."""

DEEPLAB_V3PLUS_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
"""Chen et al., ECCV 2018: scales 0.5 to 2, in the steps of 0.25 of the released code."""


@dataclass(frozen=True)
class TransformConfig:
    """The changes that a training image goes through: scale, crop, colour, padding, flip.

    Attributes:
        scale: the factor is drawn uniformly from (low, high); None leaves the size.
        crop_size: side of a square crop at a random place, pixels; smaller images are padded at the
            right and at the bottom. None keeps the whole image.
        flip: mirror left and right in half of the cases.
        fill: colour of the padding, RGB in 0..255; padded pixels are void in the mask. The default
            is the mean of ImageNet, which becomes zero in a network that subtracts it.
        scale_steps: the factor is one of these, each as often as the others, such as
            `DEEPLAB_V2_SCALES`; empty where `scale` says it.
        brightness, contrast, saturation: the image, not its padding, is changed by a factor drawn
            uniformly from 1 - x .. 1 + x, x in 0..1; 0 leaves it.
        hue: turned by a part of the colour circle drawn from -hue .. hue, 0..0.5; 0 leaves it. The
            four changes of colour follow one another in an order that is drawn too.

    Raises:
        ValueError: a value that cannot be applied; the message names the field.
    """

    scale: tuple[float, float] | None = None
    crop_size: int | None = None
    flip: bool = True
    fill: tuple[int, int, int] = (124, 116, 104)
    scale_steps: tuple[float, ...] = ()
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be (low, high) with 0 < low <= high, got {self.scale}")
        if not all(0 < step < float("inf") for step in self.scale_steps):
            raise ValueError(f"scale_steps must be factors above 0, got {self.scale_steps}")
        if self.scale_steps and self.scale is not None:
            raise ValueError(
                f"scale and scale_steps exclude each other, got {self.scale} and {self.scale_steps}"
            )
        if self.crop_size is not None and self.crop_size < 1:
            raise ValueError(f"crop_size must be at least 1 pixel or None, got {self.crop_size}")
        if not all(0 <= value <= 255 for value in self.fill):
            raise ValueError(f"fill must be three grey levels of 0..255, got {self.fill}")
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be 0..1, got {getattr(self, name)}")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue must be 0..0.5 of the colour circle, got {self.hue}")


class Augment:
    """Apply a `TransformConfig`.

    The transforms of `torchvision.transforms.v2` draw from torch's global generator. Here every
    decision comes from the generator that the caller passes, so a sample can be made again, and the
    global one is left alone.

    Args:
        config: what to do.
    """

    def __init__(self, config: TransformConfig) -> None:
        self.config = config

    def __call__(self, sample: Sample, generator: Generator) -> Sample:
        """Make a new sample of the same name, crop_size x crop_size where that is set."""
        config = self.config
        # uint8 holds every id and void, and lets one byte image run through the same kernels.
        image: Tensor = tv_tensors.Image(sample.image)
        mask: Tensor = tv_tensors.Mask(sample.mask.to(torch.uint8)[None])
        factor = _draw_factor(config, generator)
        if factor is not None:
            image, mask = _resize(image, mask, factor)
        if config.crop_size is not None:
            image, mask = _crop(image, mask, config.crop_size, generator)
        flip = config.flip and torch.rand((), generator=generator).item() < 0.5
        image = _jitter(image, config, generator)
        if config.crop_size is not None:
            image, mask = _pad(image, mask, config.crop_size, config.fill)
        if flip:
            image, mask = F.horizontal_flip(image), F.horizontal_flip(mask)
        return Sample(
            name=sample.name,
            image=image.as_subclass(Tensor).contiguous(),
            mask=mask.as_subclass(Tensor)[0].to(torch.int64),
        )

    def __repr__(self) -> str:
        return f"Augment({self.config})"


def _draw_factor(config: TransformConfig, generator: Generator) -> float | None:
    if config.scale_steps:
        steps = config.scale_steps
        return steps[int(torch.randint(len(steps), (), generator=generator))]
    if config.scale is None:
        return None
    low, high = config.scale
    return low + (high - low) * torch.rand((), generator=generator).item()


def _resize(image: Tensor, mask: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    size = [max(1, round(n * factor)) for n in image.shape[-2:]]
    image = F.resize(image, size, interpolation=InterpolationMode.BILINEAR, antialias=True)
    # v2 resizes a Mask with NEAREST, which reads the corner of the source pixel rather than its
    # centre and so shifts labels against the image by up to half a pixel. NEAREST_EXACT does not.
    plain = mask.as_subclass(Tensor)
    plain = F.resize(plain, size, interpolation=InterpolationMode.NEAREST_EXACT, antialias=False)
    return image, tv_tensors.Mask(plain)


def _crop(image: Tensor, mask: Tensor, size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Crop to at most size x size; a smaller image is padded last, so that it is not copied."""
    height, width = image.shape[-2:]
    top, left = (
        int(torch.randint(max(0, n - size) + 1, (), generator=generator)) for n in (height, width)
    )
    window = (top, left, min(size, height), min(size, width))
    return F.crop(image, *window), F.crop(mask, *window)


def _pad(
    image: Tensor, mask: Tensor, size: int, fill: tuple[int, int, int]
) -> tuple[Tensor, Tensor]:
    down, right = (size - n for n in image.shape[-2:])
    if not down and not right:
        return image, mask
    padding = [0, 0, right, down]
    return F.pad(image, padding, fill=list(fill)), F.pad(mask, padding, fill=VOID)


def _jitter(image: Tensor, config: TransformConfig, generator: Generator) -> Tensor:
    """Change colours as `torchvision.transforms.v2.ColorJitter`, by the caller's generator."""
    changes = (
        (F.adjust_brightness, 1.0, config.brightness),
        (F.adjust_contrast, 1.0, config.contrast),
        (F.adjust_saturation, 1.0, config.saturation),
        (F.adjust_hue, 0.0, config.hue),
    )
    chosen = [change for change in changes if change[2] > 0]
    if not chosen:  # draws nothing, so that finished runs can be repeated
        return image
    for index in torch.randperm(len(chosen), generator=generator).tolist():
        adjust, neutral, width = chosen[index]
        draw = 2 * torch.rand((), generator=generator).item() - 1
        image = adjust(image, neutral + width * draw)
    return image
