from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
import torch

from data.collage import Collage, CollageConfig
from data.collage.layout import Layer, label_map
from data.collage.painting import paint
from data.collage.sources import read_patches

SMALL = CollageConfig(num_train=20, num_tune=5, num_report=6)


@pytest.fixture(scope="module")
def train() -> Collage:
    return Collage(SMALL, "train")


def test_shape(train):
    sample = train[3]
    assert sample.name == "train-00003"
    assert sample.image.shape == (3, 97, 97)
    assert sample.image.dtype == torch.uint8
    assert sample.image.is_contiguous()
    assert sample.mask.shape == (97, 97)
    assert sample.mask.dtype == torch.int64


def test_counts_and_names():
    for dataset, count in (
        (Collage(SMALL, "train"), 20),
        (Collage(SMALL, "tune"), 5),
        (Collage(SMALL, "report"), 6),
    ):
        assert len(dataset) == len(set(dataset.names)) == count


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 15),
        ("num_train", 0),
        ("num_tune", 0),
        ("num_report", 0),
        ("seed", -1),
        ("seed", 2**32),
        ("min_things", 9),
        ("noise", -1.0),
        ("noise", float("nan")),
    ],
)
def test_a_config_that_makes_no_scene_is_refused(field, value):
    with pytest.raises(ValueError, match=field):
        CollageConfig(**{field: value})


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="train, tune, report; got 'val'"):
        Collage(SMALL, "val")  # type: ignore[arg-type]


@pytest.mark.parametrize("index", [-1, 20])
def test_an_index_outside_is_refused(train, index):
    with pytest.raises(IndexError, match="of 20"):
        train[index]


def test_masks_are_the_same_on_every_machine():
    """The bits of a few masks, as an integer computation on frozen random streams gives them."""
    digest = hashlib.sha256()
    for dataset in (Collage(SMALL, "train"), Collage(SMALL, "tune"), Collage(SMALL, "report")):
        for i in range(5):
            digest.update(dataset[i].mask.numpy().astype(np.uint8).tobytes())
    assert digest.hexdigest() == "7fbd46fa48ea53a344152a452951b4866e678ef08b9519bbdd5810c19333cdf8"


def test_images_are_the_same_on_every_machine(train):
    """Means of a 3 x 3 division of two scenes, rows first, averaged over RGB.

    Rounding and the JPEG decoder change single pixels by a few grey levels and these means of a
    thousand pixels by far less than the 0.5 allowed; any other scene is off by tens.
    """
    expected = [
        [33.2, 76.3, 132.3, 34.3, 60.5, 119.0, 141.6, 128.9, 148.2],
        [67.3, 34.3, 31.3, 64.5, 69.3, 36.5, 65.9, 140.0, 92.6],
    ]
    for i, means in enumerate(expected):
        blocks = train[i].image[:, :96, :96].float().reshape(3, 3, 32, 3, 32)
        torch.testing.assert_close(
            blocks.mean(dim=(0, 2, 4)).flatten(), torch.tensor(means), atol=0.5, rtol=0
        )


def test_a_scene_is_a_pure_function(train):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = train[7]
    train[2]
    again = Collage(SMALL, "train")[7]
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.mask, again.mask)
    assert torch.equal(torch.get_rng_state(), state)


def test_scenes_do_not_depend_on_how_many_there_are(train):
    assert torch.equal(Collage(CollageConfig(num_train=8), "train")[7].image, train[7].image)


def test_seeds_splits_and_indices_give_different_scenes(train):
    scenes = [
        train[0],
        train[1],
        Collage(SMALL, "tune")[0],
        Collage(SMALL, "report")[0],
        Collage(CollageConfig(seed=1), "train")[0],
    ]
    assert len({scene.mask.numpy().tobytes() for scene in scenes}) == len(scenes)
    assert len({scene.image.numpy().tobytes() for scene in scenes}) == len(scenes)


def test_noise_changes_the_image_and_not_the_mask(train):
    clean = Collage(CollageConfig(noise=0.0), "train")[4]
    assert torch.equal(clean.mask, train[4].mask)
    difference = clean.image.int() - train[4].image.int()
    # Its deviation is 0.2..1 times 5 grey levels; clipping at 0 and 255 and rounding change little.
    assert 0.8 < difference.double().std() < 5.2


def test_labels_are_class_ids_without_void(train):
    seen = np.unique([train[i].mask.numpy() for i in range(len(train))])
    assert seen.tolist() == list(range(len(train.classes)))


def test_edges_of_the_mask_are_edges_of_the_image():
    """What a CRF needs: colours differ more across label boundaries than within labels."""
    dataset = Collage(CollageConfig(num_report=30), "report")
    across, within = [], []
    for i in range(30):
        sample = dataset[i]
        step = (sample.image[:, :, 1:].float() - sample.image[:, :, :-1].float()).norm(dim=0)
        boundary = sample.mask[:, 1:] != sample.mask[:, :-1]
        across.append(step[boundary])
        within.append(step[~boundary])
    # Measured 7.1 on these scenes; masks that do not belong to their images would give about 1.
    assert torch.cat(across).mean() > 4 * torch.cat(within).mean()


def test_a_later_layer_covers_an_earlier_one():
    whole, left = np.ones((2, 2), dtype=np.bool_), np.array([[True, False], [True, False]])
    assert label_map([Layer(3, whole), Layer(5, left)]).tolist() == [[5, 3], [5, 3]]


def test_a_layer_that_covers_nothing_is_no_trouble():
    """A fence can stand outside the frame, or a thing wholly behind others."""
    whole, nothing = np.ones((20, 20), dtype=np.bool_), np.zeros((20, 20), dtype=np.bool_)
    layers = [Layer(3, whole), Layer(5, nothing), Layer(2, whole)]
    image = paint(np.random.RandomState(0), layers, read_patches("tune"), noise=0.0)
    assert image.shape == (20, 20, 3)
    assert (label_map(layers) == 2).all()


@pytest.mark.parametrize("size", [16, 33, 200])
def test_other_sizes(size):
    sample = Collage(CollageConfig(size=size), "tune")[0]
    assert sample.image.shape == (3, size, size)


def test_a_scene_may_hold_nothing_but_its_ground():
    config = CollageConfig(min_things=0, max_things=0)
    assert len(np.unique(Collage(config, "tune")[1].mask.numpy())) == 1


def test_survives_pickling(train):
    copy = pickle.loads(pickle.dumps(train))
    assert torch.equal(copy[5].image, train[5].image)


def test_repr(train):
    assert repr(train).startswith("Collage(split='train', scenes=20, CollageConfig(size=97")
