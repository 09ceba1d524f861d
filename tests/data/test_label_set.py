"""Names and colours of the classes without the data: the same that the data set itself has."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data
from data import (
    CamVidConfig,
    CityscapesConfig,
    CocoConfig,
    CollageConfig,
    FolderConfig,
    PascalContextConfig,
    PersonPartConfig,
    VocConfig,
)
from data.kinds import KINDS
from data.label_set import label_set
from tests.data import layouts

NOWHERE = Path("nowhere")
ON_DISK: list[tuple[Any, Any]] = [
    (layouts.write_camvid, CamVidConfig(NOWHERE, scored=("car", "sky"))),
    (layouts.write_cityscapes, CityscapesConfig(NOWHERE)),
    (layouts.write_pascal_context, PascalContextConfig(NOWHERE)),
    (layouts.write_pascal_context, PascalContextConfig(NOWHERE, classes=60)),
    (layouts.write_person_part, PersonPartConfig(NOWHERE)),
    (layouts.write_coco, CocoConfig(NOWHERE)),
    (lambda root: None, CollageConfig(size=33)),
]


def same(config: Any, dataset: data.SegmentationDataset) -> bool:
    found = label_set(config)
    return (
        found.classes == dataset.classes
        and found.scored == dataset.scored
        and np.array_equal(found.palette, dataset.palette)
    )


@pytest.mark.parametrize(("write", "config"), ON_DISK, ids=lambda x: type(x).__name__)
def test_what_the_data_set_has_is_known_without_it(write: Any, config: Any, tmp_path: Path) -> None:
    write(tmp_path)
    here = config if isinstance(config, CollageConfig) else replace(config, root=tmp_path)
    assert same(config, data.build(here, "train"))


def test_voc_too(tiny_voc: Any) -> None:
    config = VocConfig(NOWHERE, scored=("dog", "cat"))
    assert same(config, data.build(replace(config, root=tiny_voc.root), "train"))


def test_every_kind_is_tested() -> None:
    tested = {type(config) for _, config in ON_DISK} | {VocConfig, FolderConfig}
    assert tested == set(KINDS.values())


def test_a_folders_classes_are_in_its_file(tmp_path: Path) -> None:
    layouts.write_folder(tmp_path)
    values = {"names": ["ground", "tree"], "colours": [[1, 2, 3], [4, 5, 6]], "scored": ["tree"]}
    (tmp_path / "classes.json").write_text(json.dumps(values))
    assert same(FolderConfig(tmp_path), data.build(FolderConfig(tmp_path), "train"))
    with pytest.raises(FileNotFoundError, match=r"there is no .*classes\.json"):
        label_set(FolderConfig(NOWHERE))
