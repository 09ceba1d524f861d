from __future__ import annotations

import json

import numpy as np
import pytest

from data import CityscapesConfig, Collage, CollageConfig, FolderConfig, VocConfig
from data.verify import SplitReport, contact_sheet, to_json, verify
from tests.data.layouts import LAYOUTS, as_nobody, truncate, write_folder, write_image, write_mask


def whats(report: SplitReport) -> str:
    return "\n".join(problem.what for problem in report.problems)


@pytest.fixture
def clean(tiny_voc):
    """`tiny_voc` with disjoint lists of names that no published count belongs to."""
    tiny_voc.write_list("mine", "b")
    tiny_voc.write_list("other", "a")
    shown = ("person",)  # b shows nothing else
    return VocConfig(
        tiny_voc.root, train_list="mine", tune_list="other", report_list="other", scored=shown
    )


def test_counts_by_hand(tiny_voc):
    tiny_voc.write_list("both", "a", "b")
    (report,) = verify(VocConfig(tiny_voc.root, train_list="both", scored=("cat",)), ["train"])
    assert report.problems == []
    assert (report.listed, report.read, report.sides) == (2, 2, (4, 7))
    # a: 35 pixels, 1 void, 6 cat, 7 tv monitor; b: 24 person.
    assert (report.void, report.share(8), report.share(15)) == (1 / 59, 6 / 58, 24 / 58)
    assert (report.images[:21].sum(), report.images[20]) == (4, 1)
    (report,) = verify(CollageConfig(size=32, num_train=3), ["train"])
    assert (report.listed, report.read, report.sides, report.void) == (3, 3, (32, 32), 0.0)


def test_all_problems_are_collected_by_file(tiny_voc):
    for name in "cdefgh":  # one fault each
        tiny_voc.add(name, np.ones((20, 20), dtype=np.uint8))
    tiny_voc.write_list("mine", *"abcdefghc")
    image, mask = tiny_voc.image, tiny_voc.mask
    write_mask(mask("c"), np.full((20, 20), 33))
    write_mask(mask("d"), np.ones((20, 19)))
    truncate(mask("e"))
    mask("f").unlink()
    truncate(image("g"))
    image("h").unlink()
    truncate(mask("h"))  # not looked at: its image is absent
    config = VocConfig(tiny_voc.root, train_list="mine", scored=("person",))
    (report,) = verify(config, ["train"])
    expected = (
        *((mask("c"), "holds the label ids [33]"), (mask("d"), "is 20 x 19 (H x W)")),
        *((mask("e"), "cannot be decoded as a mask"), (mask("f"), "does not exist, but the list")),
        *((image("g"), "cannot be decoded as an image"), (image("h"), "does not exist")),
        (tiny_voc.root, "names an image twice: c"),
    )
    assert len({problem.file for problem in report.problems}) == len(expected)
    for path, what in expected:
        assert any(str(path) in p.file and what in p.what for p in report.problems), what
    assert (report.listed, report.read) == (9, 2)


def test_headers_alone_miss_a_truncated_image(clean, tiny_voc):
    write_image(tiny_voc.image("b"), 6, 4)
    content = tiny_voc.image("b").read_bytes()
    tiny_voc.image("b").write_bytes(content[:-30])
    assert "cannot be decoded" in whats(verify(clean, ["train"])[0])
    assert verify(clean, ["train"], decode=False)[0].problems == []


def test_splits_without_a_list_or_labels_or_with_images_of_train_are_problems(clean, tiny_voc):
    tiny_voc.write_list("mine", "a", "b")
    train, tune = verify(clean, ["train", "tune"])
    assert train.problems == []
    assert "1 images are in train too: a" in whats(tune)
    write_mask(tiny_voc.mask("a"), np.full((5, 7), 255))
    assert "no pixel of the split has a label" in whats(verify(clean, ["tune"])[0])
    (tiny_voc.root / "ImageSets" / "Segmentation" / "mine.txt").unlink()
    train, tune = verify(clean, ["train", "tune"])
    assert (train.listed, tune.listed) == (None, 1)
    assert "there is no list" in whats(train)


def test_a_root_that_cannot_be_listed_is_an_error_and_a_closed_file_a_problem(clean, open_folder):
    with as_nobody(), pytest.raises(PermissionError, match="no permission to read"):
        verify(clean, ["train"])
    write_folder(open_folder, count=9)
    for mask in (open_folder / "masks").iterdir():
        mask.chmod(0)
    with as_nobody():
        (report,) = verify(FolderConfig(open_folder), ["train"])
    assert "Permission denied" in whats(report)


def test_another_count_than_the_published_is_a_problem_and_the_report_is_json(tmp_path):
    LAYOUTS["cityscapes"](tmp_path)
    config = CityscapesConfig(tmp_path)
    report = json.loads(json.dumps(to_json(config, verify(config, ["train", "tune"]))))
    assert report["data"]["kind"] == "cityscapes"
    train, tune = report["splits"]
    assert (train["listed"], train["read"], tune["sides"]) == (2, 2, [2, 17])
    assert any("; published: 2975 (" in problem["what"] for problem in train["problems"])


def test_a_sheet_has_a_cell_for_each_sample():
    collage = Collage(CollageConfig(num_train=5), "train")
    sheet = contact_sheet(collage, count=9, columns=3, cell=50)
    assert sheet.width > 3 * 2 * 50
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        contact_sheet(collage, count=1, columns=0, cell=1)
