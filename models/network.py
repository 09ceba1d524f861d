"""Define what every network is: RGB in, logits at a stride of its own out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.backbones import load_backbone
from models.layers import (
    InputNormalization,
    NormalizationName,
    batch_norms,
    freeze,
    keep_frozen,
    load_state,
)


class ScaleLogits(NamedTuple):
    """Logits of one scale of an input pyramid, which have a loss of their own in training.

    Attributes:
        logits: (B, L, h, w).
        stride: pixels of the image from one logit to the next; the first sits at pixel 0.
    """

    logits: Tensor
    stride: int


class NetworkOutput(NamedTuple):
    """The output of a network in training.

    Attributes:
        logits: (B, L, h, w), the network's result.
        scales: what else has a loss; empty in eval mode and without an input pyramid.
    """

    logits: Tensor
    scales: tuple[ScaleLogits, ...] = ()


class Network(nn.Module, ABC):
    """RGB in 0..255 to logits. Abstract: each DeepLab says how, and so may a network of your own.

    A subclass sets its layers and writes `forward`, which begins with `self.prepare(image)`;
    `models.registry.register` makes it known. What it assigns to `backbone` was trained on
    ImageNet; the rest is the head. Without a backbone all of it is head.

    At sizes H = size_step * k + 1 the corners of image and of every feature map coincide,
    and resizing with align_corners=True is exact; other sizes work and are off by less
    than a cell at the bottom and right.

    Args:
        normalization: of the input, as the backbone's weights expect it.
        output_stride: image size over feature size.
        size_step: see above; the output stride where not given.
        freeze_batch_norm: keep the statistics and the affine parameters of every BN.

    Shapes: image (B, 3, H, W) -> logits (B, L, h, w), h = ceil(H / logit_stride).
    """

    backbone: nn.Module

    def __init__(
        self,
        normalization: NormalizationName,
        *,
        output_stride: int,
        size_step: int | None = None,
        freeze_batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.normalize = InputNormalization(normalization)
        self.backbone = nn.Identity()
        self.output_stride = output_stride
        self.size_step = size_step or output_stride
        self.freeze_batch_norm = freeze_batch_norm

    @property
    def logit_stride(self) -> int:
        """Pixels of the image from one logit to the next."""
        return self.output_stride

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor:
        """Compute logits of RGB in 0..255, at `logit_stride`."""

    def outputs(self, image: Tensor) -> NetworkOutput:
        """Compute the logits and, from an input pyramid in train mode, those of its scales."""
        return NetworkOutput(self(image))

    def prepare(self, image: Tensor) -> Tensor:
        """Check and normalise an image.

        Raises:
            ValueError: not RGB, or of a size that cannot work; names the nearest that does.
        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(
                f"image must be (B, 3, H, W), RGB in 0..255, got {tuple(image.shape)}."
            )
        self.check_size(*image.shape[:1], *image.shape[2:])
        return self.normalize(image)  # type: ignore[no-any-return]

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Load the state dict of the ImageNet classifier that the backbone was cut from.

        Raises:
            ValueError: it is another architecture's, or there is no backbone.
        """
        if isinstance(self.backbone, nn.Identity):
            raise ValueError(
                f"{type(self).__name__} has no backbone to load: leave --model.backbone-weights "
                "out, or give the whole network with --model.weights."
            )
        load_backbone(self.backbone, state)

    def check_size(self, batch: int, height: int, width: int) -> None:
        """Raise ValueError if an image of this size cannot work; name the nearest that does."""
        stride = self.coarsest_stride
        cells = batch * ceil(height / stride) * ceil(width / stride)
        if cells == 0:
            raise ValueError(f"image has no pixels: {batch} x 3 x {height} x {width}.")
        # BN in train mode takes the variance over batch and positions: it needs two values.
        if self.training and cells == 1 and any(norm.training for norm in batch_norms(self)):
            near = (height, stride + 1) if width >= height else (stride + 1, width)
            raise ValueError(
                f"one image of {height} x {width} pixels cannot train batch normalisation at "
                f"stride {stride}: the nearest size that works is {near[0]} x {near[1]}; or pass "
                "two images, or freeze_batch_norm."
            )

    @property
    def coarsest_stride(self) -> int:
        """Pixels of the image from one cell to the next of the coarsest features."""
        return self.output_stride

    def train(self, mode: bool = True) -> Network:
        """Enter train or eval mode; frozen BN stays in eval mode."""
        super().train(mode)
        if self.freeze_batch_norm:
            keep_frozen(self)
        return self

    def finish(self) -> None:
        """Freeze what is to be frozen: the last line of every subclass's `__init__`."""
        if self.freeze_batch_norm:
            freeze(self)
            keep_frozen(self)


# Weights from files that the user names: loaded strictly or not at all.


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a safetensors file into a network, every key and every shape.

    Args:
        network: whose state dict the file must match exactly.
        path: of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a safetensors file, or of another architecture; says which keys.
    """
    state = read_weights(path)
    try:
        load_state(network, state, unused=())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def load_backbone_weights(network: Network, path: Path) -> None:
    """Load a safetensors file of an ImageNet classifier into a network's backbone.

    Args:
        network: its backbone takes the weights as its own `pretrained=True` would.
        path: of a file with the classifier's whole state dict, its keys torchvision's or timm's.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a safetensors file, or of another architecture; says which keys.
    """
    state = read_weights(path)
    try:
        network.load_backbone(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file."""
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights at {path}: expected a .safetensors file (--model.weights FILE)."
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a safetensors file: {error}. Of a checkpoint, `python -m eval export` "
            "makes one."
        ) from error
