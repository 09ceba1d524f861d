"""`crfrnn refine`: folders of every kind of file, resumed, with bad files named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from crfrnn import refine
from crfrnn.__main__ import main
from crfrnn.folder import voc_palette

RNG = np.random.default_rng(0)
H, W = 12, 16
PHOTO = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)
P = RNG.dirichlet(np.ones(3), (H, W)).transpose(2, 0, 1).astype(np.float32)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Images a to e (png: lossless), empty maps, and a folder that does not exist."""
    images, maps = tmp_path / "images", tmp_path / "maps"
    images.mkdir()
    maps.mkdir()
    for name in "abcde":
        Image.fromarray(PHOTO).save(images / f"{name}.PNG", format="PNG")
    (images / "._a.png").write_bytes(b"AppleDouble")
    return images, maps, tmp_path / "out"


def run(folders: tuple[Path, Path, Path], *options: str) -> int:
    images, maps, out = folders
    return main(["refine", str(images), str(maps), "--out", str(out), *options])


def mask(out: Path, name: str) -> Any:
    return np.array(Image.open(out / f"{name}.png"))


def test_every_format_gives_the_mask_of_refine(folders: tuple[Path, Path, Path]) -> None:
    _, maps, out = folders
    np.save(maps / "a.npy", P)
    np.savez(maps / "b.npz", keys=np.array([0, 7, 9]), high_res=P)
    torch.save(torch.from_numpy(P), maps / "c.pt")
    Image.fromarray(P.argmax(0).astype(np.uint8)).save(maps / "d.png")
    torch.save({4: torch.from_numpy(P[0]), 2: torch.from_numpy(1 - P[0])}, maps / "e.pt")
    assert run(folders, "--preset", "stego") == 0
    expected = refine(P, PHOTO, "stego", output="mask")
    np.testing.assert_array_equal(mask(out, "a"), expected)
    np.testing.assert_array_equal(mask(out, "b"), np.array([0, 7, 9])[expected])
    np.testing.assert_array_equal(mask(out, "c"), expected)
    labels = refine(P.argmax(0), PHOTO, "stego", output="mask")
    np.testing.assert_array_equal(mask(out, "d"), labels)
    two = refine(np.stack([P[0], 1 - P[0]]), PHOTO, "stego", output="mask")
    np.testing.assert_array_equal(mask(out, "e"), np.array([4, 2])[two])
    assert bytes(Image.open(out / "a.png").getpalette() or []) == voc_palette()


def test_smaller_maps_are_enlarged_and_probabilities_can_be_kept(folders) -> None:
    _, maps, out = folders
    small = P[:, ::2, ::2]
    np.save(maps / "a.npy", small)
    assert run(folders, "--output", "probabilities") == 1  # b to e have no maps
    large = torch.nn.functional.interpolate(torch.from_numpy(small)[None], (H, W), mode="bilinear")
    kept = np.load(out / "a.npz")["probabilities"]
    np.testing.assert_allclose(kept, refine(large[0].numpy(), PHOTO), atol=1e-6)


def test_bad_files_are_named_and_left_out_and_a_second_run_makes_the_rest(folders, capsys) -> None:
    images, maps, out = folders
    np.save(maps / "a.npy", P)
    np.save(maps / "b.npy", np.full_like(P, np.nan))
    np.save(maps / "c.npy", np.array({"keys": [1], "cam": P[:1]}), allow_pickle=True)
    (images / "d.PNG").write_bytes(b"not an image")
    np.save(maps / "d.npy", P)
    assert run(folders) == 1
    said = capsys.readouterr().err
    for name, words in {
        "b": "no probability",
        "c": "--trust-pickles",
        "d": "",
        "e": "holds no e",
    }.items():
        assert f"left out: {name}: " in said
        assert words in said
    assert sorted(p.name for p in out.iterdir()) == ["a.png", "crfrnn-refine.json"]
    before = (out / "a.png").stat().st_mtime_ns
    np.save(maps / "b.npy", P)
    assert run(folders) == 1
    assert (out / "b.png").exists()
    assert (out / "a.png").stat().st_mtime_ns == before
    assert run(folders, "--preset", "irn") == 2
    assert "other settings (preset: deeplab_v2_resnet101 then, irn now)" in capsys.readouterr().err


def test_class_activation_maps_with_a_background(folders: tuple[Path, Path, Path]) -> None:
    _, maps, out = folders
    np.savez(maps / "a.npz", keys=np.array([3, 8]), cam=P[:2])
    assert run(folders, "--background", "2") == 1
    expected = refine(P[:2], PHOTO, background=2, output="mask")
    np.testing.assert_array_equal(mask(out, "a"), np.array([0, 4, 9])[expected])


def test_presets_and_help_print_and_exit_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    assert "stego" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["refine", "--help"])
    assert ended.value.code == 0
