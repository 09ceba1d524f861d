"""Every network by name: the numbers of the specification, and what a network must do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from models import (
    BUILDERS,
    Network,
    TimmConfig,
    VggConfig,
    XceptionConfig,
    build,
    build_network,
    builder,
    pretrained_config,
)
from models.deeplabv2 import DeepLabV2Config
from models.describe import parameters, shell
from models.receptive_field import features_of, receptive_field
from models.resnet import ResNetBackbone, ResNetConfig
from models.xception import XceptionBackbone

NAMES = list(BUILDERS)

# Parameters at 21 classes, biases included, and output stride: the totals of the papers and of
# the arithmetic that reproduces them.
TOTALS = {
    "deeplab_v1_7x7": (134_346_581, 8),
    "deeplab_v1_4x4": (65_140_565, 8),
    "deeplab_v1_4x4_r8": (65_140_565, 8),
    "deeplab_v1_largefov": (20_505_429, 8),
    "deeplab_v1_largefov_msc": (21_711_445, 8),
    "deeplab_v1_7x7_msc": (134_346_581 + 1_206_016, 8),
    "deeplab_v1_4x4_msc": (65_140_565 + 1_206_016, 8),
    "deeplab_v1_4x4_r8_msc": (65_140_565 + 1_206_016, 8),
    "deeplab_v2_vgg16_largefov": (20_505_429, 8),
    "deeplab_v2_vgg16_aspp_s": (37_877_652, 8),
    "deeplab_v2_vgg16_aspp_l": (37_877_652, 8),
    "deeplab_v2_resnet101_largefov": (42_887_253, 8),
    "deeplab_v2_resnet101_aspp_l": (44_048_532, 8),
    "deeplab_v3_resnet50": (39_048_533, 16),
    "deeplab_v3_resnet101": (58_040_661, 16),
    "deeplab_v3_resnet101_beta": (58_164_437, 16),
    "deeplab_v3_resnet50_block4": (23_508_032 + 43_029, 16),  # 2048 x 21 + 21
    "deeplab_v3_resnet101_block4": (42_500_160 + 43_029, 16),
    **{
        f"deeplab_v3_resnet{depth}_block{4 + k}": (trunk + 43_029 + k * 13_387_776, 16)
        for depth, trunk in ((50, 23_508_032), (101, 42_500_160))
        for k in (1, 2, 3)
    },
    # 1 811 712, two branches of 256 from 320 channels, projection, classifier
    "deeplab_v3_mobilenetv2": (1_811_712 + 2 * 82_432 + 131_584 + 5_397, 16),
    "deeplab_v3plus_resnet50": (40_352_181, 16),
    "deeplab_v3plus_resnet101": (59_344_309, 16),
    "deeplab_v3plus_resnet101_separable": (45_688_261, 16),
    "deeplab_v3plus_xception41": (28_108_661, 16),
    "deeplab_v3plus_xception65": (41_055_413, 16),
    "deeplab_v3plus_xception65_standard": (54_711_461, 16),
    "deeplab_v3plus_xception71": (43_477_837, 16),
    # 1 811 712; pyramid from 320 channels: two 1x1 branches, three separable ones (9 x 320 + 640
    # + 320 x 256 + 512), projection from 1280; decoder of 168 325 with 24 instead of 256
    # low-level channels
    "deeplab_v3plus_mobilenetv2": (
        1_811_712 + 2 * 82_432 + 3 * 85_952 + 328_192 + 168_325 - 48 * 232,
        16,
    ),
}

# Receptive fields in pixels: of the logits, from the specification. Behind image pooling every
# pixel is seen; it is left out. Those of the ResNets hold for the stride in the 3x3 convolution.
FIELDS = {
    "deeplab_v1_7x7": 419,
    "deeplab_v1_4x4": 323,
    "deeplab_v1_4x4_r8": 419,
    "deeplab_v1_largefov": 435,
    "deeplab_v2_vgg16_aspp_l": 611,
    "deeplab_v2_resnet101_aspp_l": 1403,
    "deeplab_v3_resnet101": 1835,
    "deeplab_v3_resnet101_block7": 4651,
}


def expected_totals(name: str) -> tuple[int, int]:
    """Another output stride, and an input pyramid, share the weights of the plain network."""
    if name.endswith("_os8"):
        return TOTALS[name.removesuffix("_os8")][0], 8
    return TOTALS[name] if name in TOTALS else TOTALS[name.removesuffix("_msc")]


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_strides(name: str) -> None:
    network = shell(name)
    assert (parameters(network), network.output_stride) == expected_totals(name)
    plus = name.startswith("deeplab_v3plus")
    assert network.logit_stride == (4 if plus else network.output_stride)
    image = torch.empty(2, 3, 97, 161, device="meta")
    stride = network.logit_stride
    assert network(image).shape == (2, 21, 96 // stride + 1, 160 // stride + 1)


def expected_rates(name: str) -> dict[str, list[int]]:
    """Beginning of a layer's name -> rates of the 3x3 (v1: 7x7, 4x4) convolutions under it."""
    stride8 = name.endswith("_os8")
    config: Any = BUILDERS[name].config
    expected: dict[str, list[int]] = {}
    if isinstance(config.backbone, VggConfig):
        expected["backbone.features"] = [1] * 10 + [2] * 3
        expected["backbone.branches"] = {
            "7x7": [4], "4x4": [4], "r8": [8], "largefov": [12],
            "s": [2, 4, 8, 12], "l": [6, 12, 18, 24],
        }[name.removesuffix("_msc").split("_")[-1]]  # fmt: skip
        expected["branches"] = [1] * 5 if name.startswith("deeplab_v1") and "msc" in name else []
        return expected
    if isinstance(config.backbone, ResNetConfig):
        stage3, stage4 = {16: (1, 2), 8: (2, 4)}[shell(name).output_stride]
        grid = (1, 2, 1) if "block" in name else (1, 1, 1) if "v2" in name else (1, 2, 4)
        depth = 23 if config.backbone.depth == 101 else 6
        expected["backbone.conv1"] = [1] * 3 if config.backbone.deep_stem else []
        expected["backbone.layer1"], expected["backbone.layer2"] = [1] * 3, [1] * 4
        expected["backbone.layer3"] = [stage3] * depth
        expected["backbone.layer4"] = [stage4 * factor for factor in grid]
        count = int(name.removesuffix("_os8")[-1]) - 4 if "block" in name else 0
        expected["blocks"] = [
            stage4 * 2**k * factor for k in range(1, count + 1) for factor in grid
        ]
    elif isinstance(config.backbone, XceptionConfig):
        middle = 8 if config.backbone.depth == 41 else 16
        entry = 5 if config.backbone.depth == 71 else 3
        inner, exit2 = (2, 4) if stride8 else (1, 2)
        expected["backbone.stem"] = [1, 1]
        expected["backbone.blocks"] = (
            [1] * 3 * entry + [inner] * 3 * middle + [inner] * 3 + [exit2] * 3
        )
    else:
        expected["backbone.conv_stem"] = [1]
        expected["backbone.blocks"] = mobilenet_rates(stride8)
    if "v2_resnet101_largefov" in name:
        expected["classifiers"] = [12]
    elif "v2" in name and "mobilenetv2" not in name:
        expected["classifiers"] = [6, 12, 18, 24]
    elif "block" not in name and name.removesuffix("_os8") != "deeplab_v3_mobilenetv2":
        expected["atrous"] = [12, 24, 36] if stride8 else [6, 12, 18]
    if "v3plus" in name:
        expected["decoder"] = [1, 1]
    return expected


def mobilenet_rates(stride8: bool) -> list[int]:
    """17 units; that of a removed stride keeps the old rate, as timm dilates."""
    if stride8:
        return [1] * 7 + [2] * 7 + [4] * 3
    return [1] * 14 + [2] * 3


@pytest.mark.parametrize("name", NAMES)
def test_rate_of_every_convolution(name: str) -> None:
    network = shell(name)
    layers = {
        key: m
        for key, m in network.named_modules()
        if (isinstance(m, nn.Conv2d) and m.kernel_size[0] in (3, 4)) or key.endswith("fc6")
    }
    found: dict[str, list[int]] = {}
    for key, layer in layers.items():
        parts = key.split(".")
        group = ".".join(parts[:2]) if parts[0] == "backbone" else parts[0]
        assert isinstance(layer, nn.Conv2d)
        found.setdefault(group, []).append(layer.dilation[0])
        kernel, rate = layer.kernel_size[0], layer.dilation[0]
        assert layer.padding == (rate * (kernel - 1) // 2,) * 2, key
    assert found == {key: value for key, value in expected_rates(name).items() if value}


@pytest.mark.parametrize(
    ("name", "field"),
    [
        pytest.param(*item, marks=[pytest.mark.slow] if item[1] > 4000 else [])
        for item in FIELDS.items()
    ],
)
def test_receptive_field(name: str, field: int) -> None:
    config = builder(name).config
    if isinstance(config, DeepLabV2Config) and isinstance(config.backbone, ResNetConfig):
        backbone = replace(config.backbone, stride_in_1x1=False)
        config = replace(config, backbone=backbone)
    with torch.device("meta"):
        network = build_network(config, 1)
    assert receptive_field(network) == field


def test_the_authors_stride_in_the_1x1_widens_the_field_by_one_cell() -> None:
    """The 3x3 convolution of res3a then reads stride 8 instead of 4: 2 x 4 pixels more."""
    assert receptive_field(shell("deeplab_v2_resnet101_aspp_l")) == 1403 + 8


@pytest.mark.parametrize(
    ("name", "grid", "field"),
    [
        ("deeplab_v2_resnet101_aspp_l", (1, 1, 1), 1019),
        ("deeplab_v3_resnet101", (1, 1, 1), 1003),
        ("deeplab_v3_resnet101", (1, 2, 4), 1259),
    ],
)
def test_receptive_field_of_the_features(name: str, grid, field: int) -> None:
    config: Any = builder(name).config
    backbone = replace(config.backbone, stride_in_1x1=False, multi_grid=grid)
    with torch.device("meta"):
        network = build_network(replace(config, backbone=backbone), 1)
    assert receptive_field(network, features_of(-1)) == field


def test_receptive_field_before_fc6() -> None:
    """227 pixels, 243 behind the average of LargeFOV."""

    def pool5(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
        backbone = network.get_submodule("backbone")
        features = backbone.get_submodule("features")(image)
        return backbone.get_submodule("pool5a")(features)  # type: ignore[no-any-return]

    assert receptive_field(shell("deeplab_v1_4x4"), pool5) == 227
    assert receptive_field(shell("deeplab_v1_largefov"), pool5) == 243


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown network 'deeplab_v3_resnet11'.*resnet101"):
        build("deeplab_v3_resnet11", 21)


def thinned(name: str) -> Network:
    """The network with one of each run of identical units: all are traced alike."""
    network = shell(name)
    if isinstance(network.backbone, ResNetBackbone):
        for stage in ("layer1", "layer2", "layer3"):
            units = network.backbone.get_submodule(stage)
            setattr(network.backbone, stage, nn.Sequential(*list(units.children())[:2]))
    elif isinstance(network.backbone, XceptionBackbone):
        blocks = list(network.backbone.blocks)
        network.backbone.blocks = nn.Sequential(*blocks[:6], *blocks[-2:])
    return network


# One of each structure; the others differ from one of these in numbers only.
STRUCTURES = {
    "deeplab_v1_4x4",
    "deeplab_v1_largefov_msc",
    "deeplab_v2_vgg16_aspp_l",
    "deeplab_v2_resnet101_aspp_l_msc",
    "deeplab_v3_resnet50",
    "deeplab_v3_resnet101_beta",
    "deeplab_v3_mobilenetv2",
    "deeplab_v3_resnet50_block7",
    "deeplab_v3plus_resnet50",
    "deeplab_v3plus_xception41",
    "deeplab_v3plus_mobilenetv2",
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in STRUCTURES else [pytest.mark.slow])
        for name in NAMES
        if not name.endswith("_os8")
    ],
)
def test_compiles_without_a_graph_break(name: str) -> None:
    network = thinned(name)
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    with torch.no_grad():
        shape = compiled(torch.empty(1, 3, 65, 65, device="meta")).shape
    assert shape == (1, 21, 64 // network.logit_stride + 1, 64 // network.logit_stride + 1)


@pytest.mark.parametrize("name", NAMES)
def test_pretrained_moves_the_stride_to_where_the_public_weights_have_it(name: str) -> None:
    config = builder(name).config
    if isinstance(config.backbone, ResNetConfig) and config.backbone.deep_stem:
        with pytest.raises(ValueError, match="deep_stem=False"):
            pretrained_config(config)
        return
    found = pretrained_config(config).backbone
    assert found.pretrained
    assert not (isinstance(found, ResNetConfig) and found.stride_in_1x1)


def test_normalization_is_that_of_the_weights() -> None:
    for entry in BUILDERS.values():
        backbone = entry.config.backbone
        half = isinstance(backbone, XceptionConfig | TimmConfig)
        assert backbone.normalization == ("half" if half else "imagenet")
