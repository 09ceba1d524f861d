"""Every network by name, where the fast tier takes one of each structure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import models
from models import BUILDERS, DeepLabV3Config, DeepLabV3PlusConfig, build_network, builder
from models.describe import shell
from tests.models.receptive_field import features_of, receptive_field
from tests.models.small import SMALL_PLUS, check_training_step, convolutions, drawn, image, thin


def slim(name: str) -> models.NetworkConfig:
    """The config of a name; fc6 of 4096 filters, 100 million weights at 7x7, gets 64."""
    config = BUILDERS[name].config
    if isinstance(config, models.DeepLabV1Config) and config.backbone.fc_channels == 4096:
        return replace(config, backbone=replace(config.backbone, fc_channels=64))
    return config


@pytest.mark.parametrize("name", BUILDERS)
def test_training_step(name: str) -> None:
    check_training_step(drawn(slim(name)))


@pytest.mark.parametrize("name", BUILDERS)
def test_size_of_the_logits(name: str) -> None:
    network = shell(name)
    stride = network.logit_stride
    logits = network(torch.empty(2, 3, 97, 161, device="meta"))
    assert logits.shape == (2, 21, 96 // stride + 1, 160 // stride + 1)


# At stride 8 a network is traced as at 16.
@pytest.mark.parametrize("name", [name for name in BUILDERS if not name.endswith("_os8")])
def test_compiles_without_a_graph_break(name: str) -> None:
    network = shell(name)
    thin(network)
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    cells = 64 // network.logit_stride + 1
    with torch.no_grad():
        assert compiled(torch.empty(1, 3, 65, 65, device="meta")).shape == (1, 21, cells, cells)


class Pools(nn.Module):
    """A backbone at strides 4 and 16 without timm's fifty layers, each a kernel to be compiled."""

    def __init__(self, *channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [nn.functional.avg_pool2d(x, s + 1, s, padding=s // 2) for s in (4, 16)]
        return [m.repeat(1, n, 1, 1)[:, :n] for m, n in zip(maps, self.channels, strict=True)]


def test_the_compiled_network_computes_the_same() -> None:
    network = build_network(SMALL_PLUS, 2).eval()
    low, features = (
        convolutions(network.get_submodule(name))[0].in_channels
        for name in ("decoder.reduce", "image_pooling")
    )
    network.backbone = Pools(low, features)
    x = image(1, 3, 33, 33)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(network, fullgraph=True)(x)
        # Other kernels, other order of sums in float32.
        torch.testing.assert_close(compiled, network(x), rtol=1e-3, atol=1e-4)


# In pixels, from the specification; of the logits where no grid is named, else of the features.
# Behind image pooling every pixel is seen; it is left out. Those of the ResNets hold for the
# stride in the 3x3 convolution.
@pytest.mark.parametrize(
    ("name", "grid", "field"),
    [
        ("deeplab_v1_7x7", None, 419),
        ("deeplab_v1_4x4_r8", None, 419),
        ("deeplab_v2_resnet101_aspp_l", None, 1403),
        ("deeplab_v3_resnet101", None, 1835),
        ("deeplab_v3_resnet101_block7", None, 4651),
        ("deeplab_v2_resnet101_aspp_l", (1, 1, 1), 1019),
        ("deeplab_v3_resnet101", (1, 1, 1), 1003),
        ("deeplab_v3_resnet101", (1, 2, 4), 1259),
    ],
)
def test_receptive_field(name: str, grid: tuple[int, ...] | None, field: int) -> None:
    config: Any = builder(name).config
    if "resnet" in name:
        changes = {} if grid is None else {"multi_grid": grid}
        config = replace(config, backbone=replace(config.backbone, stride_in_1x1=False, **changes))
    with torch.device("meta"):
        network = build_network(config, 1)
    assert receptive_field(network, features_of(-1) if grid else None) == field


def test_receptive_field_with_the_stride_in_the_1x1_convolution() -> None:
    """The 3x3 convolution of res3a then reads stride 8 instead of 4: 2 x 4 pixels more."""
    assert receptive_field(shell("deeplab_v2_resnet101_aspp_l")) == 1403 + 8


@pytest.mark.parametrize("head", [DeepLabV3Config, DeepLabV3PlusConfig])
@pytest.mark.parametrize(
    "name",
    ["resnet10t", "seresnet50", "resnext50_32x4d", "mobilenetv3_large_100", "efficientnet_b0",
     "regnety_002", "skresnet18"],
)  # fmt: skip
@pytest.mark.parametrize("output_stride", [8, 16])
def test_backbones_of_timm_that_can_be_dilated(head, name: str, output_stride: int) -> None:
    with torch.device("meta"):
        config = head(backbone=models.backbone_named(name), output_stride=output_stride)
        network = build_network(config, 3).eval()
    stride = network.logit_stride
    found = network(torch.empty(1, 3, 66, 97, device="meta")).shape
    assert found == (1, 3, -(-66 // stride), -(-97 // stride))
