"""DeepLabv3: shapes, parameter counts, errors, batch of one, published weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from models import (
    DeepLabV3,
    DeepLabV3Config,
    Segmenter,
    SegmenterConfig,
    TimmConfig,
    load_weights,
    published_network,
)
from models.aspp import pool_image

TINY = TimmConfig("mobilenetv2_035")
SMALL = DeepLabV3Config(backbone=TINY, atrous_rates=(), head_channels=16)
PUBLISHED = published_network()


@pytest.mark.parametrize(("stride", "expected"), [(16, (5, 7)), (8, (9, 13))])
@pytest.mark.parametrize("rates", [(), (1, 2)])
def test_shape(stride: int, expected: tuple[int, int], rates: tuple[int, ...]) -> None:
    config = DeepLabV3Config(
        backbone=TINY, output_stride=stride, atrous_rates=rates, head_channels=16
    )
    network = DeepLabV3(4, config).eval()
    with torch.no_grad():
        assert network(torch.rand(2, 3, 65, 97) * 255).shape == (2, 4, *expected)


def test_number_of_parameters_of_the_published_model() -> None:
    """MobileNetV2 up to its 320 channels, two branches of 256, projection, 21 classes."""
    network = DeepLabV3(21, PUBLISHED)
    backbone = 1_811_712  # 3.50 M less the 1280-channel layer and the classifier
    head = 2 * (320 * 256 + 512) + (512 * 256 + 512) + (256 * 21 + 21)
    assert sum(p.numel() for p in network.backbone.parameters()) == backbone
    assert sum(p.numel() for p in network.parameters()) == backbone + head


def test_rates_double_at_stride_8() -> None:
    def dilations(stride: int) -> list[tuple[int, ...]]:
        config = DeepLabV3Config(backbone=TINY, output_stride=stride, atrous_rates=(6, 12))
        return [branch[0].dilation for branch in DeepLabV3(2, config).atrous]  # type: ignore[index]

    assert dilations(16) == [(6, 6), (12, 12)]
    assert dilations(8) == [(12, 12), (24, 24)]


def test_every_branch_reaches_the_output() -> None:
    """A `return` inside a loop over branches is a bug of a widely used repository."""
    network = DeepLabV3(3, DeepLabV3Config(backbone=TINY, atrous_rates=(2, 4))).eval()
    image = torch.rand(1, 3, 65, 65) * 255
    network(image).square().sum().backward()
    for branch in (network.image_pooling, network.aspp0, *network.atrous):
        assert branch[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_stride": 32}, "output_stride must be 8 or 16, got 32"),
        ({"backbone": TimmConfig("vit_tiny_patch16_224")}, "cannot be dilated to output stride 16"),
    ],
)
def test_bad_configuration(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeepLabV3(3, DeepLabV3Config(**arguments))


def test_unknown_backbone() -> None:
    with pytest.raises(ValueError, match=r"got 'mobilenetv2_77'. Similar names: .*mobilenetv2"):
        TimmConfig("mobilenetv2_77")


def test_batch_of_one_in_train_mode() -> None:
    """The BN of image pooling has one value a channel there; it uses its running statistics."""
    network = DeepLabV3(3, SMALL).train()
    network(torch.rand(1, 3, 33, 33) * 255).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    channels = network.state_dict()["image_pooling.0.weight"].shape[1]
    features = torch.randn(1, channels, 3, 3)
    branch = network.image_pooling
    assert isinstance(branch, nn.Sequential)
    alone = pool_image(branch, features)
    network.eval()
    torch.testing.assert_close(alone, pool_image(branch, features))


@pytest.mark.data
def test_published_weights_load_strictly(shared_root) -> None:
    path = shared_root / "weights" / "deeplabv3_mobilenetv2_voc.safetensors"
    load_weights(DeepLabV3(21, PUBLISHED), path)
    with pytest.raises(ValueError, match=r"another architecture .*classifier\.bias is \(21,\)"):
        load_weights(DeepLabV3(7, PUBLISHED), path)
    with pytest.raises(ValueError, match=r"missing atrous\.0\.0\.weight"):
        load_weights(DeepLabV3(21, replace(PUBLISHED, atrous_rates=(6,))), path)


def test_missing_and_foreign_weight_files(tmp_path) -> None:
    network = Segmenter(SegmenterConfig(3, SMALL)).network
    with pytest.raises(FileNotFoundError, match=r"--model\.weights"):
        load_weights(network, tmp_path / "absent.safetensors")
    text = tmp_path / "notes.safetensors"
    text.write_text("not weights at all")
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_weights(network, text)
