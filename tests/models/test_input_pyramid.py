"""MSC of DeepLab v2: sizes, fusion by the maximum, and the four losses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from models import DeepLabV2, DeepLabV2Config, ResNetConfig, Segmenter, SegmenterConfig
from models.deeplab_v2 import fuse, resize, scale_logits, scaled_size
from models.layers import subsample_labels

SCALES = (0.5, 0.75, 1.0)


class Shallow(nn.Module):
    """Features at stride 8 in no time: means of 8 x 8 pixels around every eighth."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(9, stride=8, padding=4)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return image, self.pool(image).repeat(1, 683, 1, 1)[:, :2048]


@pytest.fixture
def network() -> DeepLabV2:
    config = DeepLabV2Config(backbone=ResNetConfig(depth=50), rates=(1, 2), scales=SCALES)
    with torch.device("meta"):
        network = DeepLabV2(3, config)
    network = network.to_empty(device="cpu")
    network.normalize = nn.Identity()  # type: ignore[assignment]
    network.backbone = Shallow()  # type: ignore[assignment]
    for layer in network.classifiers:
        layer.reset_parameters()  # type: ignore[operator]
    return network


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
    for scale in output.scales[1:]:
        assert (output.logits >= scale.logits).all()
    # Every scale is the same network.
    half, _, full = (scale.logits for scale in output.scales)
    torch.testing.assert_close(half, network.single_scale(resize(image, (33, 49))))
    torch.testing.assert_close(full, network.single_scale(image))
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
