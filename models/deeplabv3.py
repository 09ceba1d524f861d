"""DeepLabv3: a dilated backbone, atrous spatial pyramid pooling and a linear classifier.

Chen, Papandreou, Schroff and Adam, "Rethinking Atrous Convolution for Semantic Image
Segmentation", 2017. The backbone is any of timm's that takes `output_stride`.
"""

from __future__ import annotations

from dataclasses import dataclass

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class DeepLabV3Config:
    """The numbers of one DeepLabv3.

    Attributes:
        backbone: timm's name.
        pretrained: load timm's ImageNet weights into the backbone (needs the internet).
        output_stride: input size over feature size, 8 or 16.
        atrous_rates: of the 3x3 branches at output stride 16, doubled at 8. The paper
            has (6, 12, 18); the published MobileNetV2 model has none.
        head_channels: of every branch and of the projection.
        dropout: before the classifier.
    """

    backbone: str = "mobilenetv2_100"
    pretrained: bool = False
    output_stride: int = 16
    atrous_rates: tuple[int, ...] = ()
    head_channels: int = 256
    dropout: float = 0.1


class DeepLabV3(nn.Module):
    """RGB in 0..255 to logits at the output stride.

    Args:
        num_classes: L.
        config: the numbers.

    Shapes: image (B, 3, H, W) -> logits (B, L, ceil(H / stride), ceil(W / stride)). For
    H = stride * k + 1 the corner pixels of image and logits coincide, so that resizing
    with align_corners=True is exact.
    """

    def __init__(self, num_classes: int, config: DeepLabV3Config) -> None:
        super().__init__()
        if config.output_stride not in (8, 16):
            raise ValueError(f"output_stride must be 8 or 16, got {config.output_stride}.")
        if not timm.is_model(config.backbone):
            near = timm.list_models(f"*{config.backbone.split('_')[0]}*")[:5]
            raise ValueError(
                f"backbone must be one of timm's models, got {config.backbone!r}. "
                f"Similar names: {', '.join(near) or 'none'}."
            )
        self.config = config
        try:
            self.backbone = timm.create_model(
                config.backbone,
                pretrained=config.pretrained,
                features_only=True,
                output_stride=config.output_stride,
                out_indices=(-1,),
            )
        except (TypeError, NotImplementedError) as error:
            raise ValueError(
                f"backbone {config.backbone!r} cannot be dilated to output stride "
                f"{config.output_stride}: {error}. Choose a convolutional network that timm "
                "builds with `output_stride`, for example mobilenetv2_100 or resnet50."
            ) from error
        features: int = self.backbone.feature_info.channels()[-1]  # type: ignore[union-attr, operator]
        channels = config.head_channels
        rates = [rate * 16 // config.output_stride for rate in config.atrous_rates]
        self.image_pooling = convolution(features, channels)
        self.aspp0 = convolution(features, channels)
        self.atrous = nn.ModuleList(convolution(features, channels, rate) for rate in rates)
        self.project = convolution((2 + len(rates)) * channels, channels)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """Logits at the output stride, (B, L, h, w), of RGB in 0..255."""
        (features,) = self.backbone(image / 127.5 - 1)
        pooled = pool_image(self.image_pooling, features).expand(-1, -1, *features.shape[2:])
        branches = [pooled, self.aspp0(features), *(branch(features) for branch in self.atrous)]
        return self.classifier(self.dropout(self.project(torch.cat(branches, dim=1))))  # type: ignore[no-any-return]


def convolution(in_channels: int, out_channels: int, rate: int | None = None) -> nn.Sequential:
    """A 1x1 convolution, or a 3x3 one of that atrous rate, then BN and ReLU."""
    if rate is None:
        layer = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    else:
        layer = nn.Conv2d(in_channels, out_channels, 3, padding=rate, dilation=rate, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out_channels), nn.ReLU())


def pool_image(layers: nn.Sequential, features: Tensor) -> Tensor:
    """The image pooling branch: global mean, then its convolution, (B, C, 1, 1).

    In train mode a batch of one leaves its BN a single value per channel, whose variance
    is zero: the running statistics are used there.
    """
    convolve, norm, activate = layers
    pooled = convolve(F.adaptive_avg_pool2d(features, 1))
    if norm.training and pooled.shape[0] == 1:
        assert isinstance(norm, nn.BatchNorm2d)
        pooled = F.batch_norm(
            pooled, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
    else:
        pooled = norm(pooled)
    return activate(pooled)  # type: ignore[no-any-return]
