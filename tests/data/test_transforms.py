from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Generator
from torchvision.transforms.v2 import functional as F

from data import Augment, Sample, TransformConfig

FILL = (1, 2, 200)


def coded(height: int, width: int) -> Sample:
    """Every pixel knows where it came from: red is its row, green its column, so is its id."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack((rows, columns, torch.full_like(rows, 99))).to(torch.uint8)
    return Sample("coded", image, rows * width + columns)


def coloured(height: int, width: int) -> Sample:
    image = torch.randint(0, 256, (3, height, width), generator=seeded(9)).to(torch.uint8)
    return Sample("coloured", image, image[0].long())


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "values",
    [
        *({"scale": (2.0, 1.0)}, {"crop_size": 0}, {"fill": (0, 256, 0)}),
        *({"scale_steps": (1.0,), "scale": (0.5, 1.0)}, {"saturation": float("nan")}, {"hue": 0.6}),
    ],
)
def test_a_config_that_cannot_be_applied_is_refused(values: dict[str, Any]):
    with pytest.raises(ValueError, match=next(iter(values))):
        TransformConfig(**values)


def test_labels_come_from_the_centre_of_the_source():
    third = Augment(TransformConfig(scale=(1 / 3, 1 / 3), flip=False))(coded(9, 9), seeded(0))
    assert third.mask[0].tolist() == [10, 13, 16]  # row 1, columns 1, 4 and 7
    least = Augment(TransformConfig(scale=(0.1, 0.1)))(coded(1, 1), seeded(0))
    assert least.mask.tolist() == [[0]]


def test_every_place_and_both_directions_are_drawn():
    augment = Augment(TransformConfig(crop_size=3))
    generator = seeded(0)
    seen = set()
    for _ in range(500):  # 18 outcomes: each is missed with probability below 1e-11
        crop = augment(coded(5, 5), generator).mask
        seen.add((int(crop.min()), bool(crop[0, 0] < crop[0, 1])))
    assert len(seen) == 3 * 3 * 2


def test_scales_are_those_steps():
    augment, generator = Augment(TransformConfig(scale_steps=(0.5, 1.0, 1.5))), seeded(0)
    sides = {augment(coded(16, 8), generator).mask.shape for _ in range(60)}
    # Each of 3 is missed with probability below 1e-10.
    assert sides == {(8, 4), (16, 8), (24, 12)}


def test_jitter_changes_the_image_and_neither_mask_nor_place_nor_padding():
    config = TransformConfig(crop_size=20, fill=FILL)
    plain = Augment(config)
    jitter = Augment(replace(config, brightness=0.5, contrast=0.5, saturation=0.5, hue=0.2))
    for seed in range(10):
        still, jittered = (augment(coloured(5, 30), seeded(seed)) for augment in (plain, jitter))
        assert torch.equal(still.mask, jittered.mask)
        assert not torch.equal(still.image[:, :5], jittered.image[:, :5])
        assert torch.equal(still.image[:, 5:], jittered.image[:, 5:])


@pytest.mark.parametrize("field", ["brightness", "contrast", "saturation", "hue"])
def test_each_change_of_colour_is_that_of_torchvision(field):
    """A factor within the range, found by repeating the draw."""
    generator = seeded(3)
    torch.randperm(1, generator=generator)
    draw = 2 * torch.rand((), generator=generator).item() - 1
    expected = getattr(F, f"adjust_{field}")(coloured(9, 9).image, (field != "hue") + 0.4 * draw)
    changes: dict[str, Any] = {"flip": False, field: 0.4}
    augment = Augment(TransformConfig(**changes))
    assert torch.equal(augment(coloured(9, 9), seeded(3)).image, expected)


def test_the_draws_of_finished_runs_are_frozen():
    """Recorded before colour and steps were added: scale, crop and flip draw as they did."""
    augment = Augment(TransformConfig(scale=(0.5, 2.0), crop_size=5))
    digest = hashlib.sha256()
    for seed in range(40):
        sample = augment(coded(9, 11), seeded(seed))
        digest.update(sample.mask.numpy().tobytes())  # images differ by roundings of the resize
    assert digest.hexdigest() == "955497c338d936d9ed55a27e4d8e84f8c7a0451cd3d98b945440898985563b98"


sizes, seeds = st.integers(1, 40), st.integers(0, 2**31)


@given(height=sizes, width=sizes, crop=sizes, seed=seeds, turned=st.booleans())
@example(height=5, width=6, crop=8, seed=0, turned=False)  # padded at both sides
@example(height=9, width=17, crop=13, seed=1, turned=True)
def test_image_and_mask_stay_together(height, width, crop, seed, turned):
    """The mask is a function of the image, before and after; padding is fill and void."""
    sample = coded(height, width)
    if turned:  # not contiguous
        sample = Sample("turned", sample.image.transpose(1, 2), sample.mask.T)
    augmented = Augment(TransformConfig(crop_size=crop, fill=FILL))(sample, seeded(seed))
    red, green, blue = augmented.image.long()
    inside = blue == 99
    # Ids are kept as bytes.
    assert torch.equal(augmented.mask[inside], (red * width + green)[inside] % 256)
    assert int(inside.sum()) == min(crop, height) * min(crop, width)
    assert (augmented.mask[~inside] == 255).all()
    assert (augmented.image[:, ~inside] == torch.tensor(FILL)[:, None]).all()
    assert not inside[len(sample.mask) :].any()  # padded below; beside it a flip may have moved it


def test_the_global_generator_and_the_sample_are_left_alone():
    state, sample = torch.get_rng_state(), coded(9, 9)
    Augment(TransformConfig(scale=(0.5, 2.0), crop_size=7))(sample, seeded(5))
    assert torch.equal(torch.get_rng_state(), state)
    same = Augment(TransformConfig(flip=False))(sample, seeded(0))  # nothing to do
    for one in (sample, same):
        assert torch.equal(one.image, coded(9, 9).image)
        assert torch.equal(one.mask, coded(9, 9).mask)
