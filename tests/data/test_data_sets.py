"""The layouts of the public data sets: files, labels, and what is said where one lacks."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data
from data import CamVidConfig, CityscapesConfig, CocoConfig, CollageConfig, CorruptSample, build
from data.dataset import voc_palette
from data.kinds import KINDS
from data.voc import CLASSES
from tests.data.layouts import LAYOUTS, write_image, write_lines, write_mask

VOID = 255
SPLITS: tuple[data.Split, ...] = ("train", "tune", "report")

# With fields that are not the default.
CONFIGS: dict[str, Any] = {
    "camvid": CamVidConfig(scored=("car", "sky")),
    "cityscapes": CityscapesConfig(labels="labelTrainIds"),
    "coco": CocoConfig(lists="voc_lists"),
    "collage": CollageConfig(size=33),
    "collage-clicks": data.CollageClicksConfig(clicks=1),
    "folder": data.FolderConfig(tune_share=0.3),
    "pascal-context": data.PascalContextConfig(classes=60),
    "person-part": data.PersonPartConfig(),
    "voc": data.VocConfig(sbd=Path("y"), extra_masks="SegmentationClassAug", scored=("cat",)),
    "voc-clicks": data.VocClicksConfig(train_masks="Scribbles"),
}
NAMES = {
    "camvid": (("f1", "f2"), ("f3",), ("f4",)),
    "cityscapes": (("aachen_000000_000019", "ulm_000000_000019"), *[("lindau_000000_000019",)] * 2),
    "coco": (("000000000009", "000000000025"), *[("000000000139",)] * 2),
    "pascal-context": (("2008_000001",), *[("2008_000002",)] * 2),
    "person-part": (("2008_000001",), *[("2008_000002",)] * 2),
}
CITYSCAPES = [VOID] * 7 + [0, 1, VOID, VOID, 2, 3, 4, VOID, VOID, VOID, 5, VOID, 6, 7, 8, 9, 10]
CITYSCAPES += [11, 12, 13, 14, 15, VOID, VOID, 16, 17, 18]


def layout(kind: str, root: Path, **changes: Any) -> Any:
    """A tiny copy of a data set, and its config."""
    LAYOUTS[kind](root)
    return KINDS[kind](root, **changes)


def flat(dataset: data.SegmentationDataset, index: int = 0) -> list[int]:
    return dataset[index].mask.flatten().tolist()


@pytest.mark.parametrize("kind", NAMES)
def test_names_and_what_is_known_without_the_data(kind: str, tmp_path: Path) -> None:
    here = layout(kind, tmp_path)
    assert tuple(build(here, split).names for split in SPLITS) == NAMES[kind]
    for config in (KINDS[kind](), CONFIGS[kind]):
        if kind not in ("cityscapes", "coco"):  # whose other files are not there
            here = replace(config, root=tmp_path)
        dataset, found = build(here, "train"), config.label_set()
        assert (found.classes, found.scored) == (dataset.classes, dataset.scored)
        assert np.array_equal(found.palette, dataset.palette)


@pytest.mark.parametrize(
    ("kind", "changes", "index", "ids", "num_classes"),
    [
        ("camvid", {}, 1, [VOID, *[1] * 22, 10], 11),
        ("cityscapes", {}, 0, CITYSCAPES, 19),
        ("pascal-context", {"classes": 60}, 0, [*range(60)], 60),
        ("pascal-context", {"classes": 59}, 0, [VOID, *range(59)], 59),
        ("person-part", {}, 0, [0, 1, 2, 3, 4, 5, 6, VOID], 7),
    ],
)
def test_masks(tmp_path: Path, kind, changes, index, ids, num_classes) -> None:
    dataset = build(layout(kind, tmp_path, **changes), "train")
    assert (flat(dataset, index), len(dataset.classes)) == (ids, num_classes)
    assert dataset[index].image.shape[1:] == dataset[index].mask.shape


def test_every_config_returns_from_json() -> None:
    assert list(CONFIGS) == sorted(KINDS)
    for config in CONFIGS.values():
        values = json.loads(json.dumps(data.config_to_dict(config)))
        assert data.config_from_dict(values) == config
    old = {"kind": "voc", "root": "x", "train_list": "train", "scored": ("cat",)}
    assert data.config_from_dict(old) == data.VocConfig(root=Path("x"), scored=("cat",))
    with pytest.raises(ValueError, match=r"data kind must be one of collage, voc.*got 'vok'"):
        data.config_from_dict({"kind": "vok"})
    with pytest.raises(ValueError, match=r"the config of voc is of another version.*colour"):
        data.config_from_dict({"kind": "voc", "colour": 1})


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        *((kind, {"scored": ("tv",)}, "unknown scored class 'tv'") for kind in NAMES),
        ("cityscapes", {"report_folder": "test"}, "not published"),
        ("cityscapes", {"labels": "color"}, "labels must be one of labelIds, labelTrainIds"),
        ("pascal-context", {"classes": 33}, "59 or 60, got 33"),
        ("pascal-context", {"scored": ("background",)}, "class 'background'"),
    ],
)
def test_configs_that_are_refused(kind, values, message) -> None:
    with pytest.raises(ValueError, match=message):
        KINDS[kind](**values)


@pytest.mark.parametrize(
    ("kind", "lost", "message"),
    [
        ("camvid", "", "layout of SegNet"),
        ("camvid", "trainannot/f1.png", r"trainannot/f1\.png does not exist"),
        ("cityscapes", "leftImg8bit/train", "lacks leftImg8bit/train"),
        ("cityscapes", "leftImg8bit/train/*", "unpack leftImg8bit"),
        ("coco", "images/train2017", "lacks images/train2017"),
        ("coco", "images/train2017/*", r"unpack train2017\.zip"),
        ("pascal-context", "SegmentationClassContext", "mmsegmentation"),
        ("person-part", "SegmentationPersonPart", "prepare person-part"),
    ],
)
def test_what_lacks_is_named_with_where_it_comes_from(tmp_path, kind, lost, message) -> None:
    config = layout(kind, tmp_path / "root")
    for path in (tmp_path / "root").glob(lost) if lost else [tmp_path / "root"]:
        path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(FileNotFoundError, match=message):
        build(config, "train")


def test_colours_of_the_development_kit_of_voc() -> None:
    # Copied from the figure of the VOC 2012 kit: background, aeroplane, cat, person, train, void.
    expected = {
        0: (0, 0, 0), 1: (128, 0, 0), 8: (64, 0, 0), 15: (192, 128, 128), 19: (128, 192, 0),
        VOID: (224, 224, 192),
    }  # fmt: skip
    palette = voc_palette()
    assert {i: tuple(palette[i].tolist()) for i in expected} == expected


def test_camvid_has_its_colours_and_names_other_ids(tmp_path: Path) -> None:
    dataset = build(layout("camvid", tmp_path), "train")
    assert dataset.palette[[3, 10]].tolist() == [[128, 64, 128], [0, 128, 192]]
    write_mask(tmp_path / "trainannot" / "f1.png", np.full((4, 6), 12))
    with pytest.raises(CorruptSample, match=r"f1\.png holds .*\[12\]; expected 0\.\.10 or 11"):
        dataset[0]


def test_lists_of_camvid_with_other_folders_and_endings(tmp_path: Path) -> None:
    config = layout("camvid", tmp_path)
    line = "/SegNet/CamVid/train/f2.png /SegNet/CamVid/trainannot/f2.png"
    write_lines(tmp_path / "train.txt", line, line.replace("f2", "f1"))
    (tmp_path / "train" / "f2.png").unlink()
    write_image(tmp_path / "train" / "f2.jpg", 4, 6)
    dataset = build(config, "train")
    assert dataset.names == ("f2", "f1")
    assert dataset[0].image.shape == (3, 4, 6)
    for wrong in ("f1", "f1.png f1.png", "a/b a/b a/b"):
        write_lines(tmp_path / "train.txt", wrong)
        with pytest.raises(ValueError, match=r"train\.txt: the line .* is not two paths"):
            build(config, "train")


def test_train_ids_of_cityscapes(tmp_path: Path) -> None:
    config = layout("cityscapes", tmp_path, labels="labelTrainIds")
    with pytest.raises(FileNotFoundError, match=r"gtFine_labelTrainIds\.png"):
        build(config, "train")
    ids = np.arange(34).reshape(2, 17)
    for city, values in (("aachen", np.where(ids < 19, ids, VOID)), ("ulm", np.full((2, 17), 26))):
        name = f"{city}_000000_000019_gtFine_labelTrainIds.png"
        write_mask(tmp_path / "gtFine" / "train" / city / name, values)
    dataset = build(config, "train")
    assert flat(dataset) == [*range(19), *[VOID] * 15]
    with pytest.raises(CorruptSample, match=r"\[26\]; expected 0\.\.18 or 255"):
        dataset[1]


def test_coco_has_the_classes_of_voc(tmp_path: Path) -> None:
    dataset = build(layout("coco", tmp_path), "train")
    assert dataset.classes == CLASSES
    ids = flat(dataset)
    found = {CLASSES[label]: stored for stored, label in enumerate(ids) if 0 < label < VOID}
    # Categories of COCO, less one: person 1, bicycle 2, ... tv 72.
    assert found == {
        "person": 0, "bicycle": 1, "car": 2, "motorbike": 3, "aeroplane": 4, "bus": 5, "train": 6,
        "boat": 8, "bird": 15, "cat": 16, "dog": 17, "horse": 18, "sheep": 19, "cow": 20,
        "bottle": 43, "chair": 61, "sofa": 62, "pottedplant": 63, "diningtable": 66,
        "tvmonitor": 71,
    }  # fmt: skip
    assert (ids.count(0), ids[-1]) == (181 - 20, VOID)


def test_lists_of_coco_and_pascal_context(tmp_path: Path) -> None:
    listed = layout("coco", tmp_path, lists="voc_lists")
    with pytest.raises(FileNotFoundError, match=r"--data\.lists"):
        build(listed, "train")
    write_lines(tmp_path / "voc_lists" / "train2017.txt", "000000000025")
    assert build(listed, "train").names == ("000000000025",)
    config = layout("pascal-context", tmp_path)
    write_lines(tmp_path / "ImageSets" / "SegmentationContext" / "train.txt", "a b")
    with pytest.raises(ValueError, match=r"train\.txt: expected one name a line, got a b"):
        build(config, "train")
