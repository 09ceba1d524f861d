"""Every network by name: the numbers of the specification."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import Any

import pytest
from torch import nn

from models import (
    BUILDERS,
    CrfConfig,
    SegmenterConfig,
    TimmConfig,
    VggConfig,
    XceptionConfig,
    pretrained_config,
)
from models.__main__ import main
from models.describe import convolutions, parameters, shell
from models.layers import batch_norms
from models.resnet import ResNetConfig

# Parameters at 21 classes, biases included: the totals of the papers and of the arithmetic that
# reproduces them.
MSC = 1_206_016  # of DeepLab v1; the input pyramid of v2 has none
BLOCK, CLASSIFIER = 13_387_776, 2048 * 21 + 21
MOBILENET = 1_811_712 + 2 * 82_432  # and two branches of 256 from 320 channels
TOTALS = {
    "v1_7x7": 134_346_581, "v1_4x4": 65_140_565, "v1_4x4_r8": 65_140_565,
    "v1_largefov": 20_505_429, "v2_vgg16_largefov": 20_505_429,
    "v2_vgg16_aspp_s": 37_877_652, "v2_vgg16_aspp_l": 37_877_652,
    "v2_resnet101_largefov": 42_887_253, "v2_resnet101_aspp_l": 44_048_532,
    "v3_resnet50": 39_048_533, "v3_resnet101": 58_040_661, "v3_resnet101_beta": 58_164_437,
    **{f"v3_resnet50_block{4 + k}": 23_508_032 + CLASSIFIER + k * BLOCK for k in range(4)},
    **{f"v3_resnet101_block{4 + k}": 42_500_160 + CLASSIFIER + k * BLOCK for k in range(4)},
    "v3_mobilenetv2": MOBILENET + 131_584 + 5_397,  # projection, classifier
    "v3plus_resnet50": 40_352_181, "v3plus_resnet101": 59_344_309,
    "v3plus_resnet101_separable": 45_688_261,
    "v3plus_xception41": 28_108_661, "v3plus_xception65": 41_055_413,
    "v3plus_xception65_standard": 54_711_461, "v3plus_xception71": 43_477_837,
    # Three separable branches (9 x 320 + 640 + 320 x 256 + 512), projection from 1280; decoder of
    # 168 325 with 24 instead of 256 low-level channels.
    "v3plus_mobilenetv2": MOBILENET + 3 * 85_952 + 328_192 + 168_325 - 48 * 232,
}  # fmt: skip


def expected_rates(name: str) -> dict[str, list[int]]:
    """Beginning of a layer's name -> rates of the 3x3 (v1: 7x7, 4x4) convolutions under it."""
    fine = name.endswith("_os8")
    version, _, plain = name.removeprefix("deeplab_").removesuffix("_os8").partition("_")
    config: Any = BUILDERS[name].config
    backbone = config.backbone
    expected: dict[str, list[int]] = {}
    if isinstance(backbone, VggConfig):
        branches = {
            "7x7": [4], "4x4": [4], "r8": [8], "largefov": [12],
            "s": [2, 4, 8, 12], "l": [6, 12, 18, 24],
        }[plain.removesuffix("_msc").split("_")[-1]]  # fmt: skip
        expected = {"backbone.features": [1] * 10 + [2] * 3, "backbone.branches": branches}
        if version == "v1" and "msc" in plain:
            expected["branches"] = [1] * 5
        return expected
    if isinstance(backbone, ResNetConfig):
        stage3, stage4 = (2, 4) if fine or version == "v2" else (1, 2)
        grid = (1, 2, 1) if "block" in plain else (1, 1, 1) if version == "v2" else (1, 2, 4)
        count = int(plain[-1]) - 4 if "block" in plain else 0
        expected = {
            "backbone.conv1": [1] * 3 if backbone.deep_stem else [],
            "backbone.layer1": [1] * 3,
            "backbone.layer2": [1] * 4,
            "backbone.layer3": [stage3] * (23 if backbone.depth == 101 else 6),
            "backbone.layer4": [stage4 * factor for factor in grid],
            "blocks": [stage4 * 2**k * factor for k in range(1, count + 1) for factor in grid],
        }
    elif isinstance(backbone, XceptionConfig):
        entry, middle = {41: (3, 8), 65: (3, 16), 71: (5, 16)}[backbone.depth]
        inner, exit2 = (2, 4) if fine else (1, 2)
        expected["backbone.stem"] = [1, 1]
        expected["backbone.blocks"] = [1] * 3 * entry + [inner] * 3 * (middle + 1) + [exit2] * 3
    else:
        expected["backbone.conv_stem"] = [1]
        # 17 units; that of a removed stride keeps the old rate, as timm dilates.
        expected["backbone.blocks"] = [1] * 7 + [2] * 7 + [4] * 3 if fine else [1] * 14 + [2] * 3
    if version == "v2":
        expected["classifiers"] = [12] if "largefov" in plain else [6, 12, 18, 24]
    elif "block" not in plain and (version, plain) != ("v3", "mobilenetv2"):
        expected["atrous"] = [12, 24, 36] if fine else [6, 12, 18]
    if version == "v3plus":
        expected["decoder"] = [1, 1]
    return {key: value for key, value in expected.items() if value}


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
    network, v3, plus = shell(name), "v3" in name, "v3plus" in name
    plain = name.removeprefix("deeplab_").removesuffix("_os8")
    total = TOTALS[plain.removesuffix("_msc")]
    assert parameters(network) == total + (MSC if plain.startswith("v1") and "msc" in plain else 0)
    stride = 16 if v3 and not name.endswith("_os8") else 8
    assert (network.output_stride, network.logit_stride) == (stride, 4 if plus else stride)
    assert found_rates(network) == expected_rates(name)
    assert {norm.momentum for norm in batch_norms(network)} <= ({3e-4} if v3 else {0.1})


@pytest.mark.parametrize("name", BUILDERS)
def test_pretrained_weights_and_dictionaries(name: str) -> None:
    """The stride is where the public weights have it, and the input normalised as for them."""
    config: Any = BUILDERS[name].config
    half = isinstance(config.backbone, XceptionConfig | TimmConfig)
    assert config.backbone.normalization == ("half" if half else "imagenet")
    if name.startswith("deeplab_v3_resnet101_beta"):
        with pytest.raises(ValueError, match="deep_stem=False"):
            pretrained_config(config)
    else:
        found: Any = pretrained_config(config).backbone
        assert (found.pretrained, getattr(found, "stride_in_1x1", False)) == (True, False)
    whole = SegmenterConfig(5, config, CrfConfig(resolution=4), min_size=65)
    assert SegmenterConfig.from_dict(asdict(whole)) == whole
    assert json.loads(json.dumps(asdict(whole)))["network"]["kind"] == config.kind


# the command


def test_nearest_names_and_help(capsys) -> None:
    with pytest.raises(SystemExit, match=r"unknown network 'deeplab_v3_resnet11'.*resnet101"):
        main(["describe", "deeplab_v3_resnet11"])
    with pytest.raises(SystemExit, match="describe NAME"):
        main(["lst"])
    main([])
    assert "describe NAME" in capsys.readouterr().out


def test_list_and_describe_show_what_a_network_has(monkeypatch, capsys) -> None:
    some = {"deeplab_v1_largefov": "20,505,429", "deeplab_v3_mobilenetv2_os8": "2,113,557"}
    monkeypatch.setattr("models.describe.BUILDERS", {name: BUILDERS[name] for name in some})
    main(["list"])
    listed = capsys.readouterr().out
    for name, total in some.items():
        assert re.search(rf"\b{name}\W+{total}\W+8\b", listed)
    name = "deeplab_v2_vgg16_aspp_s"
    main(["describe", name])
    described = capsys.readouterr().out
    for layer_name, layer in convolutions(shell(name)):
        kernel, stride, rate = layer.kernel_size[0], layer.stride[0], layer.dilation[0]
        row = rf"\b{re.escape(layer_name)}\W+{kernel}x{kernel}\W+{stride}\W+{rate}\b"
        assert re.search(row, described)
    assert re.search(r"backbone\.rates\W+2, 4, 8, 12\b", described)
