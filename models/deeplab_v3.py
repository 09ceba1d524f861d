"""DeepLab v3 and v3+ (Chen et al., 2017 and ECCV 2018): ASPP, cascade, decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from models.backbones import DilatedConfig, build_backbone
from models.layers import classifier, convolution, set_eps, set_momentum
from models.network import Network
from models.resnet import ResNetBackbone, ResNetConfig, arrange

# Atrous spatial pyramid pooling: the encoder that DeepLab v3 and v3+ share.
#
# Chen, Papandreou, Schroff and Adam, "Rethinking Atrous Convolution for Semantic Image
# Segmentation", 2017, section 3.3.


@dataclass(frozen=True)
class AsppConfig:
    """The numbers of the encoder of DeepLab v3 and v3+. Abstract.

    Attributes:
        backbone: dilated.
        output_stride: input size over feature size, 8 or 16.
        atrous_rates: of the 3x3 branches at output stride 16, doubled at 8; empty for none.
        separable_aspp: split the 3x3 branches in depthwise and pointwise convolutions.
        head_channels: of every branch and of the projection.
        pool_window: side in pixels of the window that image pooling averages over, every
            position of it: 513 as in the authors' evaluation. None averages over the image.
        dropout: after the projection.
        batch_norm_momentum: of every BN: 1 minus the paper's decay of 0.9997.
        batch_norm_eps: of the head's BN; the backbone has its own.
        freeze_batch_norm: keep every BN as it is.
    """

    backbone: DilatedConfig
    output_stride: int = 16
    atrous_rates: tuple[int, ...] = (6, 12, 18)
    separable_aspp: bool = False
    head_channels: int = 256
    pool_window: int | None = None
    dropout: float = 0.1
    batch_norm_momentum: float = 3e-4
    batch_norm_eps: float = 1e-5
    freeze_batch_norm: bool = False

    def __post_init__(self) -> None:
        if self.output_stride not in (8, 16):
            raise ValueError(f"output_stride must be 8 or 16, got {self.output_stride}.")
        if any(rate < 1 for rate in self.atrous_rates):
            raise ValueError(f"atrous_rates must be at least 1, got {self.atrous_rates}.")
        if self.pool_window is not None and self.pool_window < 1:
            raise ValueError(f"pool_window must be at least 1 pixel, got {self.pool_window}.")


class AsppNetwork(Network):
    """Backbone and atrous pyramid; a subclass adds what turns them into logits. Abstract.

    Args:
        config: the numbers.
        low_level: the backbone's first features are at stride 4.
    """

    def __init__(self, config: AsppConfig, *, low_level: bool = False) -> None:
        super().__init__(
            config.backbone.normalization,
            output_stride=config.output_stride,
            freeze_batch_norm=config.freeze_batch_norm,
        )
        built = build_backbone(config.backbone, config.output_stride, low_level=low_level)
        self.backbone = built.module
        self.low_channels = built.low_channels
        channels = config.head_channels
        rates = [rate * 16 // config.output_stride for rate in config.atrous_rates]
        self.image_pooling = convolution(built.channels, channels)
        self.aspp0 = convolution(built.channels, channels)
        self.atrous = nn.ModuleList(
            convolution(built.channels, channels, rate, separable=config.separable_aspp)
            for rate in rates
        )
        self.project = convolution((2 + len(rates)) * channels, channels)
        self.dropout = nn.Dropout(config.dropout)
        self.pool_window = config.pool_window

    def finish_head(self, config: AsppConfig) -> None:
        """Give every BN its numbers: the last line of every subclass's `__init__`."""
        for name, child in self.named_children():
            if name != "backbone":
                set_eps(child, config.batch_norm_eps)
        set_momentum(self, config.batch_norm_momentum)
        self.finish()

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute the backbone's maps of RGB in 0..255, the coarsest last.

        Raises:
            ValueError: they do not lie on every stride-th pixel, the first included, as those
                of a backbone that cuts the image into patches.
        """
        maps = list(self.backbone(self.prepare(image)))
        expected = [ceil(n / self.output_stride) for n in image.shape[2:]]
        if list(maps[-1].shape[2:]) != expected:
            raise ValueError(
                f"the backbone gives {tuple(maps[-1].shape[2:])} features of an image of "
                f"{tuple(image.shape[2:])} pixels, expected {tuple(expected)}, one for every "
                f"{self.output_stride} pixels from the first on: choose one whose convolutions "
                "pad, not one that cuts the image into patches."
            )
        return maps

    def encode(self, features: Tensor) -> Tensor:
        """Compute the pyramid's result, (B, head_channels, h, w), of the coarsest features."""
        pooled = pool_image(self.image_pooling, features, self.pool_cells)
        branches = [
            spread(pooled, features.shape[2:]),
            self.aspp0(features),
            *(branch(features) for branch in self.atrous),
        ]
        return self.dropout(self.project(torch.cat(branches, dim=1)))  # type: ignore[no-any-return]

    @property
    def pool_cells(self) -> int | None:
        """Side of image pooling's window in cells of the features; none for the whole image."""
        return None if self.pool_window is None else ceil(self.pool_window / self.output_stride)

    def check_size(self, batch: int, height: int, width: int) -> None:
        """Check as every network does, and that image pooling's window fits into the image."""
        super().check_size(batch, height, width)
        smallest = 1 if self.pool_cells is None else (self.pool_cells - 1) * self.output_stride + 1
        if min(height, width) < smallest:
            raise ValueError(
                f"an image of {height} x {width} pixels is smaller than image pooling's window "
                f"(pool_window={self.pool_window}): the nearest size that works is "
                f"{max(height, smallest)} x {max(width, smallest)}; or pass pool_window=None."
            )


def pool_image(layers: nn.Sequential, features: Tensor, window: int | None = None) -> Tensor:
    """Run the image pooling branch: mean, then its convolution.

    In train mode a batch of one leaves its BN a single value per channel, whose variance
    is zero: the running statistics are used there.

    Args:
        layers: convolution, BN and ReLU.
        features: (B, C, h, w).
        window: side of the window of the mean; none for the whole map.

    Returns:
        (B, channels, 1, 1), or (B, channels, h - window + 1, w - window + 1).
    """
    convolve, norm, activate = layers
    if window is None:
        mean = F.adaptive_avg_pool2d(features, 1)
    else:
        mean = F.avg_pool2d(features, window, stride=1)
    pooled = convolve(mean)
    if norm.training and pooled.shape[0] * pooled.shape[2] * pooled.shape[3] == 1:
        assert isinstance(norm, nn.BatchNorm2d)
        pooled = F.batch_norm(
            pooled, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
    else:
        pooled = norm(pooled)
    return activate(pooled)  # type: ignore[no-any-return]


def spread(pooled: Tensor, size: torch.Size) -> Tensor:
    """Enlarge the pooled map to the size of the features: one value everywhere, or bilinear."""
    if pooled.shape[2:] == (1, 1):
        return pooled.expand(-1, -1, *size)
    return F.interpolate(pooled, size, mode="bilinear", align_corners=True)


# The decoder of DeepLab v3+: coarse semantics and fine detail, refined together.
#
# Chen, Zhu, Papandreou, Schroff and Adam, "Encoder-Decoder with Atrous Separable Convolution for
# Semantic Image Segmentation", 2018, section 3.1.


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
        """Refine the features on the grid of the low-level ones."""
        enlarged = F.interpolate(encoded, low.shape[2:], mode="bilinear", align_corners=True)
        return self.refine(torch.cat([enlarged, self.reduce(low)], dim=1))  # type: ignore[no-any-return]


# DeepLabv3 with parallel modules: a dilated backbone, the atrous pyramid and a classifier.
#
# Chen, Papandreou, Schroff and Adam, "Rethinking Atrous Convolution for Semantic Image
# Segmentation", 2017, section 3.3.


@dataclass(frozen=True)
class DeepLabV3Config(AsppConfig):
    """The numbers of one DeepLabv3; see `AsppConfig`."""

    kind: Literal["v3"] = field(default="v3", init=False)
    backbone: DilatedConfig = field(
        default_factory=lambda: ResNetConfig(depth=101, multi_grid=(1, 2, 4))
    )


class DeepLabV3(AsppNetwork):
    """RGB in 0..255 to logits at the output stride.

    Args:
        num_classes: L.
        config: the numbers.
    """

    def __init__(self, num_classes: int, config: DeepLabV3Config) -> None:
        super().__init__(config)
        self.config = config
        self.classifier = classifier(config.head_channels, num_classes)
        self.finish_head(config)

    def forward(self, image: Tensor) -> Tensor:
        """Logits at the output stride, (B, L, h, w), of RGB in 0..255."""
        return self.classifier(self.encode(self.features(image)[-1]))  # type: ignore[no-any-return]


# DeepLabv3+: the encoder of DeepLabv3 with a decoder behind it.
#
# Chen, Zhu, Papandreou, Schroff and Adam, "Encoder-Decoder with Atrous Separable Convolution for
# Semantic Image Segmentation", 2018.


@dataclass(frozen=True)
class DeepLabV3PlusConfig(AsppConfig):
    """The numbers of one DeepLabv3+; see `AsppConfig`.

    Attributes:
        low_level_channels: that the backbone's features at stride 4 are reduced to.
        decoder_channels: of the decoder's two 3x3 convolutions.
        separable_decoder: split them in depthwise and pointwise ones.
    """

    kind: Literal["v3plus"] = field(default="v3plus", init=False)
    backbone: DilatedConfig = field(
        default_factory=lambda: ResNetConfig(depth=101, multi_grid=(1, 2, 4))
    )
    low_level_channels: int = 48
    decoder_channels: int = 256
    separable_decoder: bool = False


class DeepLabV3Plus(AsppNetwork):
    """RGB in 0..255 to logits at stride 4.

    Args:
        num_classes: L.
        config: the numbers.
    """

    def __init__(self, num_classes: int, config: DeepLabV3PlusConfig) -> None:
        super().__init__(config, low_level=True)
        self.config = config
        self.decoder = Decoder(
            self.low_channels,
            config.head_channels,
            reduced_channels=config.low_level_channels,
            channels=config.decoder_channels,
            separable=config.separable_decoder,
        )
        self.classifier = classifier(config.decoder_channels, num_classes)
        self.finish_head(config)

    @property
    def logit_stride(self) -> int:
        """That of the low-level features."""
        return 4

    def forward(self, image: Tensor) -> Tensor:
        """Logits at stride 4, (B, L, h, w), of RGB in 0..255."""
        low, features = self.features(image)
        return self.classifier(self.decoder(low, self.encode(features)))  # type: ignore[no-any-return]


# DeepLabv3 with cascaded modules: block4 repeated at growing rates, no pyramid.
#
# Chen, Papandreou, Schroff and Adam, "Rethinking Atrous Convolution for Semantic Image
# Segmentation", 2017, section 3.2.

CHANNELS, WIDTH = 2048, 512  # of block4, outside and inside of its units


@dataclass(frozen=True)
class CascadeConfig:
    """The numbers of one cascaded DeepLabv3.

    Attributes:
        backbone: its multi-grid is that of block4 and of every further block.
        blocks: how many replicas of block4 follow it: 3 make blocks 5, 6 and 7.
        output_stride: 8 or 16. At 16 block4 has rate 2, and every block twice the rate of the
            one before.
        copy_block4: start the further blocks from block4's weights, all but the first
            convolution of each, whose input is wider. The paper duplicates the block; that its
            weights are meant is our reading.
        batch_norm_momentum: of every BN: 1 minus the paper's decay of 0.9997.
        freeze_batch_norm: keep every BN as it is.
    """

    kind: Literal["v3_cascade"] = field(default="v3_cascade", init=False)
    backbone: ResNetConfig = field(
        default_factory=lambda: ResNetConfig(depth=101, multi_grid=(1, 2, 1))
    )
    blocks: int = 3
    output_stride: int = 16
    copy_block4: bool = True
    batch_norm_momentum: float = 3e-4
    freeze_batch_norm: bool = False

    def __post_init__(self) -> None:
        if self.output_stride not in (8, 16):
            raise ValueError(f"output_stride must be 8 or 16, got {self.output_stride}.")
        if self.blocks < 0:
            raise ValueError(f"blocks must be at least 0, got {self.blocks}.")


class DeepLabV3Cascade(Network):
    """RGB in 0..255 to logits at the output stride.

    Args:
        num_classes: L.
        config: the numbers.
    """

    def __init__(self, num_classes: int, config: CascadeConfig) -> None:
        super().__init__(
            config.backbone.normalization,
            output_stride=config.output_stride,
            freeze_batch_norm=config.freeze_batch_norm,
        )
        self.config = config
        self.backbone = ResNetBackbone(config.backbone, config.output_stride)
        rate = 32 // config.output_stride  # of block4
        self.blocks = nn.ModuleList(
            replica(rate * 2**k, config.backbone) for k in range(1, config.blocks + 1)
        )
        self.classifier = classifier(CHANNELS, num_classes)
        if config.copy_block4:
            self.copy_block4()
        set_eps(self.blocks, config.backbone.batch_norm_eps)
        set_momentum(self, config.batch_norm_momentum)
        self.finish()

    def forward(self, image: Tensor) -> Tensor:
        """Logits at the output stride, (B, L, h, w), of RGB in 0..255."""
        features = self.backbone(self.prepare(image))[-1]
        for block in self.blocks:
            features = block(features)
        return self.classifier(features)  # type: ignore[no-any-return]

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Load as every network does; the further blocks then start from the new block4."""
        super().load_backbone(state)
        if self.config.copy_block4:
            self.copy_block4()

    def copy_block4(self) -> None:
        """Copy block4's weights into every further block, where the shapes agree.

        Units 2 and 3 agree whole. The first unit has no projection here, and its first
        convolution takes 2048 channels instead of 1024: that one keeps its own start.
        """
        source = self.backbone.get_submodule("layer4").state_dict()
        for block in self.blocks:
            own = block.state_dict()
            fitting = {k: v for k, v in source.items() if k in own and v.shape == own[k].shape}
            block.load_state_dict({**own, **fitting})


def replica(rate: int, config: ResNetConfig) -> nn.Sequential:
    """Three bottlenecks at stride 1 with identity shortcuts.

    Args:
        rate: of the block, times its multi-grid.
        config: of the backbone, for multi-grid.
    """
    block = nn.Sequential(*(Bottleneck(CHANNELS, WIDTH) for _ in range(3)))
    for unit, factor in zip(block, config.multi_grid, strict=True):
        assert isinstance(unit, Bottleneck)
        arrange(unit, 1, rate * factor, in_1x1=config.stride_in_1x1)
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d):  # as torchvision initialises block4
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return block
