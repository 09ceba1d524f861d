"""Whole comparisons with networks of other kinds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models import DeepLabV2Config, DeepLabV3PlusConfig, SegmenterConfig, TimmConfig, VggConfig
from runtime.checkpoint import read_checkpoint
from runtime.run_folder import ARMS
from tests.train.tiny import tiny_recipe
from train.arms import compare


@pytest.mark.parametrize(
    "network",
    [
        DeepLabV2Config(backbone=VggConfig(fc_channels=16), rates=(), scales=(0.5, 0.75, 1.0)),
        DeepLabV3PlusConfig(backbone=TimmConfig("mobilenetv2_035"), batch_norm_momentum=0.1),
    ],
)
def test_networks_of_other_kinds_go_through_every_arm(tmp_path, network) -> None:
    tiny = tiny_recipe()
    recipe = replace(tiny, seeds=(0,), model=replace(tiny.model, network=network))
    results = compare("collage", recipe, tmp_path / "run", resume=False)
    assert [run["arm"] for run in results["runs"]] == list(ARMS)
    config = read_checkpoint(tmp_path / "run" / "arms" / "joint-seed0" / "checkpoint.pt")
    assert SegmenterConfig.from_dict(config["segmenter"]).network == network
