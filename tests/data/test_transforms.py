from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from data import Augment, Sample, TransformConfig

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
    for seed in range(20):
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
    ],
)
def test_a_config_that_cannot_be_applied_is_refused(field, value):
    with pytest.raises(ValueError, match=field):
        TransformConfig(**{field: value})


def test_crop_and_flip_keep_image_and_mask_together():
    config = TransformConfig(crop_size=6)
    for seed in range(30):
        sample = Augment(config)(coded(11, 15), seeded(seed))
        red, green, _ = sample.image.long()
        assert torch.equal(sample.mask, red * 15 + green)


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


def test_nearest_makes_no_new_ids():
    mask = torch.tensor([3, 9, 255]).repeat_interleave(10).repeat(20, 1)
    sample = Sample("ids", torch.zeros(3, 20, 30, dtype=torch.uint8), mask)
    for seed in range(20):
        augmented = Augment(TransformConfig(scale=(0.4, 2.5)))(sample, seeded(seed))
        assert np.unique(augmented.mask.numpy()).tolist() == [3, 9, 255]


def test_a_crop_beyond_the_image_is_void_and_fill():
    sample = Augment(TransformConfig(crop_size=8, flip=False, fill=FILL))(coded(5, 6), seeded(0))
    padded = torch.ones(8, 8, dtype=torch.bool)
    padded[:5, :6] = False
    assert (sample.mask[padded] == 255).all()
    assert torch.equal(sample.mask[:5, :6], coded(5, 6).mask)
    assert (sample.image[:, padded] == torch.tensor(FILL)[:, None]).all()


def test_one_side_is_padded_and_the_other_cropped():
    sample = Augment(TransformConfig(crop_size=8, flip=False, fill=FILL))(coded(5, 12), seeded(3))
    assert (sample.mask[5:] == 255).all()
    assert (sample.mask[:5] != 255).all()


def test_every_place_and_both_directions_are_drawn():
    augment = Augment(TransformConfig(crop_size=3))
    generator = seeded(0)
    seen = set()
    for _ in range(500):  # 18 outcomes: each is missed with probability below 1e-11
        crop = augment(coded(5, 5), generator).mask
        seen.add((int(crop.min()), bool(crop[0, 0] < crop[0, 1])))
    assert len(seen) == 3 * 3 * 2


def test_the_scale_stays_in_its_range():
    augment = Augment(TransformConfig(scale=(0.5, 1.5)))
    generator = seeded(0)
    sides = [augment(coded(16, 16), generator).mask.shape[0] for _ in range(200)]
    assert min(sides) == 8
    assert max(sides) == 24


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
    sample = coded(9, 9)
    image, mask = sample.image.clone(), sample.mask.clone()
    Augment(TransformConfig(scale=(0.5, 2.0), crop_size=20))(sample, seeded(1))
    assert torch.equal(sample.image, image)
    assert torch.equal(sample.mask, mask)


def test_nothing_to_do():
    sample = Augment(TransformConfig(flip=False))(coded(4, 6), seeded(0))
    assert torch.equal(sample.image, coded(4, 6).image)
    assert torch.equal(sample.mask, coded(4, 6).mask)


def test_non_contiguous_input():
    sample = coded(6, 9)
    turned = Sample("turned", sample.image.transpose(1, 2), sample.mask.T)
    result = Augment(TransformConfig(crop_size=4))(turned, seeded(2))
    red, green, _ = result.image.long()
    assert torch.equal(result.mask, red * 9 + green)


def test_one_pixel():
    sample = Augment(TransformConfig(scale=(0.1, 0.1)))(coded(1, 1), seeded(0))
    assert sample.mask.tolist() == [[0]]


def test_repr():
    assert repr(Augment(TransformConfig(crop_size=5))).startswith("Augment(TransformConfig(scale=")
