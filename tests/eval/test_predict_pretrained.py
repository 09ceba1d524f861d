"""The published network on real photographs, through the options of `predict` and the explorer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data
from data import VocConfig, config_to_dict, voc
from data.voc import ANIMALS
from eval.__main__ import main
from eval.checkpoint import save_checkpoint
from eval.explore.command import ExploreOptions, explorer_of
from eval.explore.view import view
from eval.setting_lines import preset_setting
from models import Segmenter, SegmenterConfig, load_weights

NAMES = ("2008_000080", "2008_000182")


@pytest.fixture(scope="module")
def checkpoint(
    shared_root: Path, voc_animals_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The published DeepLabv3 on MobileNetV2, without a CRF."""
    segmenter = Segmenter(SegmenterConfig(min_size=513))
    load_weights(segmenter.network, shared_root / "weights/deeplabv3_mobilenetv2_voc.safetensors")
    config = config_to_dict(VocConfig(voc_animals_root, scored=ANIMALS))
    path = tmp_path_factory.mktemp("pretrained") / "net.pt"
    save_checkpoint(path, segmenter, data=config, arm="start", seed=0, step=0, training={})
    return path


@pytest.mark.data
@pytest.mark.slow
def test_every_way_to_predict_sees_the_animals(
    checkpoint: Path, voc_animals_root: Path, tmp_path: Path
) -> None:
    images = [str(voc_animals_root / "JPEGImages" / f"{name}.jpg") for name in NAMES]
    ways = {
        "plain": [],
        "scales": ["--scales", "0.75", "1", "1.25", "--flip"],
        "windows": ["--scales", "1.5", "--window", "513"],
        "crf": ["--crf.theta-alpha", "67", "--crf.theta-beta", "3"],
    }
    split = data.build(VocConfig(voc_animals_root), "tune")
    accuracy = {}
    for way, options in ways.items():
        main(["predict", str(checkpoint), *images, "--out", str(tmp_path / way), *options])
        right, known = 0, 0
        for name in NAMES:
            truth = split[split.names.index(name)].mask.numpy()
            with Image.open(tmp_path / way / "masks" / f"{name}.png") as picture:
                ids = np.asarray(picture)
            right += int(((ids == truth) & (truth != 255)).sum())
            known += int((truth != 255).sum())
        accuracy[way] = right / known
    # 0.94 is the network's accuracy over the split; these are easy images, and a prediction that
    # is turned, shifted or of the wrong classes is far below.
    assert min(accuracy.values()) > 0.9, accuracy
    assert accuracy["crf"] > accuracy["plain"]


@pytest.mark.data
@pytest.mark.slow
def test_the_explorer_scores_a_photograph(checkpoint: Path) -> None:
    images = tuple(map(Path, NAMES))
    explorer = explorer_of(ExploreOptions(checkpoint, images, split="tune"))
    assert explorer.classes == voc.CLASSES
    setting = replace(preset_setting("deeplab_v2_resnet101"), resolution=2)
    shown = view(explorer.refinery, explorer.scenes[NAMES[0]], setting, "dog")
    assert shown.miou is not None
    before, after = shown.miou
    assert after > before > 0.9
    assert list(shown.shares) == [0, voc.CLASSES.index("dog")]
