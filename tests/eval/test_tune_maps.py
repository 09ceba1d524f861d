"""`eval tune` on a folder of maps: what it ends with gives the scores that it found."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from crfrnn.__main__ import main as crfrnn_main
from eval.__main__ import main
from eval.metrics import confusion_matrix, mean_iou

H, W = 36, 48
NAMES = "abcde"
LABELS = 3
COLOURS = np.array([[60, 60, 60], [200, 80, 60], [70, 170, 90]])
GRID = shlex.split(
    "--workers 1 --grid.theta-gamma 1 --grid.spatial-weight 1 --grid.theta-alpha 8 16 "
    "--grid.theta-beta 20 --grid.bilateral-weight 2 4 --grid.rounds 1 "
    "--crf.normalization symmetric --crf.num-iterations-eval 4"
)


def truth(seed: int) -> np.ndarray:
    """Two discs on a background, (H, W)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:H, :W]
    ids = np.zeros((H, W), np.uint8)
    for label in (1, 2):
        cy, cx = rng.uniform((8, 8), (H - 8, W - 8))
        ids[(y - cy) ** 2 + (x - cx) ** 2 < 80] = label
    return ids


def maps(ids: np.ndarray, seed: int) -> np.ndarray:
    """P (L, H, W) that knows the truth a little at every pixel."""
    rng = np.random.default_rng(seed)
    hot = np.eye(LABELS)[ids].transpose(2, 0, 1)
    logits = torch.from_numpy(1.5 * hot + rng.standard_normal(hot.shape))
    return logits.softmax(0).float().numpy()


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Five photographs, five masks; the maps are the test's."""
    found = {name: tmp_path / name for name in ("images", "maps", "masks", "out")}
    for name in ("images", "maps", "masks"):
        found[name].mkdir()
    for seed, name in enumerate(NAMES):
        ids = truth(seed)
        noise = np.random.default_rng(seed).normal(0, 8, (H, W, 3))
        photo = (COLOURS[ids] + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(photo).save(found["images"] / f"{name}.png")
        Image.fromarray(ids).save(found["masks"] / f"{name}.png")
    return found


def tune(folders: dict[str, Path], *options: str) -> dict[str, Any]:
    words = ["tune", str(folders["maps"]), "--out", str(folders["out"])]
    words += ["--maps.images", str(folders["images"]), "--maps.masks", str(folders["masks"])]
    main([*words, *GRID, *options])
    result: dict[str, Any] = json.loads((folders["out"] / "best.json").read_text())
    return result


def miou_of_line(line: str, folders: dict[str, Path], names: str = NAMES) -> float:
    """Run the line that `tune` printed, and score its masks."""
    words = shlex.split(line)
    out = folders["out"] / "masks"
    words[words.index("--out") + 1] = str(out)
    assert words[0] == "crfrnn"
    assert crfrnn_main(words[1:]) == 0
    counts = np.zeros((LABELS, LABELS), np.int64)
    for name in names:
        predicted = np.array(Image.open(out / f"{name}.png"))
        counts += confusion_matrix(truth(NAMES.index(name)), predicted, LABELS)
    return float(mean_iou(counts, range(LABELS)))


def test_the_lines_to_paste_give_the_scores_that_were_found(folders, capsys) -> None:
    for seed, name in enumerate(NAMES):
        np.save(folders["maps"] / f"{name}.npy", maps(truth(seed), seed).astype(np.float16))
    result = tune(folders, "--grid.bias", "0.5", "1", "--label-floor", "0")
    assert result["crf_helps"]
    assert result["best"]["miou"] > result["network"]["miou"] + 0.05
    assert result["refine"] in capsys.readouterr().out
    assert miou_of_line(result["refine"], folders) == pytest.approx(
        result["best"]["miou"], abs=1e-3
    )
    image = np.array(Image.open(folders["images"] / "a.png"))
    names: dict[str, Any] = {"maps": np.load(folders["maps"] / "a.npy"), "image": image}
    exec(result["code"], names)
    mask = np.array(Image.open(folders["out"] / "masks" / "a.png"))
    np.testing.assert_array_equal(names["q"].argmax(0), mask)


def test_maps_of_some_labels_and_masks_of_some_photographs(folders) -> None:
    """Maps name their labels; of two masks, one names no label at places."""
    for seed, name in enumerate(NAMES):
        p = maps(truth(seed), seed)
        kept = [0, 1] if name == "c" else [0, 2, 1]
        p = p[kept] / p[kept].sum(0)
        np.savez(folders["maps"] / f"{name}.npz", keys=np.array(kept), high_res=p)
    for name in "bde":
        (folders["masks"] / f"{name}.png").unlink()
    ids = truth(0)
    ids[:4] = 255
    Image.fromarray(ids).save(folders["masks"] / "a.png")
    result = tune(folders, "--grid.bias", "1", "--grid.bias-direction", "background")
    assert result["images"] == ["a", "c"]
    assert miou_of_line(result["refine"], folders, "ac") > result["network"]["miou"]


def test_foreground_maps_with_masks_of_0_and_255(folders, capsys) -> None:
    for seed, name in enumerate(NAMES):
        p = maps(truth(seed), seed)
        Image.fromarray((255 * (1 - p[0])).astype(np.uint8)).save(folders["maps"] / f"{name}.png")
        Image.fromarray(255 * (truth(seed) > 0).astype(np.uint8)).save(
            folders["masks"] / f"{name}.png"
        )
    result = tune(folders, "--maps.kind", "probabilities")
    assert result["best"]["miou"] > result["network"]["miou"]
    assert "--kind probabilities" in result["refine"]
    # The truth needs no CRF.
    for seed, name in enumerate(NAMES):
        soft = np.where(truth(seed) > 0, 0.95, 0.05).astype(np.float32)
        (folders["maps"] / f"{name}.png").unlink()
        np.save(folders["maps"] / f"{name}.npy", soft)
    folders["out"] = folders["out"].with_name("second")
    assert not tune(folders)["crf_helps"]
    assert "leave the CRF out" in " ".join(capsys.readouterr().out.split())


def test_what_does_not_fit_is_said_before_the_search(folders, capsys) -> None:
    words = ["tune", str(folders["maps"])]
    with pytest.raises(SystemExit, match=r"pass --maps\.images and --maps\.masks"):
        main(words)
    words += ["--maps.images", str(folders["images"]), "--maps.masks", str(folders["masks"])]
    with pytest.raises(SystemExit, match=r"no photograph of .* has both maps"):
        main(words)
    for option, said in (
        ("--score-report", "has no report split"),
        ("--crf.resolution=2", "one that `crfrnn refine` takes"),
    ):
        with pytest.raises(SystemExit):
            main([*words, option])
        assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())
    np.save(folders["maps"] / "a.npy", np.full((2, H, W), 0.5, np.float32))
    with pytest.raises(SystemExit, match=r"holds the ids \[0, 1, 2\], the maps have 2 labels"):
        main(words)
