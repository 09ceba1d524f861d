from __future__ import annotations

import shutil

import pytest

from data import PersonPart, PersonPartConfig
from tests.data.layouts import write_person_part


@pytest.fixture
def root(tmp_path):
    write_person_part(tmp_path / "VOC2010")
    return tmp_path / "VOC2010"


def test_seven_classes(root):
    dataset = PersonPart(PersonPartConfig(root), "train")
    assert len(dataset.classes) == 7
    assert dataset[0].mask.tolist() == [[0, 1, 2, 3, 4, 5, 6, 255]]
    assert PersonPart(PersonPartConfig(root), "tune").names == ("2008_000002",)


def test_masks_that_were_not_derived_yet_point_to_prepare(root):
    shutil.rmtree(root / "SegmentationPersonPart")
    with pytest.raises(FileNotFoundError, match="prepare person-part"):
        PersonPart(PersonPartConfig(root), "train")


def test_an_unknown_class_is_refused():
    with pytest.raises(ValueError, match="no class 'legs'"):
        PersonPartConfig(scored=("legs",))
