"""Backbones: strides and rates, the authors' layers, and weights from elsewhere."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, resnet50

from models.backbones import (
    DilatedConfig,
    TimmConfig,
    backbone_named,
    build_backbone,
    load_backbone,
)
from models.layers import InputNormalization, batch_norms, set_momentum, synchronized
from models.resnet import ResNetBackbone, ResNetConfig
from models.vgg import VggBackbone, VggConfig
from models.xception import XceptionBackbone, XceptionConfig
from tests.models.small import SLIM, drawn, image, rates, strides


def shell(config: DilatedConfig | VggConfig, output_stride: int = 16) -> nn.Module:
    """A backbone without memory: shapes and counts only."""
    with torch.device("meta"):
        if isinstance(config, VggConfig):
            return VggBackbone(config)
        return build_backbone(config, output_stride, low_level=True).module


def scramble(module: nn.Module) -> None:
    """Random affine parameters and statistics, so that no BN is the identity."""
    generator = torch.Generator().manual_seed(0)
    for norm in batch_norms(module):
        for name, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5)):
            getattr(norm, name).data.uniform_(low, low + 1, generator=generator)
        norm.get_buffer("running_var").uniform_(0.5, 1.5, generator=generator)


# Landmine 14: the rate of the first unit of a dilated stage. The other rates are in test_builders.
@pytest.mark.parametrize(
    ("output_stride", "dilate_first", "grid", "layer3", "layer4"),
    [
        (32, True, (1, 1, 1), [1] * 6, [1, 1, 1]),
        (16, True, (1, 2, 4), [1] * 6, [2, 4, 8]),
        (16, False, (1, 1, 1), [1] * 6, [1, 2, 2]),
        (8, False, (1, 1, 1), [1, 2, 2, 2, 2, 2], [2, 4, 4]),
    ],
)
def test_first_unit_of_a_stage_has_the_rate_that_is_asked_for(
    output_stride, dilate_first, grid, layer3, layer4
) -> None:
    config = ResNetConfig(depth=50, dilate_first=dilate_first, multi_grid=grid)
    module = shell(config, output_stride)
    found = [rates(module.get_submodule(stage)) for stage in ("layer2", "layer3", "layer4")]
    assert found == [[1] * 4, layer3, layer4]


def test_where_resnet_strides_xception_dilates_and_vgg_pools() -> None:
    for flag, expected in ((False, [1, 2, 1, 2]), (True, [2, 1, 1, 2])):
        config = ResNetConfig(depth=50, stride_in_1x1=flag)
        # conv1, conv2, conv3, projection
        assert strides(shell(config).get_submodule("layer2.0")) == expected
    xception = shell(XceptionConfig(depth=41, multi_grid=(1, 2, 4)))
    assert rates(xception.get_submodule("blocks.12")) == [2, 4, 8]
    pools = [m for m in shell(VggConfig()).modules() if isinstance(m, nn.MaxPool2d)]
    found = [(p.kernel_size, p.stride, p.padding) for p in pools]
    assert found == [(3, stride, 1) for stride in (2, 2, 2, 1, 1)]


# Landmine 4: a ReLU in place that also rectifies the shortcut, or the decoder's features.
@pytest.mark.parametrize("output_stride", [32, 8])
def test_features_are_those_of_timms_xception(output_stride: int) -> None:
    ours: nn.Module = XceptionBackbone(XceptionConfig(depth=41), output_stride).eval()
    peer: Any = timm.create_model("xception41", num_classes=0, output_stride=output_stride).eval()
    scramble(peer)
    load_backbone(ours, peer.state_dict())
    taps: list[Tensor] = []  # copied: timm's next ReLU is in place
    peer.blocks[1].stack.conv2.register_forward_hook(lambda _, __, x: taps.append(x.clone()))
    x = torch.randn(1, 3, 65, 49, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, expected = ours(x), (peer.forward_features(x), *taps)
    for ours_, theirs in zip(found, reversed(expected), strict=True):
        torch.testing.assert_close(ours_, theirs, rtol=1e-5, atol=1e-5)  # the bound
    assert (found[0] < 0).any()  # the tap lies before the ReLU


@pytest.mark.parametrize(
    ("kernel", "channels", "taps", "keep"),
    [(7, 64, range(7), 64), (4, 4096, (0, 2, 4, 6), 1), (3, 1024, (0, 3, 6), 4)],
)
def test_fc6_and_fc7_are_decimated_from_those_of_vgg(kernel, channels, taps, keep) -> None:
    """Weights that name their own place: 49 * input + tap, the same for filters 0, 4, 8, ..."""
    where, filters = torch.arange(512 * 49, dtype=torch.float32), torch.arange(4096.0)
    features = shell(VggConfig(fc_channels=1)).state_dict()
    state = {
        **{k: torch.zeros(v.shape) for k, v in features.items() if k.startswith("features")},
        "classifier.0.weight": where.expand(4096, -1),
        "classifier.0.bias": filters,
        "classifier.3.weight": filters.expand(4096, -1),
        "classifier.3.bias": filters,
        "classifier.6.weight": torch.zeros(1000, 4096),
        "classifier.6.bias": torch.zeros(1000),
    }
    backbone = shell(VggConfig(fc_kernel=kernel, fc_channels=channels, rates=(4,)))
    backbone.to_empty(device="cpu")
    load_backbone(backbone, state)
    fc6, bias, fc7 = (
        backbone.get_parameter(f"branches.0.{name}")
        for name in ("fc6.weight", "fc6.bias", "fc7.weight")
    )
    rows, columns = torch.meshgrid(torch.tensor(taps), torch.tensor(taps), indexing="ij")
    assert torch.equal(fc6[1, 5], 49 * 5.0 + 7 * rows + columns)
    assert torch.equal(bias, filters[::keep])
    assert torch.equal(fc7[3, :, 0, 0], filters[::keep])  # the inputs that are left


def test_pretrained_fetches_the_weights_once(monkeypatch) -> None:
    asked, peer = [], resnet50()
    scramble(peer)

    def fetch(self: WeightsEnum, **options: bool) -> Any:
        asked.append(str(self))
        return peer.state_dict()

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fetch)
    backbone = ResNetBackbone(ResNetConfig(depth=50, pretrained=True), 16)
    assert asked == ["ResNet50_Weights.IMAGENET1K_V1"]
    expected = peer.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in backbone.state_dict().items())


def test_a_backbone_by_name_is_normalised_as_its_weights_were() -> None:
    for name, expected in (("mobilenetv2_100", "imagenet"), ("inception_resnet_v2", "half")):
        assert backbone_named(name) == TimmConfig(name, normalization=expected)  # type: ignore[arg-type]


def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    info = SimpleNamespace(feature_info=SimpleNamespace(reduction=lambda: [8, 16]))
    monkeypatch.setattr("models.backbones.created", lambda *_, **__: info)
    shell(TimmConfig("mobilenetv2_100"))


# Landmine 7: TensorFlow's decay is 1 minus PyTorch's momentum.
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: set_momentum(nn.BatchNorm2d(2), 0.9997), "momentum must be"),
        (lambda _: load_backbone(shell(XceptionConfig(depth=41)), {}), "another architecture"),
        (lambda _: load_backbone(shell(TimmConfig()), {}), "another architecture"),
        (lambda _: load_backbone(shell(VggConfig()), {}), "not the weights of a VGG-16"),
        (lambda _: shell(TimmConfig("vgg11")), "cannot be dilated to output stride 16"),
        (lacking, r"strides \[8, 16\]: the decoder needs stride 4"),
        (lambda _: backbone_named("dpn68"), r"'dpn68' were trained with the mean \(0\.486"),
        (lambda _: InputNormalization("none"), "must be one of imagenet, half, caffe"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_what_is_refused(make, message: str, monkeypatch) -> None:
    with pytest.raises(ValueError, match=message):
        make(monkeypatch)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("half", [10 / 127.5 - 1, 20 / 127.5 - 1, 30 / 127.5 - 1]),
        ("imagenet", [(10 / 255 - 0.485) / 0.229, (20 / 255 - 0.456) / 0.224,
                      (30 / 255 - 0.406) / 0.225]),
        ("caffe", [30 - 104.008, 20 - 116.669, 10 - 122.675]),  # BGR
    ],
)  # fmt: skip
def test_normalizations(name, expected) -> None:
    x = torch.tensor([10.0, 20.0, 30.0])[:, None, None].expand(1, 3, 2, 2)
    module = InputNormalization(name)
    torch.testing.assert_close(module(x)[0, :, 0, 0], torch.tensor(expected))
    assert not module.state_dict()


@pytest.mark.parametrize("kind", ["v3 mobilenet", "v3+ xception"])
def test_synchronised_norms_are_the_same_function(kind: str) -> None:
    """Activations inside timm's norms included; in eval mode, which needs no second process."""
    network = drawn(SLIM[kind]).network.eval()
    with torch.no_grad():
        expected = network(image(1, 3, 65, 65))
        found = synchronized(network)
        assert not any(type(m) is torch.nn.BatchNorm2d for m in found.modules())
        assert torch.equal(found(image(1, 3, 65, 65)), expected)
