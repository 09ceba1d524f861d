from __future__ import annotations

import json
from pathlib import Path

import pytest

from data import (
    CamVidConfig,
    CityscapesConfig,
    CocoConfig,
    CollageConfig,
    FolderConfig,
    PascalContextConfig,
    PersonPartConfig,
    VocConfig,
    config_from_dict,
    config_to_dict,
)
from data.kinds import KINDS, READERS

CONFIGS = [
    CollageConfig(size=64),
    CamVidConfig(Path("x"), scored=("car",)),
    CityscapesConfig(Path("x"), labels="labelTrainIds"),
    CocoConfig(Path("x"), lists="voc_lists"),
    FolderConfig(Path("x"), tune_share=0.3),
    PascalContextConfig(Path("x"), classes=60),
    PersonPartConfig(Path("x")),
    VocConfig(root=Path("x"), scored=("cat", "dog")),
    VocConfig(root=Path("x"), sbd=Path("y"), extra_masks="SegmentationClassAug"),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_a_config_returns_from_json(config):
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


def test_every_kind_is_tested_and_has_a_reader():
    assert {type(config) for config in CONFIGS} == set(KINDS.values())
    assert set(READERS) == set(KINDS.values()) - {CollageConfig}


def test_a_config_of_an_older_checkpoint_is_read():
    old = {"kind": "voc", "root": "x", "train_list": "train", "scored": ("cat",)}
    assert config_from_dict(old) == VocConfig(root=Path("x"), scored=("cat",))


def test_unknown_kinds_and_fields_are_refused():
    with pytest.raises(ValueError, match=r"data kind must be one of collage, voc.*got 'vok'"):
        config_from_dict({"kind": "vok"})
    with pytest.raises(ValueError, match=r"the config of voc is of another version.*colour"):
        config_from_dict({"kind": "voc", "colour": 1})
