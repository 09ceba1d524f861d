from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from data import (
    VOID,
    CityscapesConfig,
    Collage,
    CollageClicksConfig,
    CollageConfig,
    CorruptSample,
    PersonPartConfig,
    Split,
    VocClicksConfig,
    VocConfig,
    build,
)
from data.__main__ import main
from data.prepare import Output, click_mask, read_clicks, read_parts
from data.reading import read_ids
from tests.data import layouts
from tests.data.layouts import truncate, write_image, write_lines, write_mask


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def segmentation_list(root: Path, name: str) -> Path:
    return root / "ImageSets" / "Segmentation" / f"{name}.txt"


def test_a_mask_is_kept_where_its_ids_are_the_same_and_replaced_by_force(tmp_path):
    mask, ids = tmp_path / "new" / "m.png", np.array([[1, 255]], dtype=np.uint8)
    output = Output(force=False)
    output.mask(mask, ids)
    Image.fromarray(ids).save(mask)  # other bytes
    output.mask(mask, ids)
    assert (output.written, output.kept) == (1, 1)
    with pytest.raises(FileExistsError, match=r"m\.png.*--force"):
        output.mask(mask, ids + 1)
    mask.write_text("damaged")
    Output(force=True).mask(mask, ids + 6)
    assert read_ids(mask).tolist() == [[7, 5]]


def test_trainaug_is_train_and_sbd_without_val(tiny_voc, tiny_sbd, capsys):
    # VOC: train a, b; val d. SBD: train a, c; val b, d.
    tiny_voc.write_list("val", "d")
    write_lines(tiny_sbd / "train.txt", "c", "a")
    write_lines(tiny_sbd / "val.txt", "b", "d")
    arguments = ["prepare", "voc-trainaug", str(tiny_voc.root), "--sbd", str(tiny_sbd)]
    assert main(arguments) == 0
    assert lines(segmentation_list(tiny_voc.root, "train_aug")) == ["a", "b", "c"]
    assert "train_aug: 3 images; 10582 are published" in capsys.readouterr().out
    assert not (tiny_voc.root / "SegmentationClassAug").exists()
    assert main([*arguments, "--masks"]) == 0
    assert "3 files written, 1 were there" in capsys.readouterr().out
    masks = tiny_voc.root / "SegmentationClassAug"
    assert np.array_equal(read_ids(masks / "a.png"), read_ids(tiny_voc.mask("a")))  # VOC's wins
    write_image(tiny_voc.image("c"), 5, 6)
    config = VocConfig(tiny_voc.root, train_list="train_aug", extra_masks="SegmentationClassAug")
    assert (build(config, "train")[2].mask == 2).all()
    (tiny_sbd / "val.txt").unlink()
    for folder, message in ((tiny_voc.root, "the folder of SBD"), (tiny_sbd, "val.txt; lists")):
        assert main([*arguments[:-1], str(folder)]) == 2
        assert message in capsys.readouterr().err


@pytest.fixture
def animals(tiny_voc: Any) -> Any:
    """`tiny_voc`, where a of train shows a cat, with a val of five animals and a bird."""
    for name, label in {"c": 10, "d": 12, "e": 13, "f": 17, "g": 15, "h": 3}.items():
        mask = np.zeros((4, 4), dtype=np.uint8)
        mask[2, 2] = label
        tiny_voc.add(name, mask)
    tiny_voc.write_list("val", "c", "d", "e", "f", "g", "h")
    return tiny_voc


def test_animals_are_cat_cow_dog_horse_and_sheep(animals, tiny_sbd, tmp_path, capsys):
    def made() -> list[list[str]]:
        names = ("animals_train", "animals_tune", "animals_report")
        return [lines(segmentation_list(animals.root, name)) for name in names]

    write_lines(tiny_sbd / "train.txt", "d", "f", "h")
    write_lines(tmp_path / "seg11valid.txt", "c", "z")
    arguments = ["prepare", "voc-animals", str(animals.root)]
    sbd, held_out = ["--sbd", str(tiny_sbd)], ["--held-out", str(tmp_path / "seg11valid.txt")]
    assert main([*arguments, *sbd]) == 0
    assert made() == [["a"], ["d", "f"], ["c", "e"]]
    printed = capsys.readouterr().out
    assert "animals_train: 1 images; 439 are published" in printed
    assert "--data.train-list animals_train" in printed
    assert main([*arguments, *held_out, "--force"]) == 0
    assert made() == [["a"], ["d", "e", "f"], ["c"]]
    truncate(animals.mask("e"))
    for options, message in (
        ([*sbd, *held_out], "give either --sbd"),
        ([*sbd, "--force"], str(animals.mask("e"))),
    ):
        assert main([*arguments, *options]) == 2
        assert message in capsys.readouterr().err
    assert made() == [["a"], ["d", "e", "f"], ["c"]]


def test_train_ids_of_cityscapes(tmp_path, capsys):
    layouts.write_cityscapes(tmp_path)
    for expected in ("3 files written, 0 were there", "0 files written, 3 were there"):
        assert main(["prepare", "cityscapes", str(tmp_path)]) == 0
        assert expected in capsys.readouterr().out
    stored, made = (
        build(CityscapesConfig(tmp_path, labels=labels), "tune")[0].mask
        for labels in ("labelIds", "labelTrainIds")
    )
    assert stored.equal(made)
    for folder in ("train", "val"):
        shutil.rmtree(tmp_path / "gtFine" / folder)
    assert main(["prepare", "cityscapes", str(tmp_path)]) == 2
    assert "unpack gtFine there" in capsys.readouterr().err


def write_parts(path: Path, *objects: tuple[str, dict[str, tuple[int, int]]]) -> None:
    """An annotation of 4 x 6: objects of a class with parts, each a pixel (row, column)."""
    kind = np.dtype([("class", "O"), ("class_ind", "O"), ("mask", "O"), ("parts", "O")])
    things = np.empty((1, len(objects)), dtype=kind)
    for k, (name, parts) in enumerate(objects):
        cells = np.empty((1, len(parts)), dtype=[("part_name", "O"), ("mask", "O")])
        for j, (part, place) in enumerate(parts.items()):
            mask = np.zeros((4, 6), dtype=np.uint8)
            mask[place] = 1
            cells[0, j] = (part, mask)
        whole = np.ones((4, 6), dtype=np.uint8)
        things[0, k] = (name, k, whole, cells if parts else np.zeros((0, 0)))
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"anno": {"imname": path.stem, "objects": things}})


@pytest.fixture
def parts(tmp_path):
    folder = tmp_path / "Annotations_Part"
    body = ["hair", "neck", "ruarm", "lhand", "luleg", "rfoot"]
    write_parts(folder / "p.mat", ("person", {name: (0, k) for k, name in enumerate(body)}))
    write_parts(folder / "q.mat", ("dog", {"head": (0, 0)}), ("person", {"torso": (3, 5)}))
    write_parts(folder / "r.mat", ("person", {}), ("cat", {"tail": (0, 0)}))
    return folder


def test_person_part_is_derived(parts, tmp_path, capsys):
    root = tmp_path / "VOC2010"
    write_lines(root / "ImageSets" / "Main" / "train.txt", "p", "r", "s")
    write_lines(root / "ImageSets" / "Main" / "val.txt", "q")
    for name in "pq":
        write_image(root / "JPEGImages" / f"{name}.jpg", 4, 6)
    assert main(["prepare", "person-part", str(root), "--parts", str(parts)]) == 0
    assert "train: 1 images; 1716 are published" in capsys.readouterr().out
    train, report = (build(PersonPartConfig(root), split) for split in ("train", "report"))
    assert train.names == ("p",)  # r has no parts of a person
    assert train[0].mask.tolist() == [[1, 2, 3, 4, 5, 6], *[[0] * 6] * 3]
    assert report[0].mask.flatten().tolist() == [*[0] * 23, 2]  # without the head of the dog
    write_lines(root / "ImageSets" / "Main" / "train.txt", "r")
    for folder, message in ((parts, "annotates no person"), (root / "x", "--parts DIR")):
        assert main(["prepare", "person-part", str(root), "--parts", str(folder)]) == 2
        assert message in capsys.readouterr().err
    write_parts(parts / "p.mat", ("person", {"wing": (0, 0)}))
    savemat(parts / "r.mat", {"other": 1})
    for name, message in (
        ("p", "names the part 'wing' of a person; known"),
        ("r", "cannot be decoded as an annotation of parts"),
    ):
        with pytest.raises(CorruptSample, match=rf"{name}\.mat {message}"):
            read_parts(parts / f"{name}.mat")


def test_coco_keeps_images_with_enough_of_voc(tmp_path, capsys):
    layouts.write_coco(tmp_path)  # 20 pixels of VOC in each
    ids = np.full((4, 7), 1)  # bicycles
    ids[0, :6] = 91  # stuff
    mask = tmp_path / "stuffthingmaps" / "train2017" / "000000000025.png"
    write_mask(mask, ids)
    made = tmp_path / "voc_lists" / "train2017.txt"
    arguments = ["prepare", "coco", str(tmp_path), "--min-pixels"]
    assert main([*arguments, "21"]) == 2  # none in val
    assert "none of the 1 masks" in capsys.readouterr().err
    assert main([*arguments, "20", "--force"]) == 0
    assert lines(made) == ["000000000009", "000000000025"]
    write_mask(mask, ids[:3])
    assert main([*arguments, "20"]) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*arguments, "20", "--force"]) == 0
    assert lines(made) == ["000000000009"]


SPLITS: tuple[Split, ...] = ("train", "tune")


def test_discs_by_hand():
    mask = click_mask((3, 6), [(0.4, 1.2, 7), (7.0, -3.0, 9)], radius=1)
    expected = np.full((3, 6), VOID)
    expected[1, :2], expected[0, 0], expected[2, 0] = 7, 7, 7
    expected[0, 4:], expected[1, 5] = 9, 9  # outside by rounding: at the border
    assert mask.tolist() == expected.tolist()
    near = click_mask((1, 5), [(0, 0, 1), (3, 0, 2)], radius=2)
    assert near.tolist() == [[1, 1, 2, 2, 2]]  # the nearest click counts
    assert click_mask((1, 2), [(0, 0, 1)], radius=0).tolist() == [[1, VOID]]


def test_clicks_of_voc_become_masks_of_train(tiny_voc, tmp_path, capsys):
    clicks = {"a": [[3.0, 1.0, 8], [0.0, 4.0, 0]], "b": [[1, 1, 15]], "absent": []}
    (tmp_path / "clicks.json").write_text(json.dumps(clicks))
    arguments = ["prepare", "voc-clicks", str(tiny_voc.root), "--clicks"]
    assert main([*arguments, str(tmp_path / "clicks.json"), "--radius", "0"]) == 0
    said = capsys.readouterr().out
    assert "clicks: 2 images; 3 are published" in said
    assert "--data.kind voc-clicks" in said
    config = VocClicksConfig(tiny_voc.root)
    mask = build(config, "train")[0].mask
    assert (mask != VOID).nonzero().tolist() == [[1, 3], [4, 0]]
    assert mask[mask != VOID].tolist() == [8, 0]
    whole = build(config, "tune")[0].mask
    assert whole.equal(torch.from_numpy(read_ids(tiny_voc.mask("a")).astype(np.int64)))
    with pytest.raises(FileNotFoundError, match=r"lacks Scribbles.*--data\.train-masks"):
        build(VocClicksConfig(tiny_voc.root, train_masks="Scribbles"), "train")
    for text, message in (
        ('{"a": [[1, 2]]}', "holds no clicks"),
        ('{"a": [[1, 2, 21]]}', r"class ids must be 0\.\.20, got \[21\]"),
    ):
        (tmp_path / "clicks.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_clicks(tmp_path / "clicks.json", 21)
    (tmp_path / "clicks.json").write_text('{"z": []}')
    assert main([*arguments, str(tmp_path / "clicks.json")]) == 2


def test_the_collage_is_clicked_on_in_train_alone():
    sizes: dict[str, int] = {"num_train": 12, "num_tune": 2, "num_report": 2}
    config = CollageClicksConfig(**sizes, clicks=3, radius=2)
    weak = build(config, "train")
    whole, tune = (Collage(CollageConfig(**sizes), split) for split in SPLITS)
    for k in range(12):
        mask, truth = weak[k].mask, whole[k].mask
        clicked = mask != VOID
        assert torch.equal(weak[k].image, whole[k].image)
        assert torch.equal(mask[clicked], truth[clicked])
        # every thing that shows
        assert np.unique(mask[clicked]).tolist() == np.unique(truth).tolist()
        assert 0 < clicked.sum() < 0.1 * mask.numel()
        assert torch.equal(mask, weak[k].mask)
    assert torch.equal(build(config, "tune")[1].mask, tune[1].mask)
    with pytest.raises(ValueError, match="clicks of at least 1"):
        CollageClicksConfig(clicks=0)
