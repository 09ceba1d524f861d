"""The search of the post-hoc CRF: it scores what the layer computes, and finds the best."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from crfrnn.potentials import PairwisePotentials
from data import Sample, SegmentationDataset
from eval.inference import coarse_unaries, evaluate
from eval.metrics import scores
from eval.tuning.grid import SearchConfig, neighbours
from eval.tuning.method import SEARCHED
from eval.tuning.search import calibrate, refined, score_image, search
from models import CrfConfig, CrfForm, DeepLabV3Config, Segmenter, SegmenterConfig, TimmConfig

FORM = CrfForm(num_iterations_eval=2, resolution=2)
BASE = CrfConfig(num_iterations_eval=2, resolution=2)
GRID = SearchConfig(
    num_images=2,
    theta_gamma=(1.0,),
    spatial_weight=(1.0, 2.0),
    theta_alpha=(5.0, 10.0),
    theta_beta=(10.0,),
    bilateral_weight=(1.0, 5.0),
    rounds=1,
)


class Squares(SegmentationDataset):
    """Three pictures of a bright square on a dark ground."""

    classes = ("ground", "square")
    scored = (0, 1)
    palette = np.zeros((256, 3), dtype=np.uint8)
    names = ("a", "b", "c")
    has_void = False

    def __getitem__(self, index: int) -> Sample:
        mask = torch.zeros(40, 33, dtype=torch.int64)
        mask[10 + index : 25, 8:20] = 1
        noise = torch.randint(0, 30, (3, 40, 33), generator=torch.Generator().manual_seed(index))
        return Sample(self.names[index], (mask * 150 + 40 + noise).to(torch.uint8), mask)


@pytest.fixture
def network() -> Segmenter:
    torch.manual_seed(0)
    config = DeepLabV3Config(
        backbone=TimmConfig("mobilenetv2_035"), atrous_rates=(), head_channels=8
    )
    return Segmenter(SegmenterConfig(2, config)).eval()


@pytest.fixture
def coarse(network) -> dict[str, torch.Tensor]:
    """Logits that know the square, but only at every 16th pixel, with some noise."""
    generator = torch.Generator().manual_seed(0)
    found = coarse_unaries(network, Squares())
    for sample in (Squares()[i] for i in range(3)):
        padded = torch.zeros(49, 49)
        padded[:40, :33] = sample.mask
        truth = padded[::16, ::16] * 6 - 2 + torch.randn(4, 4, generator=generator)
        found[sample.name] = torch.stack([-truth, truth])[None]
    return found


def test_best_row_is_returned_and_every_setting_is_scored_once(network, coarse) -> None:
    best, rows = search(network, FORM, Squares(), coarse, GRID)
    settings = [tuple(row[name] for name in SEARCHED) for row in rows]
    assert len(set(settings)) == len(settings)
    assert [row["stage"] for row in rows[:8]] == ["coarse"] * 8
    top = max(rows, key=lambda row: row["miou"])
    assert all(getattr(best, name) == top[name] for name in SEARCHED)
    assert (best.kernel_weights, best.compatibility) == ("scalar", "potts")
    assert best.resolution == BASE.resolution


def test_scores_are_those_of_the_segmenter_with_that_crf(network, coarse) -> None:
    config = replace(GRID, num_images=3, rounds=0)
    best, rows = search(network, FORM, Squares(), coarse, config)
    expected = scores(evaluate(network.with_crf(best), Squares(), coarse))["miou"]
    assert max(row["miou"] for row in rows) == pytest.approx(expected, abs=1e-12)


def test_the_temperature_is_left_alone_on_request(network, coarse) -> None:
    config = replace(GRID, num_images=2, rounds=0)
    plain, _ = search(network, FORM, Squares(), coarse, replace(config, calibrate=False))
    calibrated, _ = search(network, FORM, Squares(), coarse, config)
    assert plain.output_scale == 1.0
    assert calibrated.output_scale != 1.0
    assert replace(calibrated, output_scale=1.0) == plain


def test_settings_that_share_widths_share_filters(network, coarse, monkeypatch) -> None:
    builds: list[int] = []
    build = PairwisePotentials.build_kernels

    def counting(self, image):
        builds.append(1)
        return build(self, image)

    monkeypatch.setattr(PairwisePotentials, "build_kernels", counting)
    settings = [replace(BASE, bilateral_weight=w, kernel_weights="scalar") for w in (1.0, 2.0, 3.0)]
    settings.append(replace(settings[0], theta_alpha=20.0))
    assert len(list(score_image(network, Squares()[0], coarse["a"], settings))) == 4
    assert len(builds) == 2


def test_calibration_finds_the_factor_that_was_hidden(network, coarse) -> None:
    """Labels drawn from softmax(3 logits) are calibrated at 3, whatever the logits are."""
    setting = replace(BASE, kernel_weights="scalar", bilateral_weight=0.5)
    samples = []
    for index in range(3):
        sample = Squares()[index]
        ((_, logits),) = refined(network, sample, coarse[sample.name], [setting])
        q = (3 * logits[0]).softmax(0).flatten(1).t()
        drawn = torch.multinomial(q, 1, generator=torch.Generator().manual_seed(index))
        samples.append(replace(sample, mask=drawn.reshape(sample.mask.shape)))
    # 3960 labels, one in seven used: a few tenths of sampling error.
    assert calibrate(network, setting, samples, coarse) == pytest.approx(3, rel=0.3)
    assert calibrate(network, replace(setting, output_scale=3.0), samples, coarse) == pytest.approx(
        1, rel=0.3
    )


def test_neighbours_move_one_value_by_part_of_a_step() -> None:
    setting = replace(BASE, theta_alpha=5.0, spatial_weight=1.0, bilateral_weight=1.0)
    grids = {name: getattr(GRID, name) for name in SEARCHED}
    moved = neighbours(setting, grids, 0.5)
    assert {m.theta_alpha for m in moved} == {5.0, 2.5, 7.5}
    assert {m.spatial_weight for m in moved} == {1.0, 0.5, 1.5}
    assert {m.bilateral_weight for m in moved} == {1.0, 3.0}  # -1 is no weight
    assert {m.theta_beta for m in moved} == {BASE.theta_beta}  # one value: held fixed
    assert len(moved) == 5
