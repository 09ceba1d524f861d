from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data import (
    CamVidConfig,
    CityscapesConfig,
    CocoConfig,
    CollageConfig,
    FolderConfig,
    PascalContextConfig,
    PersonPartConfig,
    VocConfig,
)
from data.verify import SplitReport, to_json, verify
from tests.data.layouts import (
    as_nobody,
    truncate,
    write_camvid,
    write_cityscapes,
    write_coco,
    write_folder,
    write_image,
    write_mask,
    write_pascal_context,
    write_person_part,
)


def whats(report: SplitReport) -> str:
    return "\n".join(problem.what for problem in report.problems)


@pytest.fixture
def clean(tiny_voc):
    """`tiny_voc` with disjoint lists of names that no published count belongs to."""
    tiny_voc.write_list("mine", "b")
    tiny_voc.write_list("other", "a")
    return VocConfig(tiny_voc.root, train_list="mine", tune_list="other", report_list="other")


def test_counts_by_hand(tiny_voc):
    tiny_voc.write_list("both", "a", "b")
    (report,) = verify(VocConfig(tiny_voc.root, train_list="both"), ["train"])
    assert report.problems == []
    assert (report.listed, report.read, report.sides) == (2, 2, (4, 7))
    # a: 35 pixels, 1 void, 6 cat, 7 tv monitor; b: 24 person.
    assert report.void == 1 / 59
    assert report.share(8) == 6 / 58
    assert report.share(15) == 24 / 58
    assert report.images[:21].sum() == 4
    assert report.images[20] == 1
    assert sum(report.share(k) for k in range(21)) == pytest.approx(1)  # the order of adding


def test_all_problems_are_collected_by_file(tiny_voc):
    paths = {}
    for name in "cdefgh":  # one fault each
        tiny_voc.add(name, np.ones((20, 20), dtype=np.uint8))
        paths[name] = str(tiny_voc.mask(name))
    tiny_voc.write_list("mine", *"abcdefghc")
    write_mask(tiny_voc.mask("c"), np.full((20, 20), 33))
    write_mask(tiny_voc.mask("d"), np.ones((20, 19)))
    truncate(tiny_voc.mask("e"))
    tiny_voc.mask("f").unlink()
    truncate(tiny_voc.image("g"))
    tiny_voc.image("h").unlink()
    truncate(tiny_voc.mask("h"))  # not looked at: its image is absent
    (report,) = verify(VocConfig(tiny_voc.root, train_list="mine"), ["train"])
    found = {problem.file: problem.what for problem in report.problems}
    assert len(found) == 7
    assert "holds the label ids [33]" in found[paths["c"]]
    assert "is 20 x 19 (H x W)" in found[paths["d"]]
    assert "cannot be decoded as a mask" in found[paths["e"]]
    assert "does not exist, but the list" in found[paths["f"]]
    assert "cannot be decoded as an image" in found[str(tiny_voc.image("g"))]
    assert "does not exist" in found[str(tiny_voc.image("h"))]
    assert "names an image twice: c" in whats(report)
    assert (report.listed, report.read) == (9, 2)


def test_headers_alone_miss_a_truncated_image(clean, tiny_voc):
    write_image(tiny_voc.image("b"), 6, 4)
    content = tiny_voc.image("b").read_bytes()
    tiny_voc.image("b").write_bytes(content[:-30])
    assert "cannot be decoded" in whats(verify(clean, ["train"])[0])
    assert verify(clean, ["train"], decode=False)[0].problems == []


def test_counts_are_compared_with_the_published_ones(tiny_voc):
    (report,) = verify(VocConfig(tiny_voc.root), ["train"])
    assert "names 2 images; published: 1464 (VOC 2012), 439 (the animal subset)" in whats(report)


def test_training_on_what_is_reported_is_a_problem(clean, tiny_voc):
    tiny_voc.write_list("mine", "a", "b")
    train, tune = verify(clean, ["train", "tune"])
    assert train.problems == []
    assert "1 images are in train too: a" in whats(tune)


def test_a_list_that_is_absent_does_not_hide_the_others(clean, tiny_voc):
    (tiny_voc.root / "ImageSets" / "Segmentation" / "mine.txt").unlink()
    train, tune = verify(clean, ["train", "tune"])
    assert train.listed is None
    assert "there is no list" in whats(train)
    assert tune.problems == []


def test_a_split_without_labels_is_a_problem(clean, tiny_voc):
    write_mask(tiny_voc.mask("b"), np.full((6, 4), 255))
    assert "no pixel of the split has a label" in whats(verify(clean, ["train"])[0])


def test_a_root_that_cannot_be_listed_is_an_error(clean, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--data\.root"):
        verify(VocConfig(tmp_path / "nowhere"), ["train", "tune"])
    with as_nobody(), pytest.raises(PermissionError, match="no permission to read"):
        verify(clean, ["train"])


def test_a_file_without_permission_is_a_problem(open_folder):
    write_folder(open_folder, count=9)
    for split, names in (("train", "n01"), ("tune", "n02"), ("report", "n03")):
        (open_folder / f"{split}.txt").write_text(names)
    (open_folder / "masks" / "n01.png").chmod(0)
    with as_nobody():
        (report,) = verify(FolderConfig(open_folder), ["train"])
    assert "Permission denied" in whats(report)


def test_the_report_is_json(clean, tiny_voc):
    truncate(tiny_voc.mask("b"))
    report = json.loads(json.dumps(to_json(clean, verify(clean, ["train", "tune"]))))
    assert report["data"]["kind"] == "voc"
    train, tune = report["splits"]
    assert train["problems"][0]["file"] == str(tiny_voc.mask("b"))
    assert tune["sides"] == [5, 7]
    assert tune["classes"][8] == {"name": "cat", "share": 6 / 34, "images": 1}


def test_collage_is_counted():
    (report,) = verify(CollageConfig(size=32, num_train=3), ["train"])
    assert (report.listed, report.read, report.sides, report.void) == (3, 3, (32, 32), 0.0)


@pytest.mark.parametrize(
    ("write", "config", "published"),
    [
        (write_camvid, CamVidConfig, (367, 101, 233)),
        (write_cityscapes, CityscapesConfig, (2975, 500, 500)),
        (write_pascal_context, PascalContextConfig, (4998, 5105, 5105)),
        (write_person_part, PersonPartConfig, (1716, 1817, 1817)),
        (write_coco, CocoConfig, (118287, 5000, 5000)),
        (write_folder, FolderConfig, (None, None, None)),
    ],
)
def test_every_layout_is_verified(tmp_path, write: Callable[[Path], None], config, published):
    """The tiny copies are clean but for their counts, which are compared with the published."""
    write(tmp_path / "root")
    reports = verify(config(tmp_path / "root"), ["train", "tune", "report"])
    for report, count in zip(reports, published, strict=True):
        assert report.listed == report.read
        assert report.read > 0
        if count is None:
            assert report.problems == []
        else:
            assert f"; published: {count} (" in whats(report)
            assert len(report.problems) == 1
