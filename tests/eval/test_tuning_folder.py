"""What a tuning keeps on the disk, and what it refuses to go on with."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from data import Sample, build
from eval.tuning.folder import Journal, TuneFolder
from eval.tuning.logits import LogitsFolder
from eval.tuning.objective import Scores
from models import CrfConfig
from tests.eval.tuning_case import SCENES

SCORES = Scores(miou=0.5, trimap_miou=None, nll=0.25, output_scale=0.3)
SETTING = CrfConfig(theta_alpha=0.1 + 0.2)  # a number whose digits must survive


@pytest.fixture
def sample() -> Sample:
    return build(SCENES, "tune")[0]


def compute(value: float, calls: list[float]):
    def run() -> torch.Tensor:
        calls.append(value)
        return torch.full((1, 2, 3, 3), value)

    return run


def test_the_network_runs_once_for_an_image(tmp_path, sample) -> None:
    calls: list[float] = []
    logits = LogitsFolder(tmp_path, "abc")
    first, remark = logits.of(sample, compute(1.0, calls))
    again, _ = logits.of(sample, compute(2.0, calls))
    assert torch.equal(first, again)
    assert (calls, remark) == ([1.0], None)


def test_a_damaged_file_is_computed_again_with_a_line(tmp_path, sample) -> None:
    logits = LogitsFolder(tmp_path, "abc")
    logits.of(sample, compute(1.0, []))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    for damaged in (whole[:-8], whole[:4], b"", flipped):
        path.write_bytes(damaged)
        found, remark = logits.of(sample, compute(2.0, []))
        assert found.max() == 2.0
        assert remark is not None
        assert f"{path} is computed again: " in remark
        path.write_bytes(whole)


def test_a_file_of_another_network_or_image_is_computed_again(tmp_path, sample) -> None:
    LogitsFolder(tmp_path, "abc").of(sample, compute(1.0, []))
    _, remark = LogitsFolder(tmp_path, "abd").of(sample, compute(2.0, []))
    assert remark is not None
    assert remark.endswith("it was made by another checkpoint")
    other = replace(sample, image=255 - sample.image)
    found, remark = LogitsFolder(tmp_path, "abd").of(other, compute(3.0, []))
    assert remark is not None
    assert remark.endswith("it was made by another pixels")
    assert found.max() == 3.0


def keep(folder: TuneFolder, setting: CrfConfig | None, floor: float = 0.01) -> None:
    folder.keep("coarse", setting, SCORES, floor=floor, seconds=1.0, cpu_seconds=2.0)


def test_what_was_scored_is_read_back_exactly(tmp_path) -> None:
    folder = TuneFolder(tmp_path, {"seed": 0}, resume=False)
    keep(folder, None, 0.0)
    keep(folder, SETTING)
    again = TuneFolder(tmp_path, {"seed": 0}, resume=True)
    assert again.kept(0.01) == {SETTING: SCORES}
    assert again.kept(0.0) == {None: SCORES}
    assert again.remarks == []


def test_a_last_line_that_was_cut_off_is_dropped_with_a_remark(tmp_path) -> None:
    folder = TuneFolder(tmp_path, {"seed": 0}, resume=False)
    keep(folder, SETTING)
    keep(folder, None)
    path = tmp_path / "settings.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    again = TuneFolder(tmp_path, {"seed": 0}, resume=True)
    assert list(again.kept(0.01)) == [SETTING]
    assert again.remarks == [f"{path}: the last line was cut off and is dropped"]
    keep(again, None)
    assert path.read_bytes() == whole


def test_a_damaged_line_ahead_of_the_last_is_named(tmp_path) -> None:
    path = tmp_path / "settings.jsonl"
    path.write_text('{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(ValueError, match=r"settings.jsonl, line 2 is no JSON .*delete the folder"):
        Journal(path)


def test_a_folder_is_not_overwritten_and_not_mixed(tmp_path) -> None:
    keep(TuneFolder(tmp_path, {"seed": 0, "crf": {"resolution": 1}}, resume=False), SETTING)
    with pytest.raises(FileExistsError, match="holds a tuning already: --resume"):
        TuneFolder(tmp_path, {"seed": 0, "crf": {"resolution": 1}}, resume=False)
    with pytest.raises(ValueError, match=r"another configuration: crf.resolution was 1, now 2\. "):
        TuneFolder(tmp_path, {"seed": 0, "crf": {"resolution": 2}}, resume=True)
    assert json.loads((tmp_path / "config.json").read_text())["crf"] == {"resolution": 1}


def test_a_folder_without_a_score_claims_nothing(tmp_path) -> None:
    TuneFolder(tmp_path, {"seed": 0}, resume=False)
    assert TuneFolder(tmp_path, {"seed": 1}, resume=False).kept(0.01) == {}
