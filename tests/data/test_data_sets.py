"""The layouts of the public data sets: files, labels, and what is said where one lacks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data
from data import (
    CamVid,
    CamVidConfig,
    Cityscapes,
    CityscapesConfig,
    Coco,
    CocoConfig,
    CollageConfig,
    CorruptSample,
    FolderConfig,
    PascalContext,
    PascalContextConfig,
    PersonPart,
    PersonPartConfig,
    VocConfig,
    config_from_dict,
    config_to_dict,
)
from data.dataset import voc_palette
from data.kinds import KINDS, READERS, label_set
from data.voc import CLASSES
from tests.data import layouts
from tests.data.layouts import truncate, write_image, write_lines, write_mask

VOID = 255
HELD_OUT: tuple[data.Split, ...] = ("tune", "report")


# All of them


@pytest.mark.parametrize(
    ("write", "config"),
    [
        (layouts.write_camvid, CamVidConfig(scored=("car", "sky"))),
        (layouts.write_cityscapes, CityscapesConfig()),
        (layouts.write_pascal_context, PascalContextConfig()),
        (layouts.write_pascal_context, PascalContextConfig(classes=60)),
        (layouts.write_person_part, PersonPartConfig()),
        (layouts.write_coco, CocoConfig()),
        (lambda root: None, CollageConfig(size=33)),
    ],
    ids=lambda x: type(x).__name__,
)
def test_names_and_colours_are_known_without_the_data(
    write: Callable[[Path], None], config: Any, tmp_path: Path
) -> None:
    write(tmp_path)
    here = config if isinstance(config, CollageConfig) else replace(config, root=tmp_path)
    dataset, found = data.build(here, "train"), label_set(config)
    assert (found.classes, found.scored) == (dataset.classes, dataset.scored)
    assert np.array_equal(found.palette, dataset.palette)


CONFIGS: list[Any] = [
    CollageConfig(size=64),
    CamVidConfig(Path("x"), scored=("car",)),
    CityscapesConfig(Path("x"), labels="labelTrainIds"),
    CocoConfig(Path("x"), lists="voc_lists"),
    FolderConfig(Path("x"), tune_share=0.3),
    PascalContextConfig(Path("x"), classes=60),
    PersonPartConfig(Path("x")),
    VocConfig(Path("x"), sbd=Path("y"), extra_masks="SegmentationClassAug", scored=("cat",)),
]


def test_every_config_returns_from_json() -> None:
    for config in CONFIGS:
        assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config
    assert {type(config) for config in CONFIGS} == set(KINDS.values())
    assert set(READERS) == set(KINDS.values()) - {CollageConfig}
    old = {"kind": "voc", "root": "x", "train_list": "train", "scored": ("cat",)}
    assert config_from_dict(old) == VocConfig(root=Path("x"), scored=("cat",))


def test_unknown_kinds_and_fields_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data kind must be one of collage, voc.*got 'vok'"):
        config_from_dict({"kind": "vok"})
    with pytest.raises(ValueError, match=r"the config of voc is of another version.*colour"):
        config_from_dict({"kind": "voc", "colour": 1})


@pytest.mark.parametrize(
    "config",
    [CamVidConfig, CityscapesConfig, CocoConfig, PascalContextConfig, PersonPartConfig, VocConfig],
)
def test_an_unknown_class_cannot_be_scored(config: Any) -> None:
    with pytest.raises(ValueError, match="there is no class 'tv'"):
        config(scored=("tv",))


@pytest.mark.parametrize(
    ("write", "config", "message"),
    [
        (layouts.write_camvid, CamVidConfig, "layout of SegNet"),
        (layouts.write_cityscapes, CityscapesConfig, "lacks leftImg8bit/train"),
        (layouts.write_coco, CocoConfig, "lacks images/train2017"),
        (layouts.write_pascal_context, PascalContextConfig, "mmsegmentation"),
        (layouts.write_person_part, PersonPartConfig, "prepare person-part"),
    ],
)
def test_another_root_says_what_is_expected(tmp_path, write, config, message: str) -> None:
    write(tmp_path / "there")
    root = tmp_path / "nowhere" if config is CamVidConfig else tmp_path
    with pytest.raises(FileNotFoundError, match=rf"{message}.*--data\.root"):
        data.build(config(root), "train")


# CamVid


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    layouts.write_camvid(tmp_path / "CamVid")
    return tmp_path / "CamVid"


def test_camvid(camvid: Path) -> None:
    dataset = CamVid(CamVidConfig(camvid), "train")
    assert dataset.names == ("f1", "f2")
    assert CamVid(CamVidConfig(camvid), "tune").names == ("f3",)
    assert CamVid(CamVidConfig(camvid), "report").names == ("f4",)
    assert dataset.scored == tuple(range(11))
    assert dataset[1].image.shape == (3, 4, 6)
    expected = np.full((4, 6), 1)
    expected[0, 0], expected[3, 5] = VOID, 10
    assert dataset[1].mask.tolist() == expected.tolist()
    assert dataset.palette[[3, 10]].tolist() == [[128, 64, 128], [0, 128, 192]]


def test_lists_of_camvid_with_other_folders_and_endings(camvid: Path) -> None:
    line = "/SegNet/CamVid/train/f2.png /SegNet/CamVid/trainannot/f2.png"
    write_lines(camvid / "train.txt", line, line.replace("f2", "f1"))
    (camvid / "train" / "f2.png").unlink()
    write_image(camvid / "train" / "f2.jpg", 4, 6)
    dataset = CamVid(CamVidConfig(camvid), "train")
    assert dataset.names == ("f2", "f1")
    assert dataset[0].image.shape == (3, 4, 6)
    for wrong in ("f1", "f1.png f1.png", "a/b a/b a/b"):
        write_lines(camvid / "train.txt", wrong)
        with pytest.raises(ValueError, match=r"train\.txt: the line .* is not two paths"):
            CamVid(CamVidConfig(camvid), "train")


def test_missing_and_broken_files_are_named(camvid: Path) -> None:
    path = camvid / "trainannot" / "f1.png"
    dataset = CamVid(CamVidConfig(camvid), "train")
    write_mask(path, np.full((4, 6), 12))
    with pytest.raises(CorruptSample, match=r"f1\.png holds .*\[12\]; expected 0\.\.10 or 11"):
        dataset[0]
    write_mask(path, np.zeros((4, 5)))
    with pytest.raises(CorruptSample, match=r"f1\.png is 4 x 5"):
        dataset[0]
    truncate(path)
    with pytest.raises(CorruptSample, match=r"f1\.png cannot be decoded"):
        dataset[0]
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"trainannot/f1\.png does not exist"):
        CamVid(CamVidConfig(camvid), "train")
    (camvid / "val.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"val\.txt; lists there: test, train; see"):
        CamVid(CamVidConfig(camvid), "tune")


@pytest.mark.data
@pytest.mark.parametrize(("split", "count"), [("train", 367), ("tune", 101), ("report", 233)])
def test_the_published_camvid(shared_root: Path, split: data.Split, count: int) -> None:
    dataset = data.build(CamVidConfig(shared_root / "datasets" / "camvid"), split)
    assert len(dataset) == count
    assert dataset[count // 2].mask.shape == (360, 480)


# Cityscapes


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    layouts.write_cityscapes(tmp_path / "cityscapes")
    return tmp_path / "cityscapes"


def test_cityscapes(cityscapes: Path) -> None:
    train = Cityscapes(CityscapesConfig(cityscapes), "train")
    assert train.names == ("aachen_000000_000019", "ulm_000000_000019")
    for split in HELD_OUT:
        assert Cityscapes(CityscapesConfig(cityscapes), split).names == ("lindau_000000_000019",)
    assert len(train.classes) == 19
    expected = [VOID] * 7 + [0, 1, VOID, VOID, 2, 3, 4, VOID, VOID, VOID, 5, VOID, 6, 7, 8, 9, 10]
    expected += [11, 12, 13, 14, 15, VOID, VOID, 16, 17, 18]
    assert train[0].mask.flatten().tolist() == expected


def test_train_ids_of_cityscapes(cityscapes: Path) -> None:
    config = CityscapesConfig(cityscapes, labels="labelTrainIds")
    with pytest.raises(FileNotFoundError, match=r"gtFine_labelTrainIds\.png"):
        Cityscapes(config, "train")
    ids = np.arange(34).reshape(2, 17)
    for city, values in (("aachen", np.where(ids < 19, ids, VOID)), ("ulm", np.full((2, 17), 26))):
        name = f"{city}_000000_000019_gtFine_labelTrainIds.png"
        write_mask(cityscapes / "gtFine" / "train" / city / name, values)
    dataset = Cityscapes(config, "train")
    assert dataset[0].mask.flatten().tolist() == [*range(19), *[VOID] * 15]
    with pytest.raises(CorruptSample, match=r"\[26\]; expected 0\.\.18 or 255"):
        dataset[1]


def test_what_cityscapes_cannot_give_is_refused(cityscapes: Path) -> None:
    for folder in ("leftImg8bit", "gtFine"):
        (cityscapes / folder / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="unpack leftImg8bit"):
        Cityscapes(CityscapesConfig(cityscapes, train_folder="empty"), "train")
    with pytest.raises(ValueError, match="not published"):
        CityscapesConfig(report_folder="test")
    with pytest.raises(ValueError, match="labels must be one of labelIds, labelTrainIds"):
        CityscapesConfig(labels="color")  # type: ignore[arg-type]


# COCO


def test_coco_has_the_classes_of_voc(tmp_path: Path) -> None:
    layouts.write_coco(tmp_path)
    dataset = Coco(CocoConfig(tmp_path), "train")
    assert dataset.classes == CLASSES
    flat = dataset[0].mask.flatten().tolist()
    found = {CLASSES[label]: stored for stored, label in enumerate(flat) if 0 < label < VOID}
    # Categories of COCO, less one: person 1, bicycle 2, ... tv 72.
    assert found == {
        "person": 0, "bicycle": 1, "car": 2, "motorbike": 3, "aeroplane": 4, "bus": 5, "train": 6,
        "boat": 8, "bird": 15, "cat": 16, "dog": 17, "horse": 18, "sheep": 19, "cow": 20,
        "bottle": 43, "chair": 61, "sofa": 62, "pottedplant": 63, "diningtable": 66,
        "tvmonitor": 71,
    }  # fmt: skip
    assert flat.count(0) == 181 - 20
    assert flat[-1] == VOID


def test_coco_takes_every_image_or_those_of_a_list(tmp_path: Path) -> None:
    layouts.write_coco(tmp_path)
    assert Coco(CocoConfig(tmp_path), "train").names == ("000000000009", "000000000025")
    for split in HELD_OUT:
        assert Coco(CocoConfig(tmp_path), split).names == ("000000000139",)
    listed = CocoConfig(tmp_path, lists="voc_lists")
    with pytest.raises(FileNotFoundError, match=r"--data\.lists"):
        Coco(listed, "train")
    write_lines(tmp_path / "voc_lists" / "train2017.txt", "000000000025")
    assert Coco(listed, "train").names == ("000000000025",)
    for image in (tmp_path / "images" / "val2017").iterdir():
        image.unlink()
    with pytest.raises(FileNotFoundError, match=r"unpack val2017\.zip"):
        Coco(CocoConfig(tmp_path), "tune")


# PASCAL-Context and PASCAL-Person-Part


def test_pascal_context(tmp_path: Path) -> None:
    layouts.write_pascal_context(tmp_path)
    sixty = PascalContext(PascalContextConfig(tmp_path, classes=60), "train")
    assert sixty.classes[:2] == ("background", "aeroplane")
    assert sixty[0].mask.flatten().tolist() == list(range(60))
    dataset = PascalContext(PascalContextConfig(tmp_path), "train")
    assert dataset.classes == sixty.classes[1:]
    assert list(dataset.classes) == sorted(set(dataset.classes))
    assert dataset[0].mask.flatten().tolist() == [VOID, *range(59)]  # no background
    for split in HELD_OUT:
        assert PascalContext(PascalContextConfig(tmp_path), split).names == ("2008_000002",)
    with pytest.raises(ValueError, match="59 or 60, got 33"):
        PascalContextConfig(classes=33)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no class 'background'"):
        PascalContextConfig(scored=("background",))
    write_lines(tmp_path / "ImageSets" / "SegmentationContext" / "train.txt", "a b")
    with pytest.raises(ValueError, match=r"train\.txt: expected one name a line, got a b"):
        PascalContext(PascalContextConfig(tmp_path), "train")


def test_person_part(tmp_path: Path) -> None:
    layouts.write_person_part(tmp_path)
    dataset = PersonPart(PersonPartConfig(tmp_path), "train")
    assert len(dataset.classes) == 7
    assert dataset[0].mask.tolist() == [[0, 1, 2, 3, 4, 5, 6, VOID]]
    assert PersonPart(PersonPartConfig(tmp_path), "tune").names == ("2008_000002",)
    shutil.rmtree(tmp_path / "SegmentationPersonPart")
    with pytest.raises(FileNotFoundError, match="prepare person-part"):
        PersonPart(PersonPartConfig(tmp_path), "train")


# Colours


def test_colours_of_the_development_kit_of_voc() -> None:
    # Copied from the figure of the VOC 2012 kit: background, aeroplane, cat, person, train, void.
    expected = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        8: (64, 0, 0),
        15: (192, 128, 128),
        19: (128, 192, 0),
        VOID: (224, 224, 192),
    }
    palette = voc_palette()
    assert {i: tuple(palette[i].tolist()) for i in expected} == expected
    assert len(np.unique(palette, axis=0)) == 256
