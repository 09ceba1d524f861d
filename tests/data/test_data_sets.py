"""The layouts of the public data sets: files, labels, and what is said where one lacks."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import data
from data import (
    CamVidConfig,
    CityscapesConfig,
    CocoConfig,
    CollageConfig,
    CorruptSample,
    FolderConfig,
    Split,
    VocConfig,
    build,
)
from data.dataset import voc_palette
from data.folder import read_classes
from data.kinds import KINDS
from data.reading import read_ids
from data.voc import ANIMALS, CLASSES
from tests.data.layouts import LAYOUTS, write_folder, write_image, write_lines, write_mask

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
        ("camvid", {"scored": ("tv",)}, "unknown scored class 'tv'"),
        ("camvid", {"scored": ("car", "car")}, "twice"),
        ("cityscapes", {"report_folder": "test"}, "not published"),
        ("cityscapes", {"labels": "color"}, "labels must be one of labelIds, labelTrainIds"),
        ("pascal-context", {"classes": 33}, "59 or 60, got 33"),
    ],
)
def test_configs_that_are_refused(kind, values, message) -> None:
    with pytest.raises(ValueError, match=message):
        KINDS[kind](**values)


@pytest.mark.parametrize(
    ("kind", "lost", "message"),
    [
        ("camvid", "", "layout of SegNet"),
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
        build(config, "tune")
    ids = np.arange(34).reshape(2, 17)
    path = tmp_path / "gtFine" / "val" / "lindau" / "lindau_000000_000019_gtFine_labelTrainIds.png"
    write_mask(path, np.where(ids < 19, ids, VOID))
    assert flat(build(config, "tune")) == [*range(19), *[VOID] * 15]
    write_mask(path, np.full((2, 17), 26))
    with pytest.raises(CorruptSample, match=r"\[26\]; expected 0\.\.18 or 255"):
        build(config, "tune")[0]


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


@pytest.fixture
def config(tiny_voc):
    return VocConfig(root=tiny_voc.root)


def test_names_images_and_ids(tiny_voc, config):
    dataset = build(config, "train")
    assert (dataset.names, dataset.scored) == (("a", "b"), tuple(range(21)))
    sample = dataset[0]
    with Image.open(tiny_voc.image("a")) as picture:
        assert torch.equal(sample.image.permute(1, 2, 0), torch.from_numpy(np.array(picture)))
    assert np.array_equal(sample.mask, read_ids(tiny_voc.mask("a")))
    for index in (-1, 2):
        with pytest.raises(IndexError, match="of 2"):
            dataset[index]
    animals = build(replace(config, scored=ANIMALS), "train")
    assert (animals.scored, animals.classes) == ((0, 8, 10, 12, 13, 15, 17), CLASSES)


def test_missing_folders_lists_and_files_are_named(tiny_voc, config, tmp_path):
    for changes, message in (
        ({"root": tmp_path}, "lacks JPEGImages, SegmentationClass"),
        ({"train_list": "x"}, r"x\.txt; lists there: train, tune.*--data.train"),
        ({"extra_masks": "Aug"}, "lacks Aug"),
        ({"sbd": tmp_path / "nowhere"}, r"--data\.sbd"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            build(replace(config, **changes), "train")
    tiny_voc.image("a").unlink()
    tiny_voc.mask("b").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.jpg, .*b\.png do not exist, but the list"):
        build(config, "train")


def test_lists_that_name_no_images_are_refused(tiny_voc, config):
    for lines, message in (
        (("", "  "), r"report\.txt is empty"),
        (("a", "b", "a"), r"report\.txt names an image twice: a$"),
        (("a -1",), r"report\.txt: the line 'a -1' is neither"),  # a list of ImageSets/Main
    ):
        tiny_voc.write_list("report", *lines)
        with pytest.raises(ValueError, match=message):
            build(config, "report")


def test_a_sample_that_cannot_be_used_is_named(tiny_voc, config):
    dataset, mask = build(config, "train"), tiny_voc.mask("b")
    for mode in ("RGB", "1", "I;16"):
        Image.new(mode, (4, 6)).save(mask)
        with pytest.raises(CorruptSample, match=rf"b\.png has mode {mode}; expected an index"):
            dataset[1]
    ids = np.zeros((6, 4), dtype=np.uint8)
    ids[0, 0], ids[5, 3] = 21, 254
    write_mask(mask, ids)
    with pytest.raises(CorruptSample, match=r"b\.png holds .*\[21, 254\]; expected 0\.\.20"):
        dataset[1]
    shutil.copy(tiny_voc.mask("a"), mask)
    with pytest.raises(CorruptSample, match=r"b\.png is 5 x 7 \(H x W\).*b\.jpg is 6 x 4"):
        dataset[1]


def test_grey_masks_and_photographs_are_read_as_well(tiny_voc, config):
    Image.fromarray(np.full((6, 4), 17, dtype=np.uint8)).save(tiny_voc.mask("b"))
    Image.fromarray(np.full((6, 4), 90, dtype=np.uint8)).save(tiny_voc.image("b"))
    sample = build(config, "train")[1]
    assert (sample.mask == 17).all()
    assert sample.image.shape == (3, 6, 4)


def test_masks_of_sbd_serve_images_that_voc_does_not_label(tiny_voc, tiny_sbd, config):
    tiny_voc.write_list("mine", "a", "c")
    config = replace(config, report_list="mine", sbd=tiny_sbd)
    dataset = build(config, "report")
    assert (dataset[0].mask == 255).any()  # of VOC: SBD's own lacks the border
    assert (dataset[1].mask == 2).all()
    # A ready-made folder comes before SBD, and after VOC.
    for name, shape in (("a", (5, 7)), ("c", (5, 6))):
        write_mask(tiny_voc.root / "SegmentationClassAug" / f"{name}.png", np.full(shape, 4))
    dataset = build(replace(config, extra_masks="SegmentationClassAug"), "report")
    assert (dataset[0].mask == 255).any()
    assert (dataset[1].mask == 4).all()


def test_lists_of_paths(tiny_voc, config):
    write_image(tiny_voc.image("c"), 5, 6)
    write_mask(tiny_voc.root / "SegmentationClassAug" / "c.png", np.full((5, 6), 4))
    lines = [f"/JPEGImages/{n}.jpg /SegmentationClassAug/{n}.png" for n in ("c", "a")]
    write_lines(tiny_voc.root / "ImageSets" / "SegmentationAug" / "train_aug.txt", *lines)
    dataset = build(replace(config, train_list="SegmentationAug/train_aug"), "train")
    assert dataset.names == ("c", "a")
    assert (dataset[0].mask == 4).all()
    assert (dataset[1].mask == 255).any()  # the mask of VOC


def names(root: Path, split: Split) -> tuple[str, ...]:
    return build(FolderConfig(root), split).names


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
