"""Build the small layers that the networks share: normalisation, convolutions, sizes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# Batch normalisation of a whole network: its numbers, and keeping it as it is.

MAX_MOMENTUM = 0.1


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """List every batch normalisation layer, timm's included."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm)]


M = TypeVar("M", bound=nn.Module)


def synchronized(module: M) -> M:
    """Let BN take its statistics over all processes; in place but for the module itself.

    By timm's function: PyTorch's own drops the activation inside timm's BN layers.
    """
    return convert_sync_batchnorm(module)  # type: ignore[no-any-return, no-untyped-call]


def set_momentum(module: nn.Module, momentum: float) -> None:
    """Set the momentum of every BN: new statistics = (1 - momentum) old + momentum batch.

    Args:
        module: changed in place.
        momentum: PyTorch's, that is 1 minus TensorFlow's decay: 3e-4 in DeepLab v3 and v3+.

    Raises:
        ValueError: it is outside (0, 0.1], where a TensorFlow decay would lie.
    """
    if not 0 < momentum <= MAX_MOMENTUM:
        raise ValueError(
            f"batch_norm_momentum must be in (0, {MAX_MOMENTUM}], got {momentum}: PyTorch's "
            f"momentum is 1 minus TensorFlow's decay. Did you mean {1 - momentum:.4g}?"
        )
    for norm in batch_norms(module):
        norm.momentum = momentum


def set_eps(module: nn.Module, eps: float) -> None:
    """Set what every BN adds to the variance."""
    for norm in batch_norms(module):
        norm.eps = eps


def freeze(module: nn.Module) -> None:
    """Stop learning the affine parameters of every BN; `keep_frozen` keeps its statistics."""
    for norm in batch_norms(module):
        norm.requires_grad_(False)


def keep_frozen(module: nn.Module) -> None:
    """Put every BN in eval mode: to be called whenever the module enters train mode."""
    for norm in batch_norms(module):
        norm.eval()


# The convolution blocks of the heads: with batch normalisation, whole or separable.


def convolution(
    in_channels: int, out_channels: int, rate: int | None = None, *, separable: bool = False
) -> nn.Sequential:
    """Build a 1x1 convolution, or a 3x3 one of that atrous rate, then BN and ReLU.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        rate: of the 3x3 convolution; none makes it 1x1.
        separable: split the 3x3 convolution in a depthwise and a pointwise one.
    """
    if rate is None:
        return block(nn.Conv2d(in_channels, out_channels, 1, bias=False))
    if not separable:
        return block(
            nn.Conv2d(in_channels, out_channels, 3, padding=rate, dilation=rate, bias=False)
        )
    return separable_convolution(in_channels, out_channels, rate)


def separable_convolution(in_channels: int, out_channels: int, rate: int) -> nn.Sequential:
    """Build a depthwise 3x3, BN, ReLU, a pointwise 1x1, BN, ReLU.

    DeepLab v3+, section 3.1: atrous separable convolution. Order and initial deviations are
    those of the authors' release (`_split_separable_conv2d`).
    """
    depthwise = nn.Conv2d(
        in_channels, in_channels, 3, padding=rate, dilation=rate, groups=in_channels, bias=False
    )
    pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    nn.init.trunc_normal_(depthwise.weight, std=0.33, a=-0.66, b=0.66)
    nn.init.trunc_normal_(pointwise.weight, std=0.06, a=-0.12, b=0.12)
    return nn.Sequential(*block(depthwise), *block(pointwise))


def block(layer: nn.Conv2d) -> nn.Sequential:
    """Put BN and ReLU behind a layer."""
    return nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU())


def classifier(in_channels: int, num_classes: int, kernel: int = 1, rate: int = 1) -> nn.Conv2d:
    """Build the convolution that gives logits, initialised as in every DeepLab."""
    layer = nn.Conv2d(in_channels, num_classes, kernel, padding=rate * (kernel // 2), dilation=rate)
    init_classifier(layer)
    return layer


def init_classifier(layer: nn.Conv2d) -> None:
    """Initialise weights with N(0, 0.01) and the bias with 0."""
    nn.init.normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


# What a backbone makes of RGB in 0..255 before its first convolution.

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
        """Normalise an image."""
        channels = image.flip(1) if self.name == "caffe" else image
        return channels / self.scale - self.shift

    def extra_repr(self) -> str:
        """Name the normalisation."""
        return self.name


# Between the grids of image, network and CRF.

PADDING_GREY = 128.0  # what the published networks pad with, RGB in 0..255


def pad_to_stride(image: Tensor, stride: int, minimum: int) -> Tensor:
    """Pad with grey at the bottom and right to stride * k + 1, at least `minimum`.

    At these sizes the corners of image and logits coincide.
    """
    height, width = padded_size(image.shape[2:], stride, minimum)
    padding = (0, width - image.shape[3], 0, height - image.shape[2])
    return F.pad(image, padding, value=PADDING_GREY)


def padded_size(size: Sequence[int], stride: int, minimum: int) -> tuple[int, ...]:
    """Compute (H, W) of an image of that size after `pad_to_stride`."""
    return tuple(math.ceil((max(n, minimum) - 1) / stride) * stride + 1 for n in size)


def halve(image: Tensor) -> Tensor:
    """Take every second pixel of a smoothed image: (B, C, 2k + 1, 2m + 1) -> (B, C, k + 1, m + 1).

    Corners stay where they are, as `pad_to_stride` needs. Smoothing is by (1, 2, 1) / 4 along each
    axis, the border repeated.
    """
    smooth = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 2, stride=1)
    return F.avg_pool2d(smooth, 2)


def shrink(x: Tensor, factor: int) -> Tensor:
    """Average to a grid `factor` times coarser: (B, C, ceil(H / factor), ceil(W / factor))."""
    if factor == 1:
        return x
    size = [math.ceil(n / factor) for n in x.shape[2:]]
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)


def shrink_image(image: Tensor, factor: int) -> Tensor:
    """Shrink RGB and clamp it to 0..255: rounding must not leave that range."""
    return shrink(image, factor).clamp(0, 255)


def stretch(x: Tensor, size: torch.Size) -> Tensor:
    """Undo `shrink`: resize, bilinear, to (H, W)."""
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def subsample_labels(labels: Tensor, stride: int) -> Tensor:
    """Take the labels of the pixels that logits at a stride sit on, from the first pixel on.

    Never interpolated, and exactly where the logits are: "nearest" resizing takes pixels up to
    stride - 1 further on.

    Args:
        labels: (B, H, W) ids.
        stride: of the logits.

    Returns:
        (B, ceil(H / stride), ceil(W / stride)).
    """
    return labels[..., ::stride, ::stride]


# What every backbone written here is, and how weights from elsewhere get into it.


class Backbone(nn.Module, ABC):
    """Normalised image to feature maps, the coarsest last. Abstract.

    Args:
        channels: of every feature map.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.channels = channels

    @abstractmethod
    def forward(self, image: Tensor) -> Sequence[Tensor]:
        """Compute the feature maps of a normalised image (B, 3, H, W)."""

    @abstractmethod
    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Load the state dict of the classifier that this backbone was cut from.

        Raises:
            ValueError: it is another architecture's.
        """


def load_state(module: nn.Module, state: Mapping[str, Tensor], unused: tuple[str, ...]) -> None:
    """Load every key of a module, strictly.

    Args:
        module: whose state dict must be matched, key for key and shape for shape.
        state: what to load.
        unused: beginnings of the keys that may be there besides: the classifier's.

    Raises:
        ValueError: of another architecture; says which keys.
    """
    used = {k: v for k, v in state.items() if not k.startswith(unused or "\0")}
    problems = mismatches(module, used)
    if problems:
        raise ValueError(
            f"these are the weights of another architecture ({len(problems)} differences: "
            f"{'; '.join(problems[:5])}). Build the network they were saved from, or give others."
        )
    module.load_state_dict(dict(used))


def mismatches(module: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """List where a state dict does not fit a module, sorted; empty if it fits."""
    expected = module.state_dict()
    return sorted(
        [
            *(f"missing {key}" for key in expected.keys() - state.keys()),
            *(f"unexpected {key}" for key in state.keys() - expected.keys()),
            *(
                f"{key} is {tuple(state[key].shape)}, expected {tuple(expected[key].shape)}"
                for key in expected.keys() & state.keys()
                if state[key].shape != expected[key].shape
            ),
        ]
    )
