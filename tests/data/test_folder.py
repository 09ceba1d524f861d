from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from data import Folder, FolderConfig, Split
from data.folder_classes import read_classes
from tests.data.layouts import write_folder, write_image, write_lines

SPLITS: tuple[Split, ...] = ("train", "tune", "report")


@pytest.fixture
def root(tmp_path):
    write_folder(tmp_path / "mine")
    return tmp_path / "mine"


def describe_classes(root: Path, values: object) -> None:
    (root / "classes.json").write_text(
        values if isinstance(values, str) else json.dumps(values), encoding="utf-8"
    )


def test_shape(root):
    dataset = Folder(FolderConfig(root), "train")
    assert dataset.classes == ("ground", "tree")
    assert dataset[0].image.shape == (3, 3, 4)
    assert dataset[0].mask[0, 0] == 255
    assert int(dataset[0].mask[1, 1]) == int(dataset.names[0][1:]) % 2


def test_without_lists_a_hash_splits_once_and_for_all(root):
    names = {split: Folder(FolderConfig(root), split).names for split in SPLITS}
    assert Counter(n for group in names.values() for n in group) == Counter(
        f"n{k:02d}" for k in range(40)
    )
    # Recorded once: another rule would mix the splits of finished runs.
    assert names["tune"] == ("n01", "n07", "n08", "n23", "n25", "n26", "n34", "n36")
    write_folder(root, count=60)
    assert Folder(FolderConfig(root), "tune").names[:8] == names["tune"]


def test_lists_decide_where_they_are(root):
    for split, name in zip(SPLITS, ("n03", "n01", "n02"), strict=True):
        write_lines(root / f"{split}.txt", name)
    assert [Folder(FolderConfig(root), split).names for split in SPLITS] == [
        ("n03",),
        ("n01",),
        ("n02",),
    ]


def test_some_lists_are_not_enough(root):
    write_lines(root / "train.txt", "n01")
    with pytest.raises(FileNotFoundError, match=r"holds train\.txt but not all of"):
        Folder(FolderConfig(root), "train")


def test_a_list_that_names_an_absent_image(root):
    for split in SPLITS:
        write_lines(root / f"{split}.txt", "n99")
    with pytest.raises(FileNotFoundError, match=r"images/n99\.jpg, .*masks/n99\.png do not exist"):
        Folder(FolderConfig(root), "train")


def test_a_missing_folder_or_file_is_named(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="lacks images, masks"):
        Folder(FolderConfig(tmp_path), "train")
    (root / "classes.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no .*classes\.json; expected \{"):
        Folder(FolderConfig(root), "train")


def test_a_mask_without_an_image_and_an_image_without_a_mask(root):
    train = Folder(FolderConfig(root), "train").names
    image = next((root / "images").glob(f"{train[0]}.*"))
    image.rename(root / "away")
    with pytest.raises(ValueError, match=rf"masks without an image.*{train[0]}"):
        Folder(FolderConfig(root), "train")
    (root / "away").rename(image)
    (root / "masks" / f"{train[0]}.png").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{train[0]}\.png does not exist"):
        Folder(FolderConfig(root), "train")


def test_two_images_of_one_name_are_refused(root):
    write_image(root / "images" / "n01.jpg", 3, 4)
    with pytest.raises(ValueError, match=r"n01\.jpg and n01\.png, which would share"):
        Folder(FolderConfig(root), "train")


def test_no_images_and_an_empty_split(root):
    for image in (root / "images").iterdir():
        image.unlink()
    with pytest.raises(FileNotFoundError, match="holds no image"):
        Folder(FolderConfig(root), "train")
    for mask in (root / "masks").iterdir():
        mask.unlink()
    write_folder(root, count=1)
    with pytest.raises(ValueError, match="none of the 1 images falls into tune: write train"):
        Folder(FolderConfig(root), "tune")


@pytest.mark.parametrize("shares", [(0.0, 0.5), (0.5, 0.5), (-0.1, 0.2), (0.2, float("nan"))])
def test_shares_that_leave_nothing_are_refused(shares):
    with pytest.raises(ValueError, match="must be above 0 and sum to less than 1"):
        FolderConfig(tune_share=shares[0], report_share=shares[1])


def test_all_that_the_classes_may_say(root):
    values = {
        "names": ["a", "b", "c"],
        "void": 3,
        "colours": [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
        "scored": ["c", "a"],
    }
    describe_classes(root, values)
    dataset = Folder(FolderConfig(root), "train")
    assert dataset.scored == (0, 2)
    assert dataset.palette[:3].tolist() == values["colours"]
    assert dataset.table[[0, 2, 3, 4, 255]].tolist() == [0, 2, 255, -1, -1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("{names:", "is not JSON"),
        ("3", "expected an object with names"),
        ({"void": 255}, "expected an object with names"),
        ({"names": ["a"], "color": []}, "unknown color; expected some of names"),
        ([], "at least one and distinct"),
        (["a", "a"], "at least one and distinct"),
        (["a", 1], "names must be a list of names"),
        ({"names": "ab"}, "names must be a list of names"),
        ([str(k) for k in range(256)], "at most 255, got 256"),
        ({"names": ["a", "b"], "void": 1}, r"void must be an id of 2\.\.255"),
        ({"names": ["a", "b"], "void": 256}, "void must be"),
        ({"names": ["a", "b"], "void": None}, "void must be"),
        ({"names": ["a", "b"], "colours": [[0, 0, 0]]}, "colours must be 2 times"),
        ({"names": ["a"], "colours": [[0, 0, 256]]}, "colours must be 1 times"),
        ({"names": ["a"], "colours": [[0, 0]]}, "colours must be 1 times"),
        ({"names": ["cat"], "scored": ["cta"]}, "did you mean 'cat'"),
    ],
)
def test_malformed_classes_say_what_is_expected(root, values, message):
    describe_classes(root, values)
    with pytest.raises(ValueError, match=message) as caught:
        read_classes(root / "classes.json")
    assert str(root / "classes.json") in str(caught.value)
