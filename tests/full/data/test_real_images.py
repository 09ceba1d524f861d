"""Every image of the real data sets, and the lists that are published for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from data import CamVidConfig, Split, VocConfig
from data.__main__ import main
from data.verify import verify
from tests.data.layouts import write_lines

SPLITS: tuple[Split, ...] = ("train", "tune", "report")

pytestmark = pytest.mark.data


def test_camvid_and_the_animal_subset_are_clean(shared_root: Path, voc_animals_root: Path) -> None:
    camvid, animals = CamVidConfig(shared_root / "datasets" / "camvid"), VocConfig(voc_animals_root)
    counts = ((camvid, [367, 101, 233]), (animals, [437, 217, 228]))
    for config, count in counts:
        reports = verify(config, SPLITS)
        assert [(report.problems, report.read) for report in reports] == [([], n) for n in count]


def test_the_rule_gives_the_lists_of_the_animal_subset(voc_animals_root, shared_root, tmp_path):
    """On the copy that holds all but two of the images, with seg11valid for what SBD leaves out."""
    for folder in ("JPEGImages", "SegmentationClass"):
        (tmp_path / folder).symlink_to(voc_animals_root / folder)
    source = voc_animals_root / "ImageSets" / "Segmentation"
    lists = tmp_path / "ImageSets" / "Segmentation"
    for name in ("train", "val"):
        write_lines(lists / f"{name}.txt", *(source / f"{name}.txt").read_text().splitlines())
    held_out = shared_root / "datasets" / "voc_lists" / "seg11valid.txt"
    assert main(["prepare", "voc-animals", str(tmp_path), "--held-out", str(held_out)]) == 0
    for split in SPLITS:
        made = (lists / f"animals_{split}.txt").read_text().splitlines()
        assert made == (source / f"{split}.txt").read_text().splitlines()
