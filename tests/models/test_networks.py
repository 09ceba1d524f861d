"""What the networks do: parity with torchvision, sizes, frozen BN, pyramid, decoder, cascade."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3_resnet101

from models import (
    BUILDERS,
    CascadeConfig,
    CrfConfig,
    DeepLabV1Config,
    DeepLabV2,
    DeepLabV2Config,
    DeepLabV3,
    DeepLabV3Cascade,
    DeepLabV3Config,
    DeepLabV3Plus,
    DeepLabV3PlusConfig,
    ResNetConfig,
    Segmenter,
    SegmenterConfig,
    TimmConfig,
    VggConfig,
    backbone_named,
    build_network,
    load_backbone_weights,
    with_backbone,
    without_pretrained,
)
from models.batch_norm import batch_norms
from models.convolution import separable_convolution
from models.multi_scale_branches import MultiScaleBranches

TINY = TimmConfig("mobilenetv2_035", normalization="half")
SMALL_V3 = DeepLabV3Config(backbone=TINY, head_channels=16, dropout=0.0)
SMALL_PLUS = DeepLabV3PlusConfig(
    backbone=TINY, head_channels=16, decoder_channels=16, low_level_channels=8, dropout=0.0
)
SMALL_V2 = DeepLabV2Config(backbone=ResNetConfig(depth=50), rates=(1, 2))
SMALL_CASCADE = CascadeConfig(backbone=ResNetConfig(depth=50, multi_grid=(1, 2, 1)), blocks=1)
SMALL_V1 = DeepLabV1Config(backbone=VggConfig(fc_channels=16, average_pool=True), msc=True)


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 255


def strides(module: nn.Module) -> list[int]:
    return [m.stride[0] for m in module.modules() if isinstance(m, nn.Conv2d)]


# Parity


def test_v3_gives_what_torchvision_gives_for_the_same_weights() -> None:
    """Without the 3x3 convolution that torchvision has between pyramid and classifier."""
    torch.manual_seed(0)
    peer = deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=5).eval()
    for norm in batch_norms(peer):
        for value, low in ((norm.weight, 0.2), (norm.bias, -0.2), (norm.running_mean, -0.2)):
            assert value is not None
            value.data.uniform_(low, low + 0.4)
    pyramid, classifier = peer.classifier[0], nn.Conv2d(256, 5, 1)
    peer.classifier = nn.Sequential(pyramid, classifier)
    # torchvision dilates as for stride 8, with the old rate first, and takes 12, 24, 36 there.
    config = DeepLabV3Config(backbone=ResNetConfig(depth=101, dilate_first=False), output_stride=8)
    ours = DeepLabV3(5, config).eval()
    one, *atrous, pooling = pyramid.convs
    copies = [
        (ours.backbone, peer.backbone), (ours.aspp0, one), (ours.project, pyramid.project[:3]),
        (ours.image_pooling, nn.Sequential(*list(pooling)[1:])), (ours.classifier, classifier),
        *zip(ours.atrous, atrous, strict=True),
    ]  # fmt: skip
    for target, source in copies:
        target.load_state_dict(source.state_dict())
    # torchvision concatenates the pooled branch last, ours is first.
    weight = ours.get_parameter("project.0.weight")
    weight.data.copy_(weight.data.roll(256, dims=1))
    x = image(1, 3, 65, 49)
    with torch.no_grad():
        expected = peer.classifier(peer.backbone(ours.normalize(x))["out"])
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)  # the bound


# Sizes


@pytest.mark.parametrize("size", [(33, 33), (40, 51), (17, 90), (1, 1)])
@pytest.mark.parametrize("config", [SMALL_V3, SMALL_PLUS, SMALL_V1])
def test_any_size_works(config: Any, size: tuple[int, int]) -> None:
    network = build_network(config, 2).eval()
    stride = network.logit_stride
    with torch.no_grad():
        logits = network(image(1, 3, *size))
    assert logits.shape == (1, 2, -(-size[0] // stride), -(-size[1] // stride))


def test_one_cell_of_one_image_cannot_train_batch_norm() -> None:
    network = build_network(SMALL_V3, 2).train()
    with pytest.raises(ValueError, match="nearest size that works is 16 x 17"):
        network(image(1, 3, 16, 16))
    assert network(image(1, 3, 16, 17)).shape == (1, 2, 1, 2)
    assert network(image(2, 3, 16, 16)).shape == (2, 2, 1, 1)
    frozen = build_network(replace(SMALL_V3, freeze_batch_norm=True), 2).train()
    assert frozen(image(1, 3, 16, 16)).shape == (1, 2, 1, 1)


@pytest.mark.parametrize("shape", [(3, 33, 33), (1, 1, 33, 33), (1, 4, 33, 33)])
def test_what_is_not_rgb_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"image must be \(B, 3, H, W\), RGB in 0..255, got"):
        build_network(SMALL_V3, 2).eval()(torch.zeros(shape))
    with pytest.raises(ValueError, match="no pixels"):
        build_network(SMALL_V3, 2).eval()(torch.zeros(1, 3, 0, 33))


def test_the_window_of_image_pooling() -> None:
    """Of the size of the image it is the global mean; a larger image has many windows."""
    whole = build_network(SMALL_V3, 2).eval()
    windowed = build_network(replace(SMALL_V3, pool_window=65), 2).eval()
    windowed.load_state_dict(whole.state_dict())
    with torch.no_grad():
        x = image(1, 3, 65, 65)
        torch.testing.assert_close(windowed(x), whole(x))
        x = image(1, 3, 97, 129)
        assert windowed(x).shape == whole(x).shape
        assert not torch.allclose(windowed(x), whole(x))
        with pytest.raises(ValueError, match="nearest size that works is 65 x 97"):
            windowed(image(1, 3, 33, 97))


@pytest.mark.parametrize("head", [DeepLabV3Config, DeepLabV3PlusConfig])
@pytest.mark.parametrize(
    "name",
    ["resnet10t", "seresnet50", "resnext50_32x4d", "mobilenetv3_large_100", "efficientnet_b0",
     "regnety_002", "skresnet18"],
)  # fmt: skip
@pytest.mark.parametrize("output_stride", [8, 16])
def test_backbones_of_timm_that_can_be_dilated(head, name: str, output_stride: int) -> None:
    with torch.device("meta"):
        config = head(backbone=backbone_named(name), output_stride=output_stride)
        network = build_network(config, 3).eval()
    stride = network.logit_stride
    found = network(torch.empty(1, 3, 66, 97, device="meta")).shape
    assert found == (1, 3, -(-66 // stride), -(-97 // stride))


@pytest.mark.parametrize("head", [DeepLabV3Config, DeepLabV3PlusConfig])
def test_a_backbone_that_cuts_the_image_into_patches_is_refused(head) -> None:
    with torch.device("meta"):
        network = build_network(head(backbone=backbone_named("convnext_atto")), 3).eval()
    with pytest.raises(ValueError, match=r"gives \(4, 4\) features .* expected \(5, 5\)"):
        network(torch.empty(1, 3, 65, 65, device="meta"))


# Batch normalisation


# Landmine 6: a BN that is frozen in name only.
@pytest.mark.parametrize(
    "config",
    [
        replace(SMALL_V3, freeze_batch_norm=True),
        replace(SMALL_PLUS, freeze_batch_norm=True),
        SMALL_V2,  # frozen as published
        replace(SMALL_CASCADE, freeze_batch_norm=True),
    ],
)
def test_frozen_batch_norm_keeps_statistics_and_affine_through_training(config: Any) -> None:
    network = build_network(config, 2)
    frozen = {
        f"{i}.{key}": value.clone()
        for i, norm in enumerate(batch_norms(network))
        for key, value in norm.state_dict().items()
    }
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        network.eval().train()
        optimizer.zero_grad()
        network(image(2, 3, 33, 33)).square().mean().backward()
        optimizer.step()
    assert len(frozen) > 100
    for i, norm in enumerate(batch_norms(network)):
        assert not norm.training
        for key, value in norm.state_dict().items():
            assert torch.equal(value, frozen[f"{i}.{key}"])


# Landmine 7: TensorFlow's decay of 0.9997 is a momentum of 0.0003.
@pytest.mark.parametrize("name", BUILDERS)
def test_momentum_is_pytorchs(name: str) -> None:
    with torch.device("meta"):
        network = build_network(BUILDERS[name].config, 2)
    momenta = {norm.momentum for norm in batch_norms(network)}
    if "v3" in name:
        assert momenta == {3e-4}
    assert all(m is not None and m <= 0.1 for m in momenta)


def test_eps_of_backbone_and_head() -> None:
    with torch.device("meta"):
        network = build_network(BUILDERS["deeplab_v3plus_xception41"].config, 2)
    inside = {id(norm) for norm in batch_norms(network.backbone)}
    found = {(id(norm) in inside, norm.eps) for norm in batch_norms(network)}
    assert found == {(True, 1e-3), (False, 1e-5)}


# Landmine 12: one image alone in train mode.
@pytest.mark.parametrize("config", [SMALL_V3, SMALL_PLUS])
def test_a_batch_of_one_trains(config: Any) -> None:
    network = build_network(config, 2).train()
    network(image(1, 3, 33, 33)).square().mean().backward()
    gradient = network.get_parameter("image_pooling.0.weight").grad
    assert gradient is not None
    assert gradient.isfinite().all()


# Pyramid, decoder, separable convolutions


# Landmine 3: a `return` within the loop over branches, or a branch left out.
@pytest.mark.parametrize("config", [SMALL_V3, SMALL_PLUS, SMALL_V2, SMALL_V1])
def test_every_branch_changes_the_output(config: Any) -> None:
    network = build_network(config, 2).eval()
    branches = {
        "v1": ["fc8", "branches.branches"],
        "v2": ["classifiers"],
        "v3": ["image_pooling", "aspp0", "atrous"],
        "v3plus": ["image_pooling", "aspp0", "atrous", "decoder.reduce"],
    }[config.kind]
    weights = [
        (name, parameter)
        for name, parameter in network.named_parameters()
        if any(name.startswith(branch) for branch in branches) and parameter.ndim == 4
    ]
    assert len(weights) > len(branches) or config.kind == "v2"
    x = image(1, 3, 65, 65)
    with torch.no_grad():
        before = network(x)
        for name, parameter in weights:
            kept = parameter.clone()
            parameter.add_(0.1)
            assert not torch.equal(network(x), before), name
            parameter.copy_(kept)
        assert torch.equal(network(x), before)


def test_rates_of_the_pyramid_double_at_stride_8() -> None:
    def found(stride: int) -> list[int]:
        network = DeepLabV3(2, replace(SMALL_V3, output_stride=stride))
        return [m.dilation[0] for m in network.atrous.modules() if isinstance(m, nn.Conv2d)]

    assert found(16) == [6, 12, 18]
    assert found(8) == [12, 24, 36]


# Landmine 15: normalisation and ReLU between the two halves.
def test_separable_convolution_is_depthwise_bn_relu_pointwise_bn_relu() -> None:
    layers = separable_convolution(6, 4, rate=3)
    kinds = [type(layer) for layer in layers]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2
    deep, point = layers[0], layers[3]
    assert isinstance(deep, nn.Conv2d)
    assert isinstance(point, nn.Conv2d)
    assert (deep.groups, deep.kernel_size, deep.dilation, deep.padding) == (
        6,
        (3, 3),
        (3, 3),
        (3, 3),
    )
    assert (point.kernel_size, point.groups, point.out_channels) == ((1, 1), 1, 4)


# Landmine 5: depth and channels of the decoder.
@pytest.mark.parametrize(("separable", "parameters"), [(False, 1_309_045), (True, 168_325)])
def test_parameters_of_the_decoder(separable: bool, parameters: int) -> None:
    config = DeepLabV3PlusConfig(separable_decoder=separable)
    with torch.device("meta"):
        network = DeepLabV3Plus(21, config)
    found = [*network.decoder.parameters(), *network.classifier.parameters()]
    assert sum(p.numel() for p in found) == parameters


def test_parameters_of_the_separable_pyramid() -> None:
    with torch.device("meta"):
        network = DeepLabV3(21, DeepLabV3Config(separable_aspp=True))
    head = [network.image_pooling, network.aspp0, network.atrous, network.project]
    assert sum(p.numel() for part in head for p in part.parameters()) == 3_019_776


# Cascade


def test_further_blocks_start_as_block4() -> None:
    """Units 2 and 3 whole; of the first all but the convolution with other channels."""
    torch.manual_seed(0)
    network = DeepLabV3Cascade(2, SMALL_CASCADE)
    source = network.backbone.get_submodule("layer4").state_dict()
    own = network.blocks[0].state_dict()
    equal = {key for key, value in own.items() if torch.equal(value, source[key])}
    assert own.keys() - equal == {"0.conv1.weight"}
    alone = DeepLabV3Cascade(2, replace(SMALL_CASCADE, copy_block4=False))
    own = alone.blocks[0].state_dict()
    source = alone.backbone.get_submodule("layer4").state_dict()
    assert not torch.equal(own["1.conv1.weight"], source["1.conv1.weight"])


def test_further_blocks_follow_loaded_weights() -> None:
    network, other = DeepLabV3Cascade(2, SMALL_CASCADE), DeepLabV3Cascade(2, SMALL_CASCADE)
    network.load_backbone(other.backbone.state_dict())
    found = network.blocks[0].state_dict()["2.conv3.weight"]
    assert torch.equal(found, other.backbone.state_dict()["layer4.2.conv3.weight"])


# MSc of v1


def test_branches_of_msc_read_the_image_and_four_poolings() -> None:
    """Extra parameters of the specification, and one grid at every source's stride."""
    with torch.device("meta"):
        branches = MultiScaleBranches(21)
    assert sum(p.numel() for p in branches.parameters()) == 1_206_016
    assert [strides(branch) for branch in branches.branches] == [[s, 1, 1] for s in (8, 4, 2, 1, 1)]


def test_msc_at_full_resolution_in_eval_mode_only() -> None:
    network = build_network(replace(SMALL_V1, msc_full_resolution=True), 2)
    x = image(1, 3, 33, 41)
    assert network.train()(x).shape == (1, 2, 5, 6)
    with torch.no_grad():
        assert network.eval()(x).shape == (1, 2, 33, 41)
    assert network.logit_stride == 1


# Configs, files, precision


@pytest.mark.parametrize("name", BUILDERS)
def test_config_survives_a_dictionary(name: str) -> None:
    config = SegmenterConfig(5, BUILDERS[name].config, CrfConfig(resolution=4))
    values = asdict(config)
    assert SegmenterConfig.from_dict(values) == config
    assert json.loads(json.dumps(values))["network"]["kind"] == config.network.kind


@pytest.mark.parametrize("config", [SMALL_V3, SMALL_PLUS])
def test_backbone_weights_from_a_file(config: Any, tmp_path) -> None:
    peer = timm.create_model("mobilenetv2_035")
    save_file(peer.state_dict(), tmp_path / "imagenet.safetensors")
    network = build_network(config, 2)
    load_backbone_weights(network, tmp_path / "imagenet.safetensors")
    expected = peer.state_dict()["conv_stem.weight"]
    assert torch.equal(network.backbone.state_dict()["conv_stem.weight"], expected)
    with pytest.raises(ValueError, match=r"imagenet\.safetensors: .*another architecture"):
        load_backbone_weights(build_network(SMALL_CASCADE, 2), tmp_path / "imagenet.safetensors")


def test_another_backbone_goes_with_the_heads_of_v3_only() -> None:
    assert with_backbone(SMALL_PLUS, ResNetConfig()).backbone == ResNetConfig()
    for config in (SMALL_V1, SMALL_V2, SMALL_CASCADE):
        with pytest.raises(ValueError, match="goes with the heads of DeepLab v3 and v3"):
            with_backbone(config, TINY)


def test_nothing_is_fetched_for_weights_that_come_from_elsewhere() -> None:
    config = replace(SMALL_V3, backbone=replace(TINY, pretrained=True))
    assert without_pretrained(config) == SMALL_V3


@pytest.mark.parametrize("resolution", [1, 2, 4, 8])
def test_the_crf_computes_in_float32_under_bfloat16_autocast(resolution: int) -> None:
    crf = CrfConfig(theta_alpha=8, theta_beta=10, num_iterations_eval=1, resolution=resolution)
    segmenter = Segmenter(SegmenterConfig(2, SMALL_PLUS, crf)).eval()
    x = image(1, 3, 33, 41)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        coarse = segmenter.coarse_unary(x)
        output = segmenter(x)
    assert coarse.dtype == torch.bfloat16
    assert output.crf is not None
    assert output.unary.dtype == output.crf.dtype == torch.float32
    assert output.crf.shape == output.unary.shape == (1, 2, 33, 41)


def test_network_and_crf_compile_without_a_graph_break() -> None:
    crf = CrfConfig(theta_alpha=8, theta_beta=10, num_iterations_eval=1, resolution=2)
    segmenter = Segmenter(SegmenterConfig(2, SMALL_V3, crf)).eval()
    x = image(1, 3, 33, 41)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(segmenter, fullgraph=True, backend="eager")(x)
        torch.testing.assert_close(compiled.crf, segmenter(x).crf)


@pytest.mark.slow
def test_the_compiled_network_computes_the_same() -> None:
    network = build_network(SMALL_PLUS, 2).eval()
    x = image(1, 3, 33, 33)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(network, fullgraph=True)(x)
        # Other kernels, other order of sums in float32.
        torch.testing.assert_close(compiled, network(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(SMALL_V3, output_stride=4), "output_stride must be 8 or 16, got 4"),
        (lambda: replace(SMALL_V3, atrous_rates=(0,)), "atrous_rates must be at least 1"),
        (lambda: replace(SMALL_V3, pool_window=0), "pool_window must be at least 1 pixel"),
        (lambda: CascadeConfig(output_stride=32), "output_stride must be 8 or 16, got 32"),
        (lambda: CascadeConfig(blocks=-1), "blocks must be at least 0"),
        (lambda: DeepLabV1Config(backbone=VggConfig(rates=(6, 12))), "has one branch"),
        (lambda: DeepLabV1Config(msc_full_resolution=True), "pass msc=True"),
        (lambda: DeepLabV2Config(backbone=VggConfig()), "behind VGG the rates are those of fc6"),
        (lambda: DeepLabV2Config(rates=()), "at least one value, got none"),
        (lambda: DeepLabV2Config(rates=(0,)), "rates must be at least 1"),
        (lambda: DeepLabV2(2, replace(SMALL_V2, scales=(0.1234567, 1.0))), "whole pixels"),
    ],
)
def test_bad_numbers(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
