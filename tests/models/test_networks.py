"""What the networks do: parity with torchvision, sizes, frozen BN, pyramid, decoder, cascade."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models.segmentation import deeplabv3_resnet50

import models
from models import (
    CascadeConfig,
    DeepLabV2,
    DeepLabV2Config,
    DeepLabV3,
    DeepLabV3Config,
    ResNetConfig,
    Segmenter,
    SegmenterConfig,
    VggConfig,
    build_network,
)
from models.deeplab_v2 import fuse, resize, scale_logits, scaled_size
from models.deeplab_v3 import pool_image
from models.layers import batch_norms, separable_convolution, subsample_labels
from models.resnet import ResNetBackbone
from models.xception import XceptionBackbone
from tests.models import small
from tests.models.small import SLIM, SMALL_CASCADE, SMALL_PLUS, SMALL_V1, SMALL_V2, SMALL_V3, image


def test_v3_gives_what_torchvision_gives_for_the_same_weights() -> None:
    """Without the 3x3 convolution that torchvision has between pyramid and classifier."""
    peer = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=5).eval()
    for norm in batch_norms(peer):
        for value, low in ((norm.weight, 0.2), (norm.bias, -0.2), (norm.running_mean, -0.2)):
            assert value is not None
            value.data.uniform_(low, low + 0.4)
    pyramid, classifier = peer.classifier[0], nn.Conv2d(256, 5, 1)
    peer.classifier = nn.Sequential(pyramid, classifier)
    # torchvision dilates as for stride 8, with the old rate first, and takes 12, 24, 36 there.
    config = DeepLabV3Config(backbone=ResNetConfig(depth=50, dilate_first=False), output_stride=8)
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


STRIDED = [
    SMALL_V1,
    *(
        replace(head, backbone=backbone, output_stride=stride)
        for head in (SMALL_V3, SMALL_PLUS)
        for backbone in (small.TINY, ResNetConfig(depth=50), small.XCEPTION)
        for stride in (8, 16)
    ),
]


@pytest.mark.parametrize("size", [(40, 51), (1, 1)])
@pytest.mark.parametrize("config", STRIDED)
def test_logits_sit_at_their_stride_at_any_size(config: Any, size: tuple[int, int]) -> None:
    """V3 shows the stride of the last features, and v3+ that of the decoder's."""
    with torch.device("meta"):
        network = build_network(config, 2).eval()
    stride = network.logit_stride
    logits = network(torch.empty(1, 3, *size, device="meta"))
    assert logits.shape == (1, 2, -(-size[0] // stride), -(-size[1] // stride))


def test_images_that_cannot_be_trained_on() -> None:
    network = build_network(SMALL_V3, 2).train()
    for shape in ((3, 33, 33), (1, 4, 33, 33)):
        with pytest.raises(ValueError, match=r"image must be \(B, 3, H, W\)"):
            network(torch.zeros(shape))
    with pytest.raises(ValueError, match="no pixels"):
        network(torch.zeros(1, 3, 0, 33))
    # One value cannot train batch normalisation.
    with pytest.raises(ValueError, match="nearest size that works is 16 x 17"):
        network(image(1, 3, 16, 16))
    assert network(image(1, 3, 16, 17)).shape == (1, 2, 1, 2)
    assert network(image(2, 3, 16, 16)).shape == (2, 2, 1, 1)
    frozen = build_network(replace(SMALL_V3, freeze_batch_norm=True), 2).train()
    assert frozen(image(1, 3, 16, 16)).shape == (1, 2, 1, 1)


def test_the_window_of_image_pooling() -> None:
    """Of the size of the image it is the global mean; a larger image has many windows."""
    whole = build_network(SMALL_V3, 2).eval()
    windowed = build_network(replace(SMALL_V3, pool_window=65), 2).eval()
    windowed.load_state_dict(whole.state_dict())
    with torch.no_grad():
        x = image(1, 3, 65, 65)
        torch.testing.assert_close(windowed(x), whole(x))
        x = image(1, 3, 97, 129)
        assert not torch.allclose(windowed(x), whole(x))
        with pytest.raises(ValueError, match="nearest size that works is 65 x 97"):
            windowed(image(1, 3, 33, 97))


def test_a_backbone_that_cuts_the_image_into_patches_is_refused() -> None:
    with torch.device("meta"):
        config = DeepLabV3Config(backbone=models.backbone_named("convnext_atto"))
        network = build_network(config, 3).eval()
    with pytest.raises(ValueError, match=r"gives \(4, 4\) features .* expected \(5, 5\)"):
        network(torch.empty(1, 3, 65, 65, device="meta"))


@pytest.mark.parametrize("kind", SLIM)
def test_gradient_reaches_the_first_layer_through_the_crf(kind: str) -> None:
    small.check_training_step(small.drawn(SLIM[kind]))


# Landmine 12: the BN of image pooling has one value a channel of one image alone.
def test_image_pooling_of_one_image_uses_the_running_statistics() -> None:
    branch = DeepLabV3(3, SMALL_V3).train().image_pooling
    assert isinstance(branch, nn.Sequential)
    features = torch.randn(1, small.convolutions(branch)[0].in_channels, 3, 3)
    alone = pool_image(branch, features)
    torch.testing.assert_close(alone, pool_image(branch.eval(), features))


# Landmine 3: a `return` within the loop over branches, or a branch left out.
@pytest.mark.parametrize(
    ("config", "branches"),
    [
        (SMALL_V1, ["fc8", "branches.branches"]),
        (SMALL_V2, ["classifiers"]),
        (SMALL_PLUS, ["image_pooling", "aspp0", "atrous", "decoder.reduce"]),
    ],
)
def test_every_branch_changes_the_output(config: Any, branches: list[str]) -> None:
    network = small.drawn(config).network.eval()
    weights = [
        (name, parameter)
        for name, parameter in network.named_parameters()
        if name.startswith(tuple(branches)) and parameter.ndim == 4
    ]
    assert len(weights) > len(branches)
    x = image(1, 3, 65, 65)
    with torch.no_grad():
        before = network(x)
        for name, parameter in weights:
            kept = parameter.clone()
            parameter.add_(0.1)
            assert not torch.equal(network(x), before), name
            parameter.copy_(kept)
        assert torch.equal(network(x), before)


# Landmine 15: normalisation and ReLU between the two halves.
def test_separable_convolution_is_depthwise_bn_relu_pointwise_bn_relu() -> None:
    layers = separable_convolution(6, 4, rate=3)
    assert [type(layer) for layer in layers] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2
    names = ("groups", "kernel_size", "dilation", "padding", "out_channels")
    deep, point = ([getattr(layers[k], name) for name in names] for k in (0, 3))
    assert deep == [6, (3, 3), (3, 3), (3, 3), 6]
    assert point == [1, (1, 1), (1, 1), (0, 0), 4]


# Parameters are counted in test_builders.py.
def test_eps_of_xception_and_strides_of_msc_at_full_resolution() -> None:
    with torch.device("meta"):
        xception = build_network(SLIM["v3+ xception"], 2)
        network: Any = build_network(replace(SMALL_V1, msc_full_resolution=True), 2)
    inside = {id(norm) for norm in batch_norms(xception.backbone)}
    found = {(id(norm) in inside, norm.eps) for norm in batch_norms(xception)}
    assert found == {(True, 1e-3), (False, 1e-5)}
    expected = [[s, 1, 1] for s in (8, 4, 2, 1, 1)]
    assert [small.strides(branch) for branch in network.branches.branches] == expected
    x = torch.empty(1, 3, 33, 41, device="meta")
    assert network.train()(x).shape == (1, 2, 5, 6)
    assert network.eval()(x).shape == (1, 2, 33, 41)
    assert network.logit_stride == 1


# Cascade


def test_further_blocks_start_as_block4_also_of_loaded_weights() -> None:
    """Units 2 and 3 whole; of the first all but the convolution with other channels."""
    network, alone = (
        models.DeepLabV3Cascade(2, replace(SMALL_CASCADE, copy_block4=flag))
        for flag in (True, False)
    )
    source = network.backbone.get_submodule("layer4").state_dict()
    own = network.blocks[0].state_dict()
    equal = {key for key, value in own.items() if torch.equal(value, source[key])}
    assert own.keys() - equal == {"0.conv1.weight"}
    copied = "blocks.0.2.conv3.weight", "backbone.layer4.2.conv3.weight"
    assert not torch.equal(*(alone.get_parameter(name) for name in copied))
    network.load_backbone(alone.backbone.state_dict())
    assert torch.equal(*(network.get_parameter(name) for name in copied))
    assert torch.equal(network.get_parameter(copied[0]), alone.get_parameter(copied[1]))


def test_weights_from_a_file_are_loaded_strictly(tmp_path) -> None:
    path = tmp_path / "network.safetensors"
    network, other = build_network(SMALL_V3, 3), build_network(SMALL_V3, 3)
    save_file(network.state_dict(), path)
    models.load_weights(other, path)
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in other.state_dict().items())
    with pytest.raises(ValueError, match=r"another architecture .*classifier\.bias is \(3,\)"):
        models.load_weights(build_network(SMALL_V3, 7), path)
    with pytest.raises(ValueError, match=r"unexpected atrous\.0\.0\.weight"):
        models.load_weights(build_network(replace(SMALL_V3, atrous_rates=()), 3), path)
    with pytest.raises(FileNotFoundError, match=r"--model\.weights"):
        models.load_weights(network, tmp_path / "absent.safetensors")
    path.write_text("not weights at all")
    with pytest.raises(ValueError, match="not a safetensors file"):
        models.load_weights(network, path)


@pytest.mark.data
def test_the_published_weights_load(shared_root) -> None:
    path = shared_root / "weights" / "deeplabv3_mobilenetv2_voc.safetensors"
    models.load_weights(DeepLabV3(21, models.published_network()), path)


def test_backbone_weights_from_a_file(tmp_path) -> None:
    path = tmp_path / "imagenet.safetensors"
    peer = timm.create_model("mobilenetv2_035")
    save_file(peer.state_dict(), path)
    network = build_network(SMALL_PLUS, 2)
    models.load_backbone_weights(network, path)
    expected = peer.state_dict()["conv_stem.weight"]
    assert torch.equal(network.backbone.state_dict()["conv_stem.weight"], expected)
    with torch.device("meta"):
        cascade = build_network(SMALL_CASCADE, 2)
    with pytest.raises(ValueError, match=r"imagenet\.safetensors: .*another architecture"):
        models.load_backbone_weights(cascade, path)


def test_another_backbone_and_nothing_to_fetch() -> None:
    assert models.with_backbone(SMALL_PLUS, ResNetConfig()).backbone == ResNetConfig()
    config = replace(SMALL_V3, backbone=replace(small.TINY, pretrained=True))
    assert models.without_pretrained(config) == SMALL_V3


def test_the_crf_computes_in_float32_under_bfloat16_autocast() -> None:
    segmenter = models.Segmenter(models.SegmenterConfig(2, SMALL_PLUS, small.CRF)).eval()
    x = image(1, 3, 33, 41)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        coarse, output = segmenter.coarse_unary(x), segmenter(x)
    assert output.crf is not None
    found = [logits.dtype for logits in (coarse, output.unary, output.crf)]
    assert found == [torch.bfloat16, torch.float32, torch.float32]


def test_network_and_crf_compile_without_a_graph_break() -> None:
    segmenter = models.Segmenter(models.SegmenterConfig(2, SMALL_V3, small.CRF)).eval()
    x = image(1, 3, 33, 41)
    torch._dynamo.reset()
    # PyTorch 2.6 does not capture the size of a lattice by itself, later releases do.
    captured = torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)
    with torch.no_grad(), captured:
        compiled = torch.compile(segmenter, fullgraph=True, backend="eager")(x)
        torch.testing.assert_close(compiled.crf, segmenter(x).crf)


V1, V2, Xception = models.DeepLabV1Config, models.DeepLabV2Config, models.XceptionConfig
REFUSED: list[tuple[Any, str]] = [
    (lambda: replace(SMALL_V3, output_stride=4), "output_stride must be 8 or 16, got 4"),
    (lambda: replace(SMALL_V3, atrous_rates=(0,)), "atrous_rates must be"),
    (lambda: replace(SMALL_V3, pool_window=0), "pool_window must be"),
    (lambda: CascadeConfig(output_stride=32), "output_stride must be"),
    (lambda: CascadeConfig(blocks=-1), "blocks must be"),
    (lambda: V1(backbone=VggConfig(rates=(6, 12))), "has one branch"),
    (lambda: V1(msc_full_resolution=True), "pass msc=True"),
    (lambda: V2(backbone=VggConfig()), "behind VGG the rates are those of fc6"),
    (lambda: V2(rates=()), "at least one value"),
    (lambda: V2(rates=(0,)), "rates must be"),
    (lambda: V2(scales=(0.1234567, 1.0)), "whole pixels"),
    *((lambda s=s: V2(scales=s), "scales must be in") for s in ((), (1.0, 0.5), (2.0, 1.0))),
    (lambda: ResNetConfig(depth=34), "depth must be 50 or 101, got 34"),
    (lambda: ResNetConfig(multi_grid=(1, 2)), "three factors"),  # type: ignore[arg-type]
    (lambda: ResNetConfig(pretrained=True, stride_in_1x1=True), "stride_in_1x1=False"),
    (lambda: ResNetBackbone(ResNetConfig(), 4), "output_stride must be"),
    (lambda: XceptionBackbone(Xception(), 4), "output_stride must be"),
    (lambda: Xception(depth=66), "depth must be 41, 65 or 71, got 66"),
    (lambda: VggConfig(fc_kernel=5), "fc_kernel must be"),
    (lambda: VggConfig(fc_channels=1000), "fc_channels must divide 4096"),
    (lambda: VggConfig(fc_kernel=4, rates=(3,)), "even for the 4x4 kernel"),
    (lambda: models.TimmConfig("mobilenetv2_77"), "Similar .*mobilenetv2"),
    (lambda: models.with_backbone(SMALL_V1, small.TINY), "heads of DeepLab v3"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "words"), REFUSED)
def test_bad_numbers(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


# the input pyramid of v2


SCALES = (0.5, 0.75, 1.0)


@pytest.fixture
def network() -> nn.Module:
    return small.drawn(replace(SMALL_V2, scales=SCALES)).network


def test_sizes_of_the_scales() -> None:
    """321 pixels become 241 and 161, as in the authors' definition."""
    assert [scaled_size(321, scale) for scale in SCALES] == [161, 241, 321]
    with torch.device("meta"):
        segmenter = Segmenter(SegmenterConfig(3, DeepLabV2Config(scales=SCALES)))
    assert segmenter.network_input(torch.rand(1, 3, 40, 70)).shape[2:] == (65, 97)  # 32 k + 1


# Landmine 13: the fusion is a maximum, its gradient goes to the scale that wins.
def test_the_fusion_is_the_maximum_and_its_gradient_flows_to_the_scale_that_wins() -> None:
    maps = [torch.randn(2, 3, n, n) for n in (5, 7, 9)]
    resized = torch.stack([resize(x, (9, 9)) for x in maps])
    assert torch.equal(fuse(maps), resized.amax(0))
    maps = [torch.randn(1, 2, 5, 5, requires_grad=True) for _ in SCALES]  # one grid: no mixing
    fuse(maps).sum().backward()  # type: ignore[no-untyped-call]
    gradients = torch.stack([x.grad for x in maps])  # type: ignore[misc]
    winner = torch.stack([x.detach() for x in maps]).argmax(dim=0)
    expected = nn.functional.one_hot(winner, len(SCALES)).movedim(-1, 0)
    assert torch.equal(gradients, expected.to(gradients.dtype))


def test_training_has_four_losses_and_evaluation_one(network: DeepLabV2) -> None:
    image = torch.rand(2, 3, 65, 97) * 255
    output = network.train().outputs(image)
    shapes = [(tuple(x.logits.shape[2:]), x.stride) for x in output.scales]
    # Scale 0.5 keeps its own grid, every 16th pixel; 0.75 is resized to that of scale 1.
    assert shapes == [((5, 7), 16), ((9, 13), 8), ((9, 13), 8)]
    assert output.logits.shape == (2, 3, 9, 13)
    # Every scale is the same network.
    half, _, full = (scale.logits for scale in output.scales)
    seen = network.normalize(image)
    torch.testing.assert_close(half, network.single_scale(resize(seen, (33, 49))))
    torch.testing.assert_close(full, network.single_scale(seen))
    assert network.eval().outputs(image).scales == ()
    assert torch.equal(network(image), output.logits)
    network.config = replace(network.config, scales=(1.0,))
    assert network.train().outputs(image).scales == ()


# Landmine 8: "nearest" resizing of labels takes other pixels than the logits sit on.
def test_logits_sit_on_the_pixels_that_their_labels_are_taken_from() -> None:
    """A classifier that reads the row number: its logits are the labels of their own pixels."""
    rows = torch.arange(65.0).expand(1, 1, 65, 65).mT
    maps = [rows[..., ::16, ::16], torch.zeros(1, 1, 7, 7), rows[..., ::8, ::8]]
    half, _, full = scale_logits(maps, SCALES, 8)
    for scale in (half, full):
        assert torch.equal(scale.logits, subsample_labels(rows, scale.stride))


@pytest.mark.parametrize(("size", "near"), [((64, 65), (65, 65)), ((65, 30), (65, 29))])
def test_a_size_without_whole_pixels_at_a_scale_names_the_nearest(network, size, near) -> None:
    with pytest.raises(ValueError, match=f"the nearest size that works is {near[0]} x {near[1]}"):
        network(torch.rand(1, 3, *size))
    network(torch.rand(1, 3, *near))
