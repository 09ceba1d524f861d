from __future__ import annotations

import pytest

from data import Coco, CocoConfig
from data.voc import CLASSES
from tests.data.layouts import write_coco, write_lines


@pytest.fixture
def root(tmp_path):
    write_coco(tmp_path / "coco")
    return tmp_path / "coco"


def test_every_class_of_voc_has_its_category(root):
    dataset = Coco(CocoConfig(root), "train")
    assert dataset.classes == CLASSES
    flat = dataset[0].mask.flatten().tolist()
    found = {CLASSES[label]: stored for stored, label in enumerate(flat) if 0 < label < 255}
    # Categories of COCO, less one: person 1, bicycle 2, ... tv 72.
    assert found == {
        "person": 0,
        "bicycle": 1,
        "car": 2,
        "motorbike": 3,
        "aeroplane": 4,
        "bus": 5,
        "train": 6,
        "boat": 8,
        "bird": 15,
        "cat": 16,
        "dog": 17,
        "horse": 18,
        "sheep": 19,
        "cow": 20,
        "bottle": 43,
        "chair": 61,
        "sofa": 62,
        "pottedplant": 63,
        "diningtable": 66,
        "tvmonitor": 71,
    }
    assert flat.count(0) == 181 - 20
    assert flat[-1] == 255


def test_every_image_or_those_of_a_list(root):
    assert Coco(CocoConfig(root), "train").names == ("000000000009", "000000000025")
    assert Coco(CocoConfig(root), "report").names == ("000000000139",)
    write_lines(root / "voc_lists" / "train2017.txt", "000000000025")
    assert Coco(CocoConfig(root, lists="voc_lists"), "train").names == ("000000000025",)


def test_missing_folders_images_and_lists_are_named(root):
    with pytest.raises(FileNotFoundError, match=r"lacks images/train2014.*--data\.root"):
        Coco(CocoConfig(root, train_folder="train2014"), "train")
    with pytest.raises(FileNotFoundError, match=r"--data\.lists"):
        Coco(CocoConfig(root, lists="voc_lists"), "train")
    for image in (root / "images" / "val2017").iterdir():
        image.unlink()
    with pytest.raises(FileNotFoundError, match=r"unpack val2017\.zip"):
        Coco(CocoConfig(root), "tune")


def test_an_unknown_class_is_refused():
    with pytest.raises(ValueError, match="no class 'tv'"):
        CocoConfig(scored=("tv",))
