from __future__ import annotations

import numpy as np
import pytest

from data import Cityscapes, CityscapesConfig, CorruptSample
from tests.data.layouts import write_cityscapes, write_mask


@pytest.fixture
def root(tmp_path):
    write_cityscapes(tmp_path / "cityscapes")
    return tmp_path / "cityscapes"


def test_all_cities_of_a_split_in_order(root):
    train = Cityscapes(CityscapesConfig(root), "train")
    assert train.names == ("aachen_000000_000019", "ulm_000000_000019")
    tune, report = (Cityscapes(CityscapesConfig(root), split) for split in ("tune", "report"))
    assert tune.names == report.names == ("lindau_000000_000019",)
    assert len(train.classes) == 19


def test_label_ids_become_train_ids(root):
    void = 255
    expected = [void] * 7 + [0, 1, void, void, 2, 3, 4, void, void, void, 5, void, 6, 7, 8, 9, 10]
    expected += [11, 12, 13, 14, 15, void, void, 16, 17, 18]
    assert Cityscapes(CityscapesConfig(root), "train")[0].mask.flatten().tolist() == expected


def test_train_ids_are_read_as_they_are(root):
    for city in ("aachen", "ulm"):
        path = root / "gtFine" / "train" / city / f"{city}_000000_000019_gtFine_labelTrainIds.png"
        ids = np.arange(34).reshape(2, 17)
        write_mask(path, np.where(ids < 19, ids, 255))
    mask = Cityscapes(CityscapesConfig(root, labels="labelTrainIds"), "train")[0].mask.flatten()
    assert mask.tolist() == [*range(19), *[255] * 15]


def test_label_ids_in_the_place_of_train_ids_are_refused(root):
    for city in ("aachen", "ulm"):
        path = root / "gtFine" / "train" / city / f"{city}_000000_000019_gtFine_labelTrainIds.png"
        write_mask(path, np.full((2, 17), 26))
    dataset = Cityscapes(CityscapesConfig(root, labels="labelTrainIds"), "train")
    with pytest.raises(CorruptSample, match=r"\[26\]; expected 0\.\.18 or 255"):
        dataset[0]


def test_missing_labels_are_named(root):
    with pytest.raises(FileNotFoundError, match=r"gtFine_labelTrainIds\.png"):
        Cityscapes(CityscapesConfig(root, labels="labelTrainIds"), "train")


def test_a_root_without_images_says_what_to_unpack(root):
    (root / "leftImg8bit" / "empty").mkdir()
    (root / "gtFine" / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="unpack leftImg8bit"):
        Cityscapes(CityscapesConfig(root, train_folder="empty"), "train")
    with pytest.raises(FileNotFoundError, match=r"lacks leftImg8bit/other.*--data\.root"):
        Cityscapes(CityscapesConfig(root, train_folder="other"), "train")


def test_the_test_split_is_refused():
    with pytest.raises(ValueError, match="not published"):
        CityscapesConfig(report_folder="test")
    with pytest.raises(ValueError, match="labels must be one of labelIds, labelTrainIds"):
        CityscapesConfig(labels="color")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="did you mean 'rider'"):
        CityscapesConfig(scored=("ridder",))
