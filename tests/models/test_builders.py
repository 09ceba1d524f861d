"""Every network by name: the numbers of the specification."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import nn

from models import (
    BUILDERS,
    CrfConfig,
    SegmenterConfig,
    TimmConfig,
    VggConfig,
    XceptionConfig,
    build,
    build_network,
    builder,
    pretrained_config,
)
from models.describe import parameters, shell
from models.layers import batch_norms
from models.receptive_field import features_of, receptive_field
from models.resnet import ResNetConfig

# Parameters at 21 classes, biases included, and output stride: the totals of the papers and of
# the arithmetic that reproduces them.
MSC = 1_206_016
CLASSIFIER = 2048 * 21 + 21
TOTALS = {
    "deeplab_v1_7x7": (134_346_581, 8),
    "deeplab_v1_4x4": (65_140_565, 8),
    "deeplab_v1_4x4_r8": (65_140_565, 8),
    "deeplab_v1_largefov": (20_505_429, 8),
    "deeplab_v1_largefov_msc": (20_505_429 + MSC, 8),
    "deeplab_v1_7x7_msc": (134_346_581 + MSC, 8),
    "deeplab_v1_4x4_msc": (65_140_565 + MSC, 8),
    "deeplab_v1_4x4_r8_msc": (65_140_565 + MSC, 8),
    "deeplab_v2_vgg16_largefov": (20_505_429, 8),
    "deeplab_v2_vgg16_aspp_s": (37_877_652, 8),
    "deeplab_v2_vgg16_aspp_l": (37_877_652, 8),
    "deeplab_v2_resnet101_largefov": (42_887_253, 8),
    "deeplab_v2_resnet101_aspp_l": (44_048_532, 8),
    "deeplab_v3_resnet50": (39_048_533, 16),
    "deeplab_v3_resnet101": (58_040_661, 16),
    "deeplab_v3_resnet101_beta": (58_164_437, 16),
    **{
        f"deeplab_v3_resnet{depth}_block{4 + k}": (trunk + CLASSIFIER + k * 13_387_776, 16)
        for depth, trunk in ((50, 23_508_032), (101, 42_500_160))
        for k in range(4)
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


def expected_totals(name: str) -> tuple[int, int]:
    """Another output stride, and an input pyramid, share the weights of the plain network."""
    if name.endswith("_os8"):
        return TOTALS[name.removesuffix("_os8")][0], 8
    return TOTALS[name] if name in TOTALS else TOTALS[name.removesuffix("_msc")]


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
        stage3, stage4 = (2, 4) if stride8 or "v2" in name else (1, 2)
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
        # 17 units; that of a removed stride keeps the old rate, as timm dilates.
        expected["backbone.blocks"] = [1] * 7 + [2] * 7 + [4] * 3 if stride8 else [1] * 14 + [2] * 3
    if "v2_resnet101_largefov" in name:
        expected["classifiers"] = [12]
    elif "v2" in name and "mobilenetv2" not in name:
        expected["classifiers"] = [6, 12, 18, 24]
    elif "block" not in name and name.removesuffix("_os8") != "deeplab_v3_mobilenetv2":
        expected["atrous"] = [12, 24, 36] if stride8 else [6, 12, 18]
    if "v3plus" in name:
        expected["decoder"] = [1, 1]
    return expected


def found_rates(network: nn.Module) -> dict[str, list[int]]:
    """As `expected_rates`; every padding keeps the size."""
    found: dict[str, list[int]] = {}
    for key, layer in network.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        kernel, rate = layer.kernel_size[0], layer.dilation[0]
        if kernel in (3, 4) or key.endswith("fc6"):
            parts = key.split(".")
            group = ".".join(parts[:2]) if parts[0] == "backbone" else parts[0]
            found.setdefault(group, []).append(rate)
            assert layer.padding == (rate * (kernel - 1) // 2,) * 2, key
    return found


# Landmine 7: TensorFlow's decay of 0.9997 is a momentum of 0.0003.
@pytest.mark.parametrize("name", BUILDERS)
def test_parameters_strides_rates_and_momentum(name: str) -> None:
    network = shell(name)
    assert (parameters(network), network.output_stride) == expected_totals(name)
    plus = name.startswith("deeplab_v3plus")
    assert network.logit_stride == (4 if plus else network.output_stride)
    assert found_rates(network) == {
        key: value for key, value in expected_rates(name).items() if value
    }
    momenta = {norm.momentum for norm in batch_norms(network)}
    assert momenta <= ({3e-4} if "v3" in name else {0.1})


# Of the logits, in pixels, from the specification.
@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("deeplab_v1_4x4", 323),
        ("deeplab_v1_largefov", 435),
        ("deeplab_v2_vgg16_aspp_l", 611),
    ],
)
def test_receptive_field(name: str, field: int) -> None:
    assert receptive_field(shell(name)) == field


def test_receptive_field_of_features() -> None:
    """That of ResNet-50 by hand: a sum over its convolutions of (kernel - 1) rate stride."""
    with torch.device("meta"):
        network = build_network(builder("deeplab_v3_resnet50").config, 1)
    stem = 1 + 6 + 2 * 2  # 7x7 at stride 1, 3x3 pooling at stride 2
    layers = 3 * 2 * 4 + (2 * 4 + 3 * 2 * 8) + (2 * 8 + 5 * 2 * 16) + 2 * 16 * (2 + 4 + 8)
    assert receptive_field(network, features_of(-1)) == stem + layers


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


def test_pretrained_moves_the_stride_to_where_the_public_weights_have_it() -> None:
    for name, entry in BUILDERS.items():
        config = entry.config
        if isinstance(config.backbone, ResNetConfig) and config.backbone.deep_stem:
            with pytest.raises(ValueError, match="deep_stem=False"):
                pretrained_config(config)
            continue
        found = pretrained_config(config).backbone
        assert found.pretrained, name
        assert not (isinstance(found, ResNetConfig) and found.stride_in_1x1), name


def test_normalization_is_that_of_the_weights() -> None:
    for entry in BUILDERS.values():
        backbone = entry.config.backbone
        half = isinstance(backbone, XceptionConfig | TimmConfig)
        assert backbone.normalization == ("half" if half else "imagenet")


def test_every_config_survives_a_dictionary() -> None:
    for entry in BUILDERS.values():
        config = SegmenterConfig(5, entry.config, CrfConfig(resolution=4), min_size=65)
        values = asdict(config)
        assert SegmenterConfig.from_dict(values) == config
        assert json.loads(json.dumps(values))["network"]["kind"] == entry.config.kind
