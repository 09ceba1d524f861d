"""Every network by name, where the fast tier takes one of each structure."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import models
from models import BUILDERS, DeepLabV3Config, DeepLabV3PlusConfig, build_network
from models.describe import shell
from models.resnet import ResNetBackbone
from models.xception import XceptionBackbone
from tests.models.small import check_training_step, drawn


def slim(name: str) -> models.NetworkConfig:
    """The config of a name; fc6 of 4096 filters, 100 million weights at 7x7, gets 64."""
    config = BUILDERS[name].config
    if isinstance(config, models.DeepLabV1Config) and config.backbone.fc_channels == 4096:
        return replace(config, backbone=replace(config.backbone, fc_channels=64))
    return config


@pytest.mark.parametrize("name", BUILDERS)
def test_training_step(name: str) -> None:
    check_training_step(drawn(slim(name)))


def thin(network: nn.Module) -> None:
    """Leave one of each run of identical units, which are all traced alike; in place."""
    backbone = network.get_submodule("backbone")
    if isinstance(backbone, ResNetBackbone):
        for stage in ("layer1", "layer2", "layer3"):
            units = backbone.get_submodule(stage)
            setattr(backbone, stage, nn.Sequential(*list(units.children())[:2]))
    elif isinstance(backbone, XceptionBackbone):
        blocks = list(backbone.blocks)
        backbone.blocks = nn.Sequential(*blocks[:6], *blocks[-2:])


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
