from __future__ import annotations

import pytest

from data import PascalContext, PascalContextConfig
from tests.data.layouts import write_lines, write_pascal_context


@pytest.fixture
def root(tmp_path):
    write_pascal_context(tmp_path / "VOC2010")
    return tmp_path / "VOC2010"


def test_sixty_classes_are_read_as_they_are(root):
    dataset = PascalContext(PascalContextConfig(root, classes=60), "train")
    assert dataset.classes[:2] == ("background", "aeroplane")
    assert dataset.classes[59] == "wood"
    assert dataset[0].mask.flatten().tolist() == list(range(60))


def test_fifty_nine_classes_have_no_background(root):
    dataset = PascalContext(PascalContextConfig(root), "train")
    assert len(dataset.classes) == 59
    assert dataset.classes[0] == "aeroplane"
    assert dataset[0].mask.flatten().tolist() == [255, *range(59)]


def test_the_classes_are_distinct_and_sorted_after_the_background(root):
    classes = PascalContext(PascalContextConfig(root), "train").classes
    assert list(classes) == sorted(set(classes))


def test_val_serves_tune_and_report(root):
    for split in ("tune", "report"):
        assert PascalContext(PascalContextConfig(root), split).names == ("2008_000002",)


def test_wrong_configs_are_refused():
    with pytest.raises(ValueError, match="59 or 60, got 33"):
        PascalContextConfig(classes=33)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no class 'background'"):
        PascalContextConfig(scored=("background",))
    assert PascalContextConfig(classes=60, scored=("background",)).classes == 60


def test_a_missing_folder_and_a_bad_line_are_named(root):
    write_lines(root / "ImageSets" / "SegmentationContext" / "train.txt", "a b")
    with pytest.raises(ValueError, match=r"train\.txt: expected one name a line, got a b"):
        PascalContext(PascalContextConfig(root), "train")
    with pytest.raises(FileNotFoundError, match=r"mmsegmentation.*--data\.root"):
        PascalContext(PascalContextConfig(root.parent), "train")
