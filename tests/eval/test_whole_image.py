"""Batches, scales, mirrors and windows: what they must not change, and what they must average."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from eval.inference import (
    WAITING,
    InferenceConfig,
    batches_by_size,
    coarse_together,
    infer,
    unaries_together,
)
from models import Segmenter
from models.crf import build_crf
from models.deeplab_v2 import rescale, resize
from tests.eval.plain_networks import (
    CRF,
    Convolutions,
    noise,
    plain_segmenter,
    tiny_segmenter,
)

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
# Float32: weighted sums of softmaxes, divided by the sum of the weights.
ROUNDING = 1e-6


@pytest.mark.parametrize(
    ("size", "crf"), [((33, 33), None), ((40, 51), CRF), ((17, 90), replace(CRF, resolution=2))]
)
def test_the_default_is_the_segmenter_bit_for_bit(size, crf) -> None:
    segmenter = tiny_segmenter(crf)
    image = noise(size[0], size[1], batch=2)
    with torch.no_grad():
        expected = segmenter(image)
    output = infer(segmenter, image, InferenceConfig())
    assert torch.equal(output.unary, expected.unary)
    assert (output.crf is None) == (crf is None)
    assert torch.equal(output.logits, expected.logits)
    half = InferenceConfig((0.5,))  # bytes are interpolated before they are rounded
    found, same = (infer(segmenter, x, half).logits for x in (image.byte(), image))
    assert torch.equal(found, same)


def views(segmenter: Segmenter, image: Tensor) -> list[Tensor]:
    """The logits of six scales and their mirrors at native size, written out."""
    found = []
    for scale in SCALES:
        for mirror in (False, True):
            small = rescale(image, scale)
            logits = segmenter.unary(small.flip(3) if mirror else small)
            found.append(resize(logits.flip(3) if mirror else logits, image.shape[2:]))
    return found


@torch.no_grad()
def test_mean_is_that_of_twelve_softmaxes_and_max_that_of_twelve_logits() -> None:
    segmenter, image = tiny_segmenter(), noise(40, 51)
    maps = views(segmenter, image)
    output = infer(segmenter, image, InferenceConfig(SCALES, flip=True))
    mean = torch.stack([x.softmax(1) for x in maps]).mean(0)
    torch.testing.assert_close(output.unary.exp(), mean, rtol=0, atol=ROUNDING)
    # The CRF once, on the log of the fused mean.
    assert torch.equal(output.logits, segmenter.refine(output.unary, image))
    largest = infer(segmenter, image, InferenceConfig(SCALES, flip=True, fusion="max"))
    assert torch.equal(largest.unary, torch.stack(maps).amax(0))


@torch.no_grad()
def test_the_crf_per_scale_has_each_scales_image_and_widths() -> None:
    segmenter, image = tiny_segmenter(), noise(40, 51)
    config = InferenceConfig((0.5, 1.0), crf="per_scale")
    small = rescale(image, 0.5)
    half = build_crf(replace(CRF, theta_alpha=4, theta_gamma=0.5), 3).eval()
    marginals = [
        resize(half(segmenter.unary(small), small), image.shape[2:]).softmax(1),
        segmenter(image).logits.softmax(1),
    ]
    output = infer(segmenter, image, config)
    torch.testing.assert_close(output.logits.exp(), sum(marginals) / 2, rtol=0, atol=1e-5)
    fused = infer(segmenter, image, replace(config, crf="fused"))
    assert torch.equal(output.unary, fused.unary)
    assert not torch.allclose(output.logits.softmax(1), fused.logits.softmax(1), atol=1e-3)


@pytest.mark.parametrize("min_size", [0, 65])
@torch.no_grad()
def test_a_batch_of_one_padded_size_gives_what_one_by_one_gives(min_size: int) -> None:
    segmenter = tiny_segmenter(crf=None, min_size=min_size)
    sizes = [(33, 40), (30, 48), (60, 33), (33, 41), (20, 45), (60, 40)]
    images = [noise(*size) for size in sizes]
    together = unaries_together(segmenter, images)
    coarse = coarse_together(segmenter, images)
    for image, unary, small in zip(images, together, coarse, strict=True):
        # Float32 sums of a few hundred terms in another order, on logits of order 1.
        torch.testing.assert_close(unary, segmenter.unary(image), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(small, segmenter.coarse_unary(image), rtol=1e-4, atol=1e-5)
        assert segmenter.network_input(image).shape[2:] == segmenter.padded_size(image.shape[2:])


def test_batches_hold_every_item_once_with_its_place_and_only_with_its_size() -> None:
    items = [(i * 7) % 5 for i in range(40)]
    batches = list(batches_by_size(items, lambda item: (item,), 3))
    assert sorted(place for batch in batches for place, _ in batch) == list(range(40))
    assert all(items[place] == item for batch in batches for place, item in batch)
    assert all(len({item for _, item in batch}) == 1 for batch in batches)
    assert sorted(map(len, batches)) == [2] * 5 + [3] * 10
    read: list[int] = []
    lazy = (read.append(k) or k for k in range(100))  # type: ignore[func-returns-value]
    for given, _ in enumerate(batches_by_size(lazy, lambda item: (item,), 2)):
        assert len(read) - given <= 2 * WAITING  # all of different sizes: few wait


@pytest.mark.parametrize(
    ("reach", "stride", "size"),
    [(0, 1, (70, 95)), (1, 1, (20, 90)), (3, 1, (41, 57)), (3, 1, (96, 33)), (2, 4, (70, 95))],
)
@torch.no_grad()
def test_windows_give_the_whole_image_where_the_network_sees_little(reach, stride, size) -> None:
    # Overlaps of at least 17 pixels: their outer quarters, which count nothing, are 4 pixels.
    segmenter = plain_segmenter(Convolutions(reach, stride))
    image = noise(*size)
    expected = segmenter.unary(image).log_softmax(1)
    found = infer(segmenter, image, InferenceConfig(window=34, overlap=0.5)).unary
    torch.testing.assert_close(found.exp(), expected.exp(), rtol=0, atol=ROUNDING)


@torch.no_grad()
def test_the_crf_runs_once_on_the_stitched_map() -> None:
    segmenter, image = tiny_segmenter(), noise(60, 90)
    output = infer(segmenter, image, InferenceConfig(window=33))
    assert torch.equal(output.logits, segmenter.refine(output.unary, image))
    whole = infer(segmenter, image, InferenceConfig()).logits  # also of a window of that size:
    assert torch.equal(infer(segmenter, image, InferenceConfig(window=90)).logits, whole)


def test_what_makes_no_sense_or_this_segmenter_cannot_do_is_refused() -> None:
    for values, message in (
        ({"scales": (1.0, 0.0)}, "scales must be one or more numbers above 0"),
        ({"window": 1}, "window must be at least 2 pixels, got 1"),
        ({"overlap": 1.0}, r"overlap must be a share in \[0, 1\), got 1.0"),
        ({"fusion": "max", "window": 65}, "fusion 'max' compares logits"),
    ):
        with pytest.raises(ValueError, match=message):
            InferenceConfig(**values)
    with pytest.raises(ValueError, match="there is none behind this network"):
        infer(tiny_segmenter(None), noise(33, 33), InferenceConfig(crf="per_scale"))
    with pytest.raises(ValueError, match=r"at least 65 pixels.*pass --window 65"):
        infer(tiny_segmenter(min_size=65), noise(33, 33), InferenceConfig(window=33))
    with pytest.raises(ValueError, match="batch size must be at least 1, got 0"):
        next(batches_by_size([1], lambda item: (item,), 0))
