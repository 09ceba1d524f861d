"""Weak labels: masks that are void but near clicks, for VOC and for the collage."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from data import VOID, Collage, CollageClicksConfig, CollageConfig, Split, VocClicksConfig, build
from data.__main__ import main
from data.prepare import click_mask, read_clicks
from data.reading import read_ids

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


@pytest.mark.data
def test_the_published_clicks(voc_animals_root, shared_root, tmp_path):
    """The README counts 951 + 1,150 clicks on the images of train."""
    (tmp_path / "JPEGImages").symlink_to(voc_animals_root / "JPEGImages")
    clicks = shared_root / "datasets" / "voc12_clicks" / "clicks.json"
    assert main(["prepare", "voc-clicks", str(tmp_path), "--clicks", str(clicks)]) == 0
    by_name = read_clicks(clicks, 21)
    names = (voc_animals_root / "ImageSets" / "Segmentation" / "train.txt").read_text().split()
    assert sum(len(by_name[name]) for name in names) == 951 + 1150
    assert len(list((tmp_path / "SegmentationClassClicks").iterdir())) == 882
