"""Anyone's own data: images, masks, classes.json, and lists or a hash."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data import FolderConfig, Split, build
from data.dataset import voc_palette
from data.folder import read_classes
from tests.data.layouts import write_folder, write_image, write_lines, write_mask


def names(root: Path, split: Split) -> tuple[str, ...]:
    return build(FolderConfig(root), split).names


def test_images_and_masks(root):
    dataset = build(FolderConfig(root), "train")
    assert dataset[0].image.shape == (3, 3, 4)
    expected = [255, *[int(dataset.names[0][1:]) % 2] * 11]
    assert dataset[0].mask.flatten().tolist() == expected


def test_without_lists_a_hash_splits_once_and_for_all(root):
    every = [name for split in ("train", "tune", "report") for name in names(root, split)]
    assert sorted(every) == [f"n{k:02d}" for k in range(40)]
    # Recorded once: another rule would mix the splits of finished runs.
    tune = ("n01", "n07", "n08", "n23", "n25", "n26", "n34", "n36")
    assert names(root, "tune") == tune
    write_folder(root, count=60)
    assert names(root, "tune")[:8] == tune


def test_lists_decide_where_they_are(root):
    write_lines(root / "train.txt", "n03")
    with pytest.raises(FileNotFoundError, match=r"holds train\.txt but not all of"):
        names(root, "train")
    write_lines(root / "tune.txt", "n01")
    write_lines(root / "report.txt", "n99")
    assert (names(root, "train"), names(root, "tune")) == (("n03",), ("n01",))
    with pytest.raises(FileNotFoundError, match=r"images/n99\.jpg, .*masks/n99\.png do not exist"):
        names(root, "report")


def test_what_does_not_belong_together_is_named(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="lacks images, masks"):
        names(tmp_path, "train")
    write_image(root / "images" / "n01.jpg", 3, 4)
    with pytest.raises(ValueError, match=r"n01\.jpg and n01\.png, which would share"):
        names(root, "train")
    (root / "images" / "n01.jpg").unlink()
    first = names(root, "train")[0]
    image = next((root / "images").glob(f"{first}.*"))
    image.rename(root / "away")
    with pytest.raises(ValueError, match=rf"masks without an image.*{first}"):
        names(root, "train")
    (root / "away").rename(image)
    (root / "masks" / f"{first}.png").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{first}\.png does not exist"):
        names(root, "train")
    for path in root.glob("*/*.*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="holds no image"):
        names(root, "train")
    write_folder(root, count=1)
    with pytest.raises(ValueError, match="none of the 1 images falls into tune: write train"):
        names(root, "tune")
    with pytest.raises(ValueError, match="must be above 0 and sum to less than 1"):
        FolderConfig(root, 0.5, 0.5)


def test_all_that_the_classes_may_say(root):
    colours = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    values = {"names": ["a", "b", "c"], "void": 3, "colours": colours, "scored": ["c", "a"]}
    (root / "classes.json").write_text(json.dumps(values))
    dataset = build(FolderConfig(root), "train")
    assert dataset.scored == (0, 2)
    assert dataset.palette[:3].tolist() == colours
    assert np.array_equal(dataset.palette[3:], voc_palette()[3:])
    write_mask(root / "masks" / f"{dataset.names[0]}.png", np.arange(12).reshape(3, 4) % 4)
    assert dataset[0].mask[0].tolist() == [0, 1, 2, 255]
    found = FolderConfig(root).label_set()
    assert (found.classes, found.scored) == (dataset.classes, dataset.scored)
    assert np.array_equal(found.palette, dataset.palette)
    (root / "classes.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no .*classes\.json; expected \{"):
        FolderConfig(root).label_set()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{names:", "is not JSON"),
        ('{"void": 255}', "expected an object with names"),
        ('{"names": ["a"], "color": []}', "unknown color"),
        ('["a", "a"]', "at least one and distinct"),
        ('{"names": ["a", "b"], "void": 1}', r"void must be an id of 0\.\.255"),
        ('{"names": ["a"], "colours": [[0, 0, 256]]}', "colours must be 1 times"),
        ('{"names": ["cat"], "scored": ["cta"]}', "Did you mean 'cat'"),
        ('{"names": ["a", "b"], "ids": [0, 0]}', r"ids must be 2 different ids of 0\.\.255"),
    ],
)
def test_malformed_classes_say_what_is_expected(tmp_path, text, message):
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(ValueError, match=rf"classes\.json.*{message}"):
        read_classes(tmp_path / "classes.json")
