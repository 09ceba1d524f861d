from __future__ import annotations

import json
from pathlib import Path

import pytest

from data import CollageConfig, VocConfig, config_from_dict, config_to_dict

CONFIGS = [
    CollageConfig(size=64),
    VocConfig(root=Path("x"), scored=("cat", "dog")),
    VocConfig(root=Path("x"), sbd=Path("y"), extra_masks="SegmentationClassAug"),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_a_config_returns_from_json(config):
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


def test_a_config_of_an_older_checkpoint_is_read():
    old = {"kind": "voc", "root": "x", "train_list": "train", "scored": ("cat",)}
    assert config_from_dict(old) == VocConfig(root=Path("x"), scored=("cat",))


def test_unknown_kinds_and_fields_are_refused():
    with pytest.raises(ValueError, match=r"data kind must be one of collage, voc.*got 'vok'"):
        config_from_dict({"kind": "vok"})
    with pytest.raises(ValueError, match=r"the config of voc is of another version.*colour"):
        config_from_dict({"kind": "voc", "colour": 1})
