from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as F

from data import Augment, Sample, TransformConfig
from data.transforms import DEEPLAB_V3PLUS_SCALES

FILL = (10, 20, 30)


def coded(height: int, width: int) -> Sample:
    """Every pixel knows where it came from: red is its row, green its column, so is its id."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack((rows, columns, torch.full_like(rows, 99))).to(torch.uint8)
    return Sample("coded", image, rows * width + columns)


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def test_shape():
    config = TransformConfig(scale=(0.5, 2.0), crop_size=13)
    for seed in range(5):
        sample = Augment(config)(coded(9, 17), seeded(seed))
        assert sample.name == "coded"
        assert sample.image.shape == (3, 13, 13)
        assert sample.image.dtype == torch.uint8
        assert sample.image.is_contiguous()
        assert sample.mask.shape == (13, 13)
        assert sample.mask.dtype == torch.int64
        assert type(sample.image) is type(sample.mask) is Tensor


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scale", (0.0, 1.0)),
        ("scale", (2.0, 1.0)),
        ("crop_size", 0),
        ("fill", (0, 256, 0)),
        ("scale_steps", (0.5, 0.0)),
        ("scale_steps", (float("inf"),)),
        ("brightness", 1.1),
        ("contrast", -0.1),
        ("saturation", float("nan")),
        ("hue", 0.6),
    ],
)
def test_a_config_that_cannot_be_applied_is_refused(field, value):
    with pytest.raises(ValueError, match=field):
        TransformConfig(**{field: value})
    with pytest.raises(ValueError, match="scale and scale_steps exclude each other"):
        TransformConfig(scale=(0.5, 1.0), scale_steps=(1.0,))


def test_scaled_edges_stay_together():
    """A mask edge and the image edge below it: both move to the same place at every scale."""
    image = torch.zeros(3, 40, 40, dtype=torch.uint8)
    image[:, :, 20:] = 200
    sample = Sample("edge", image, (image[0] > 0).long())
    for factor in (0.5, 0.6, 0.75, 1.3, 1.5, 2.0, 2.7):
        config = TransformConfig(scale=(factor, factor), flip=False)
        scaled = Augment(config)(sample, seeded(0))
        # Half-way grey marks the edge; the pixel that straddles it belongs to either side.
        differs = (scaled.image[0] > 100) != scaled.mask.bool()
        assert differs.any(dim=0).sum() <= 1
        covered = scaled.mask.double().mean().item()
        # Half the columns, up to one column of rounding.
        assert abs(covered - 0.5) <= 0.5 / scaled.mask.shape[1] + 1e-12


def test_labels_come_from_the_centre_of_the_source():
    third = Augment(TransformConfig(scale=(1 / 3, 1 / 3), flip=False))(coded(9, 9), seeded(0))
    assert third.mask[0].tolist() == [10, 13, 16]  # row 1, columns 1, 4 and 7


def test_a_crop_beyond_the_image_is_void_and_fill():
    sample = Augment(TransformConfig(crop_size=8, flip=False, fill=FILL))(coded(5, 6), seeded(0))
    padded = torch.ones(8, 8, dtype=torch.bool)
    padded[:5, :6] = False
    assert (sample.mask[padded] == 255).all()
    assert torch.equal(sample.mask[:5, :6], coded(5, 6).mask)
    assert (sample.image[:, padded] == torch.tensor(FILL)[:, None]).all()


def test_every_place_and_both_directions_are_drawn():
    augment = Augment(TransformConfig(crop_size=3))
    generator = seeded(0)
    seen = set()
    for _ in range(500):  # 18 outcomes: each is missed with probability below 1e-11
        crop = augment(coded(5, 5), generator).mask
        seen.add((int(crop.min()), bool(crop[0, 0] < crop[0, 1])))
    assert len(seen) == 3 * 3 * 2


def test_scales_stay_in_their_range_or_are_those_steps():
    augment, generator = Augment(TransformConfig(scale=(0.5, 1.5))), seeded(0)
    heights = [augment(coded(16, 16), generator).mask.shape[0] for _ in range(200)]
    assert (min(heights), max(heights)) == (8, 24)
    steps = DEEPLAB_V3PLUS_SCALES
    augment = Augment(TransformConfig(scale_steps=steps))
    generator = seeded(0)
    sides = {augment(coded(16, 8), generator).mask.shape for _ in range(200)}
    # Each of 7 is missed with probability below 1e-12.
    assert sides == {(round(16 * step), round(8 * step)) for step in steps}


JITTER = TransformConfig(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.2, crop_size=12)


def coloured(height: int, width: int) -> Sample:
    image = torch.randint(0, 256, (3, height, width), generator=seeded(9)).to(torch.uint8)
    return Sample("coloured", image, image[0].long())


def test_jitter_changes_the_image_and_neither_mask_nor_place():
    plain = Augment(replace(JITTER, brightness=0, contrast=0, saturation=0, hue=0))
    for seed in range(10):
        still, jittered = (a(coloured(20, 16), seeded(seed)) for a in (plain, Augment(JITTER)))
        assert torch.equal(still.mask, jittered.mask)
        assert not torch.equal(still.image, jittered.image)


@pytest.mark.parametrize("field", ["brightness", "contrast", "saturation", "hue"])
def test_each_change_of_colour_is_that_of_torchvision(field):
    """A factor at the edge of the range, found by undoing the draw."""
    sample = coloured(9, 9)
    changes: dict[str, Any] = {field: 0.4}
    config = TransformConfig(flip=False, **changes)
    generator = seeded(3)
    torch.randperm(1, generator=generator)
    draw = 2 * torch.rand((), generator=generator).item() - 1
    expected = getattr(F, f"adjust_{field}")(sample.image, (field != "hue") + 0.4 * draw)
    assert torch.equal(Augment(config)(sample, seeded(3)).image, expected)


def test_jitter_leaves_the_padding_alone():
    config = replace(JITTER, crop_size=20, flip=False, fill=FILL)
    sample = Augment(config)(coloured(5, 20), seeded(0))
    assert (sample.image[:, 5:] == torch.tensor(FILL)[:, None, None]).all()


def test_the_draws_of_finished_runs_are_frozen():
    """Recorded before colour and steps were added: scale, crop and flip draw as they did."""
    augment = Augment(TransformConfig(scale=(0.5, 2.0), crop_size=5, fill=FILL))
    digest = hashlib.sha256()
    for seed in range(40):
        sample = augment(coded(9, 11), seeded(seed))
        digest.update(sample.mask.numpy().tobytes())  # images differ by roundings of the resize
    assert digest.hexdigest() == "955497c338d936d9ed55a27e4d8e84f8c7a0451cd3d98b945440898985563b98"


sizes = st.integers(1, 40)


@given(height=sizes, width=sizes, crop=sizes, seed=st.integers(0, 2**31), low=st.floats(0.3, 1.5))
def test_no_id_is_ever_made_up(height, width, crop, seed, low):
    ids = torch.tensor([3, 9, 200, 255])
    mask = ids[torch.randint(4, (height, width), generator=seeded(seed))]
    sample = Sample("ids", torch.zeros(3, height, width, dtype=torch.uint8), mask)
    config = TransformConfig(scale=(low, 2.0), crop_size=crop)
    augmented = Augment(config)(sample, seeded(seed))
    found = set(np.unique(augmented.mask.numpy()).tolist())
    assert found <= {*np.unique(mask.numpy()).tolist(), 255}


@given(height=sizes, width=sizes, crop=sizes, seed=st.integers(0, 2**31))
def test_image_and_mask_stay_together(height, width, crop, seed):
    """The mask is a function of the image, before and after; padding is fill and void."""
    sample = coded(height, width)
    augmented = Augment(TransformConfig(crop_size=crop, fill=(1, 2, 200)))(sample, seeded(seed))
    red, green, blue = augmented.image.long()
    padded = blue == 200
    assert (augmented.mask[padded] == 255).all()
    inside = ~padded
    # Ids are kept as bytes.
    assert torch.equal(augmented.mask[inside], (red * width + green)[inside] % 256)
    assert int(inside.sum()) == min(crop, height) * min(crop, width)


@given(
    edge=st.integers(4, 28),
    step=st.sampled_from(DEEPLAB_V3PLUS_SCALES),
    flip=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_scaled_and_cropped_edges_agree_to_a_pixel(edge, step, flip, seed):
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    image[:, :, edge:] = 200
    sample = Sample("edge", image, (image[0] > 0).long())
    config = TransformConfig(scale_steps=(step,), crop_size=16, flip=flip, fill=(0, 0, 0))
    scaled = Augment(config)(sample, seeded(seed))
    known = scaled.mask != 255
    differs = ((scaled.image[0] > 100) != (scaled.mask == 1)) & known
    assert differs.any(dim=0).sum() <= 1  # the column that straddles the edge


def test_the_generator_decides_and_the_global_one_is_left_alone():
    augment = Augment(TransformConfig(scale=(0.5, 2.0), crop_size=7))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = augment(coded(9, 9), seeded(5))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    again = augment(coded(9, 9), seeded(5))
    other = augment(coded(9, 9), seeded(6))
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.mask, again.mask)
    assert not torch.equal(first.image, other.image)


def test_the_input_is_not_modified():
    sample = coded(9, 6)
    Augment(TransformConfig(scale=(0.5, 2.0), crop_size=20))(sample, seeded(1))
    same = Augment(TransformConfig(flip=False))(sample, seeded(0))  # nothing to do
    for found in (sample, same):
        assert torch.equal(found.image, coded(9, 6).image)
        assert torch.equal(found.mask, coded(9, 6).mask)


def test_non_contiguous_input():
    sample = coded(6, 9)
    turned = Sample("turned", sample.image.transpose(1, 2), sample.mask.T)
    result = Augment(TransformConfig(crop_size=4))(turned, seeded(2))
    red, green, _ = result.image.long()
    assert torch.equal(result.mask, red * 9 + green)


def test_one_pixel():
    sample = Augment(TransformConfig(scale=(0.1, 0.1)))(coded(1, 1), seeded(0))
    assert sample.mask.tolist() == [[0]]
