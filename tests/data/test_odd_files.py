"""Files as people have them: one reader for training, prediction and verify, and plain words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crfrnn.folder import read_image as read_for_refine
from data import CorruptSample, FolderConfig, build
from data.__main__ import main
from data.dataset import voc_palette
from data.reading import image_header, read_ids, read_image, read_lines
from data.verify import verify
from tests.data.layouts import write_lines, write_mask

ORIENTATION = 0x0112


def train(root: Path) -> tuple[str, ...]:
    return build(FolderConfig(root), "train").names


def write_lists(root: Path, *names: str) -> None:
    for split, lines in (("train", names), ("tune", ("n01",)), ("report", ("n07",))):
        write_lines(root / f"{split}.txt", *lines)


def whats(root: Path) -> str:
    reports = verify(FolderConfig(root), ("train", "tune", "report"))
    return "\n".join(problem.what for report in reports for problem in report.problems)


@pytest.mark.parametrize(("ending", "orientation"), [("jpg", 3), ("png", 6), ("tif", 3)])
def test_a_photograph_is_turned_as_a_viewer_turns_it(tmp_path, ending, orientation):
    pixels = np.zeros((16, 24, 3), dtype=np.uint8)
    pixels[:8, :8] = 255  # the upper left corner
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"a.{ending}"
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    image = read_image(path)
    expected = np.rot90(pixels, 2 if orientation == 3 else -1)
    assert image.shape[:2] == expected.shape[:2] == image_header(path)[:2]
    assert (abs(image.astype(int) - expected) < 60).all()


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_8_bits_a_channel_are_refused(tmp_path, mode):
    values = np.full((4, 6), 1000, dtype={"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
    path = tmp_path / ("a.png" if mode == "I;16" else "a.tif")
    Image.fromarray(values).save(path)
    with pytest.raises(CorruptSample, match=r"a\.(png|tif) has more than 8 bits a channel"):
        read_image(path)


def test_what_is_transparent_shows_white_and_cmyk_is_converted(tmp_path):
    def read(picture: Image.Image, name: str = "a.png") -> np.ndarray:
        picture.save(tmp_path / name, quality=100)
        return read_image(tmp_path / name).astype(int)

    clear = Image.new("RGBA", (6, 4), (255, 0, 0, 0))
    clear.putpixel((0, 0), (10, 20, 30, 255))
    image = read(clear)
    assert image[0, 0].tolist() == [10, 20, 30]
    assert (image[1:] == 255).all()
    assert (read(Image.new("LA", (6, 4), (90, 255))) == 90).all()
    indexed = Image.new("P", (6, 4), 15)
    indexed.putpalette(voc_palette().tobytes())
    assert (read(indexed) == voc_palette()[15]).all()
    cmyk = Image.new("RGB", (16, 16), (200, 100, 50)).convert("CMYK")
    assert abs(read(cmyk, "c.jpg") - [200, 100, 50]).max() < 8


def test_verify_names_turned_photographs(root, capsys):
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    Image.new("RGB", (4, 3)).save(root / "images" / "n00.JPG", exif=exif)
    assert main(["verify", "folder", str(root)]) == 0
    assert "1 image is turned as its EXIF data say: n00" in capsys.readouterr().out
    exif[ORIENTATION] = 6
    Image.new("RGB", (4, 3)).save(root / "images" / "n00.JPG", exif=exif)
    assert "a mask that was drawn over the unturned pixels" in whats(root)


def test_endings_in_other_cases_are_read_and_files_that_begin_with_a_dot_are_not(root):
    before = train(root)
    for path in (root / "masks" / "n02.png", root / "images" / "n03.png"):
        path.rename(path.with_suffix(".PNG"))
    for name in ("images/._n02.JPG", "masks/._n02.png", "images/.DS_Store"):
        (root / name).write_bytes(b"\0\5\26\7" * 1000)
    assert train(root) == before
    assert whats(root) == ""


def test_names_in_lists_may_have_spaces_endings_and_other_spellings_of_accents(root):
    decomposed, composed = "cafe\u0301", "caf\u00e9"
    for old, new in (("n02", "IMG 0012"), ("n04", decomposed)):
        for folder, ending in (("images", "JPG"), ("masks", "png")):
            (root / folder / f"{old}.{ending}").rename(root / folder / f"{new}.{ending}")
    write_lists(root, "IMG 0012", "n03.png", "n06.JPG", composed)
    assert train(root) == ("IMG 0012", "n03", "n06", composed)


def test_an_absent_file_names_what_is_there(root):
    write_lists(root, "N03", "n99.jpg")
    with pytest.raises(FileNotFoundError, match=r"N03\.jpg \(there is n03\.png\)"):
        train(root)
    write_lists(root, "n99.jpg")
    with pytest.raises(FileNotFoundError, match=r"images/n99\.jpg, "):
        train(root)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_lists_and_classes_are_read_in_the_encodings_of_editors(root, encoding):
    (root / "l.txt").write_text("n02\nM\u00fcller\n", encoding=encoding)
    assert read_lines(root / "l.txt", "") == ("n02", "M\u00fcller")
    (root / "classes.json").write_text('["gr\u00fcn", "blau"]', encoding=encoding)
    assert build(FolderConfig(root), "train").classes == ("gr\u00fcn", "blau")


def test_masks_of_0_and_255_are_no_classes_and_classes_json_can_say_that_they_are(root, capsys):
    for k, path in enumerate(sorted((root / "masks").iterdir())):
        ids = np.zeros((3, 4))
        ids[k % 3, 1:3] = 255
        write_mask(path, ids)
    (root / "classes.json").write_text('["road", "crack"]')
    assert main(["verify", "folder", str(root)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "no mask holds the class crack, and 16.7 % of the pixels are void (255)" in said
    assert '"ids": [0, 255]' in said
    (root / "classes.json").write_text('{"names": ["road", "crack"], "ids": [0, 255]}')
    assert main(["verify", "folder", str(root)]) == 0
    assert np.unique(build(FolderConfig(root), "train")[0].mask).tolist() == [0, 1]


def test_void_at_the_same_pixels_and_a_class_that_never_occurs_are_problems(root):
    names = ["ground", "tree", "car"]
    (root / "classes.json").write_text(json.dumps(names))
    assert "no mask holds the class car" in whats(root)
    (root / "classes.json").write_text(json.dumps({"names": names, "scored": names[:2]}))
    assert whats(root) == ""
    for k, path in enumerate(sorted((root / "masks").iterdir())):
        ids = np.full((3, 4), k % 2)
        ids[2] = 255
        write_mask(path, ids)
    assert "the same 4 pixels are void in all" in whats(root)


def test_palettes_that_contradict_each_other_or_the_colours_are_named(root):
    colours = np.array([[0, 0, 0], [0, 128, 0]], dtype=np.uint8)

    def write(palette: np.ndarray, name: str = "*") -> None:
        for path in (root / "masks").glob(f"{name}.png"):
            ids = read_ids(path)
            picture = Image.fromarray(np.where(ids == 255, 0, ids)).convert("P")
            picture.putpalette(palette.tobytes())
            picture.save(path)

    write(colours)
    write(colours[::-1], "n03")
    assert "n03.png shows tree in the colour (0, 0, 0), which is that of ground in" in whats(root)
    write(colours[::-1])
    assert whats(root) == ""  # nobody says otherwise
    values = {"names": ["ground", "tree"], "colours": colours.tolist()}
    (root / "classes.json").write_text(json.dumps(values))
    assert "shows ground in the colour (0, 128, 0), which is that of tree in the" in whats(root)


def test_the_folder_command_reads_the_same_pixels(tmp_path):
    """`crfrnn refine` has a reader of its own: the library is installed without this room."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 12, 4), dtype=np.uint8)
    colour, alpha = Image.fromarray(pixels[..., :3]), Image.fromarray(pixels)
    indexed = colour.convert("P", palette=Image.Palette.ADAPTIVE)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    for ending in ("jpg", "png", "tif", "webp"):
        colour.save(tmp_path / f"turned.{ending}", exif=exif)
    colour.save(tmp_path / "damaged.jpg", exif=b"Exif\0\0nonsense")
    alpha.save(tmp_path / "alpha.png")
    alpha.convert("LA").save(tmp_path / "grey-alpha.png")
    indexed.save(tmp_path / "clear.png", transparency=3)
    colour.convert("CMYK").save(tmp_path / "cmyk.jpg")
    colour.convert("L").save(tmp_path / "grey.bmp")
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(read_for_refine(path), read_image(path), str(path))
    Image.fromarray(np.full((4, 6), 1000, np.uint16)).save(tmp_path / "deep.png")
    for reader in (read_for_refine, read_image):
        with pytest.raises(ValueError, match=r"deep\.png has more than 8 bits a channel"):
            reader(tmp_path / "deep.png")
