"""`python -m eval predict`: photographs in, files out, every rule and option."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data import CollageConfig, FolderConfig, VocConfig
from data.dataset import overlay, voc_palette
from eval.__main__ import main
from eval.inference import InferenceConfig, infer
from eval.predict import POST_HOC, parsed, photographs
from eval.prediction_files import Probabilities, read_probabilities, write_probabilities
from runtime.checkpoint import load_segmenter, read_checkpoint
from tests.data.layouts import write_folder
from tests.eval.plain_networks import tiny_checkpoint, write_photograph

SIZES = {"a": (40, 51), "b": (33, 33), "c": (40, 52), "d": (41, 50)}
COLLAGE = CollageConfig(size=33, num_train=1, num_tune=3, num_report=5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny.pt", data=COLLAGE)


@pytest.fixture
def images(tmp_path: Path) -> dict[str, np.ndarray]:
    """Four images of several sizes in a folder."""
    sizes = enumerate(SIZES.items())
    return {n: write_photograph(tmp_path / "in" / f"{n}.png", *s, k) for k, (n, s) in sizes}


def predict(tmp_path: Path, checkpoint: Path, *options: str) -> None:
    main(["predict", str(checkpoint), str(tmp_path / "in"), "--out", str(tmp_path), *options])


def expected(checkpoint: Path, pixels: np.ndarray, crf: Any = "own", **config: Any) -> Any:
    segmenter = load_segmenter(read_checkpoint(checkpoint))
    if crf != "own":
        segmenter = segmenter.with_crf(crf)
    image = torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())
    return infer(segmenter, image, InferenceConfig(**config))


def probabilities_of(tmp_path: Path, name: str) -> Probabilities:
    return read_probabilities(tmp_path / "probabilities" / f"{name}.npz")


def ids_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "P"
        assert picture.getpalette() == voc_palette().flatten().tolist()
        return np.asarray(picture)


def test_masks_overlays_and_probabilities_are_written(checkpoint, tmp_path, images) -> None:
    predict(tmp_path, checkpoint, "--write", "masks", "overlays", "probabilities")
    seen = set()
    for name, pixels in images.items():
        output = expected(checkpoint, pixels)
        ids = ids_of(tmp_path / "masks" / f"{name}.png")
        assert np.array_equal(ids, output.logits.argmax(1)[0])
        seen |= set(ids.flatten().tolist())
        with Image.open(tmp_path / "overlays" / f"{name}.jpg") as picture:
            shown = np.asarray(picture).astype(int)
        # JPEG at this quality is off by a few grey levels.
        assert np.abs(shown - overlay(pixels, ids, voc_palette())).mean() < 10
        held = probabilities_of(tmp_path, name)
        assert np.array_equal(held.unary, output.unary.softmax(1)[0].half())
        assert held.crf is not None
        assert np.array_equal(held.crf, output.logits.softmax(1)[0].half())
    assert len(seen) > 1  # else the test would not see a mask of constants
    alone = {name: ids_of(tmp_path / "masks" / f"{name}.png") for name in images}
    predict(tmp_path, checkpoint, "--batch-size", "3")
    for name, ids in alone.items():
        # Rounding may turn a pixel where two classes tie; here a batch has none.
        assert np.array_equal(ids_of(tmp_path / "masks" / f"{name}.png"), ids)


def test_options_of_inference_and_crf_reach_the_prediction(checkpoint, tmp_path, images) -> None:
    options = "--scales 0.5 1 --flip --fusion max --crf.theta-alpha 5 --crf.theta-beta 20"
    predict(tmp_path, checkpoint, "--write", "probabilities", *options.split())
    crf = replace(POST_HOC, theta_alpha=5, theta_beta=20)
    output = expected(checkpoint, images["b"], crf, scales=(0.5, 1.0), flip=True, fusion="max")
    found = probabilities_of(tmp_path, "b").crf
    assert np.array_equal(found, output.logits.softmax(1)[0].half())  # type: ignore[arg-type]


def test_a_crf_may_be_put_behind_a_network_without_one(tmp_path, images) -> None:
    assert parsed(["c.pt", "a.png", "--out", "x"]).crf is None  # the checkpoint keeps its own
    without = tiny_checkpoint(tmp_path / "without.pt", crf=None)
    predict(tmp_path, without, "--write", "probabilities")
    assert probabilities_of(tmp_path, "a").crf is None
    predict(tmp_path, without, "--write", "probabilities", "--crf.theta-alpha=5")
    assert probabilities_of(tmp_path, "a").crf is not None
    with pytest.raises(SystemExit, match="per_scale' is for a CRF, and there is none"):
        predict(tmp_path, without, "--inference.crf", "per_scale")


def test_an_unreadable_image_is_named_and_left_out(checkpoint, tmp_path, images, capsys) -> None:
    (tmp_path / "in" / "b.png").write_bytes(b"no image")
    with pytest.raises(SystemExit, match=r"1 image\(s\) could not be read: b\.png") as left:
        predict(tmp_path, checkpoint, "--batch-size", "2")
    assert left.value.code == str(left.value)  # a text: exit status 1
    assert sorted(p.stem for p in (tmp_path / "masks").iterdir()) == ["a", "c", "d"]


def test_what_must_not_be_predicted_is_refused(checkpoint, tmp_path, images) -> None:
    write_photograph(tmp_path / "masks" / "a.png", 33, 33)
    with pytest.raises(SystemExit, match=r"masks.a\.png is one of the images.*another --out"):
        main(["predict", str(checkpoint), str(tmp_path / "masks"), "--out", str(tmp_path)])
    for words, message in (
        (["--no-crf", "--crf.theta-alpha", "5"], r"--no-crf and --crf\.OPTION exclude each other"),
        (["--data.root", str(tmp_path)], r"--data\.root: this checkpoint's data set is made"),
        (["--voc-submission"], "--voc-submission: expected the 21 classes of VOC"),
    ):
        with pytest.raises(SystemExit, match=message):
            predict(tmp_path, checkpoint, *words)


def test_a_submission_to_voc_has_its_layout(tmp_path, images) -> None:
    of_voc = tiny_checkpoint(tmp_path / "voc.pt", data=VocConfig(Path("nowhere")))
    predict(tmp_path, of_voc, "--voc-submission")
    folder = tmp_path / "results" / "VOC2012" / "Segmentation" / "comp6_test_cls"
    for name in images:
        mask = ids_of(tmp_path / "masks" / f"{name}.png")
        assert np.array_equal(ids_of(folder / f"{name}.png"), mask)


def test_the_classes_of_a_folder_are_looked_up(tmp_path, images) -> None:
    mine = tmp_path / "mine"
    write_folder(mine)
    of_folder = tiny_checkpoint(tmp_path / "mine.pt", data=FolderConfig(mine))
    moved = mine.rename(tmp_path / "moved")
    with pytest.raises(SystemExit, match=r"names of the classes are in no file.*--data.root DIR"):
        predict(tmp_path, of_folder)
    predict(tmp_path, of_folder, "--data.root", str(moved), "--write", "probabilities")
    assert probabilities_of(tmp_path, "a").labels.classes == ("ground", "tree")


def test_files_and_folders_are_read_in_order_and_two_of_one_stem_are_refused(tmp_path) -> None:
    for name in ("b.png", "a.JPEG", "below/c.png", "._b.png"):
        write_photograph(tmp_path / "folder" / name, 4, 5)
    (tmp_path / "folder" / "notes.txt").write_text("no image")
    write_photograph(tmp_path / "z.png", 4, 5)
    found = photographs([tmp_path / "z.png", tmp_path / "folder"])
    assert [path.name for path in found] == ["z.png", "a.JPEG", "b.png"]
    (tmp_path / "empty").mkdir()
    for name, message in (("empty", "no image to read"), ("no", "no image or folder at .*no")):
        with pytest.raises(FileNotFoundError, match=message):
            photographs([tmp_path / name])
    write_photograph(tmp_path / "two" / "b.png", 4, 5)
    with pytest.raises(ValueError, match=r"folder.b\.png and .*two.b\.png are both called 'b'"):
        photographs([tmp_path / "folder", tmp_path / "two"])


def test_probabilities_return_from_their_file_and_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "new" / "image.npz"
    with pytest.raises(FileNotFoundError, match=r"no probabilities at .*--write probabilities"):
        read_probabilities(path)
    labels = CollageConfig().label_set()
    q = np.random.default_rng(0).dirichlet(np.ones(len(labels.classes)), (4, 6))
    good = Probabilities(labels, q.transpose(2, 0, 1).astype(np.float16), None)
    write_probabilities(path, good)
    read = read_probabilities(path)
    assert np.array_equal(read.unary, good.unary)
    assert read.crf is None
    assert (read.labels.classes, read.labels.scored) == (labels.classes, labels.scored)
    assert np.array_equal(read.labels.palette, labels.palette)
    held: dict[str, Any] = dict(np.load(path))
    path.write_text("text")
    with pytest.raises(ValueError, match=r"image\.npz is damaged or no \.npz file"):
        read_probabilities(path)
    for stored, message in (
        ({"unary": good.unary}, r"image\.npz lacks classes, palette, scored"),
        ({**held, "unary": np.array([{}])}, r"image\.npz is damaged \(.*pickle"),
        ({**held, "crf": good.unary[:2]}, r"crf must be \(\d+, H, W\), one map for each class"),
        ({**held, "unary": -5 * good.unary}, "must sum to one over the classes"),
    ):
        np.savez(path, **stored)
        with pytest.raises(ValueError, match=message):
            read_probabilities(path)
