"""The search of the post-hoc CRF: it scores what the layer computes, finds the best, goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from scipy.optimize import minimize_scalar

import data
from crfrnn.potentials import PairwisePotentials
from data import VOID
from eval.__main__ import main
from eval.inference import evaluate
from eval.metrics import Scorer, scores
from eval.tuning.bench import LEARNT
from eval.tuning.gradient import Gradient, GradientConfig
from eval.tuning.grid import Grid, SearchConfig, evenly_spaced, neighbours
from eval.tuning.logits import LogitsFolder
from eval.tuning.method import SEARCHED
from eval.tuning.objective import total
from eval.tuning.options import TuneOptions
from eval.tuning.picture import LIKELIHOOD_STRIDE, measure, measure_network, prepare
from eval.tuning.search import calibrate, refined, score_image, search
from eval.tuning.sobol import Sobol, SobolConfig
from eval.tuning.tune import tune
from models import CrfConfig, CrfForm
from tests.eval.tuning_case import FORM, GRID, SCENES, hint, journal, network, options

BASE = CrfConfig(**{**asdict(FORM), "theta_gamma": 1.0, "spatial_weight": 1.0})
SETTING = replace(BASE, theta_alpha=10.0, theta_beta=10.0, bilateral_weight=2.0)
PEAK = {"theta_alpha": 48.0, "theta_beta": 4.2, "bilateral_weight": 5.0}


def height(setting: CrfConfig) -> float:
    """A hill in the logarithms of the bilateral values; narrow in theta_beta."""
    return -sum(
        steepness * math.log(getattr(setting, name) / peak) ** 2
        for (name, peak), steepness in zip(PEAK.items(), (1.0, 4.0, 1.0), strict=True)
    )


class Hill:
    """A score that remembers what it was asked."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int]] = []
        self.seen: dict[CrfConfig, float] = {}

    def __call__(self, stage: str, settings: Sequence[CrfConfig]) -> list[float]:
        assert not set(settings) & set(self.seen)  # nothing twice
        self.stages.append((stage, len(settings)))
        self.seen |= {s: height(s) for s in settings}
        return [self.seen[s] for s in settings]

    def best(self) -> CrfConfig:
        return max(self.seen, key=self.seen.__getitem__)


def test_the_grid_closes_in_on_the_maximum() -> None:
    config = SearchConfig(
        theta_alpha=(30.0, 60.0, 90.0),
        theta_beta=(3.0, 6.0),
        bilateral_weight=(3.0, 6.0),
        rounds=4,
    )
    hill = Hill()
    Grid(config, BASE).run(hill)
    # Steps of the grid are 30, 3 and 3, and a round moves one value: a quarter of each is left.
    assert hill.best().theta_alpha == pytest.approx(48, abs=30 / 4)
    assert hill.best().theta_beta == pytest.approx(4.2, abs=3 / 4)
    assert hill.best().bilateral_weight == pytest.approx(5.0, abs=3 / 4)
    assert hill.stages[0] == ("coarse", 12)
    assert [stage for stage, _ in hill.stages[1:]] == [f"fine {k}" for k in (1, 2, 3, 4)]


def test_a_setting_given_first_is_refined_where_it_is_best() -> None:
    first = replace(BASE, **PEAK)  # type: ignore[arg-type]
    config = SearchConfig(theta_alpha=(10.0, 20.0), theta_beta=(9.0, 10.0), rounds=1)
    hill = Hill()
    Grid(config, BASE, (first,)).run(hill)
    assert hill.stages[0] == ("start", 1)
    assert hill.best() == first
    assert any(s.theta_alpha == 53.0 for s in hill.seen)  # half a step from the first


def test_neighbours_move_one_value_by_part_of_a_step() -> None:
    setting = replace(BASE, theta_alpha=5.0, bilateral_weight=1.0)
    grids: dict[str, tuple[float, ...]] = dict.fromkeys(SEARCHED, (1.0,))
    grids |= {"theta_alpha": (10.0, 5.0), "bilateral_weight": (1.0, 5.0)}
    moved = neighbours(setting, grids, 0.5)
    values = [(m.theta_alpha, m.bilateral_weight) for m in moved]
    assert values == [(2.5, 1.0), (7.5, 1.0), (5.0, 3.0)]  # -1 is no weight


def test_images_are_spread_over_the_split() -> None:
    assert evenly_spaced(3, 11) == [0, 5, 10]
    assert evenly_spaced(20, 3) == [0, 1, 2]


def test_sobol_and_the_gradient_find_the_maximum() -> None:
    class Steps:
        def __init__(self) -> None:
            self.lines: list[dict[str, Any]] = []

        def append(self, line: Any) -> None:
            self.lines.append(line)

    def slope(batch: Sequence[int], setting: CrfConfig) -> tuple[float, list[float]]:
        off = {n: math.log(getattr(setting, n) / t) for n, t in PEAK.items()}
        return sum(o**2 for o in off.values()), [2 * off.get(name, 0.0) for name in LEARNT]

    for method in (
        Sobol(SobolConfig(points=32, local=60, spatial_weight=(3.0,)), BASE),
        Gradient(GradientConfig(steps=150, points=4), BASE, range(7), slope, Steps()),
    ):
        hill = Hill()
        method.run(hill)
        for name, peak in PEAK.items():
            # The simplex stops at 2 per cent of each value and slides along the flat top.
            assert getattr(hill.best(), name) == pytest.approx(peak, rel=0.06)


@pytest.fixture(scope="module")
def coarse() -> dict[str, torch.Tensor]:
    split = data.build(SCENES, "tune")
    samples = (split[k] for k in range(len(split)))
    return {sample.name: hint(sample, len(split.classes)) for sample in samples}


def test_the_best_row_is_returned_and_its_score_is_that_of_the_segmenter(coarse) -> None:
    split, form = data.build(SCENES, "tune"), replace(FORM, resolution=2)
    config = replace(GRID.config(None), calibrate=False)
    best, rows = search(network(), form, split, coarse, config)
    settings = [tuple(row[name] for name in SEARCHED) for row in rows]
    assert len(set(settings)) == len(settings) == 8  # the grid, and the neighbours of its best
    assert [row["stage"] for row in rows] == ["coarse"] * 4 + ["fine 1"] * 4
    top = max(rows, key=lambda row: row["miou"])
    assert all(getattr(best, name) == top[name] for name in SEARCHED)
    assert (best.kernel_weights, best.compatibility) == ("scalar", "potts")
    assert (best.resolution, best.output_scale) == (2, 1.0)
    expected = scores(evaluate(network().with_crf(best), split, coarse))["miou"]
    assert top["miou"] == pytest.approx(expected, abs=1e-12)


def test_settings_that_share_widths_share_filters(coarse, monkeypatch) -> None:
    builds: list[int] = []
    build = PairwisePotentials.build_kernels

    def counting(self, image):
        builds.append(1)
        return build(self, image)

    monkeypatch.setattr(PairwisePotentials, "build_kernels", counting)
    settings = [replace(SETTING, bilateral_weight=w) for w in (1.0, 2.0, 3.0)]
    settings.append(replace(SETTING, theta_alpha=20.0))
    sample = data.build(SCENES, "tune")[0]
    assert len(list(score_image(network(), sample, coarse[sample.name], settings))) == 4
    assert len(builds) == 2


def test_calibration_finds_the_factor_that_was_hidden(coarse) -> None:
    """Labels drawn from softmax(3 logits) are calibrated at 3, whatever the logits are."""
    split, setting = data.build(SCENES, "tune"), replace(SETTING, bilateral_weight=0.5)
    samples = []
    for sample in (split[k] for k in range(3)):
        ((_, logits),) = refined(network(), sample, coarse[sample.name], [setting])
        drawn = torch.multinomial((3 * logits[0]).softmax(0).flatten(1).t(), 1)
        samples.append(replace(sample, mask=drawn.reshape(sample.mask.shape)))
    # Twelve thousand labels, one in seven used: a few tenths of sampling error.
    assert calibrate(network(), setting, samples, coarse) == pytest.approx(3, rel=0.3)
    known = replace(setting, output_scale=3.0)
    assert calibrate(network(), known, samples, coarse) == pytest.approx(1, rel=0.3)


def picture_of(sample, coarse: torch.Tensor, floor: float = 0.0, resolution: int = 1):
    return prepare(
        network(), sample, coarse, band="edge", width=2, floor=floor, resolution=resolution
    )


@pytest.mark.parametrize("resolution", [1, 2])
def test_objectives_are_those_of_the_segmenter_with_that_crf(coarse, resolution: int) -> None:
    setting, split = replace(SETTING, resolution=resolution), data.build(SCENES, "tune")
    segmenter = network()
    refining = segmenter.with_crf(setting).eval()
    plain, crf = (Scorer(split.classes, split.scored, [2], band="edge") for _ in range(2))
    alone, found, rows, labels = [], [], [], []
    for sample in (split[k] for k in range(3)):
        picture = picture_of(sample, coarse[sample.name], resolution=resolution)
        alone.append(measure_network(segmenter, picture))
        ((_, one),) = measure(segmenter, picture, [setting])
        found.append(one)
        image = sample.image[None].float()
        with torch.no_grad():
            unary = segmenter.enlarge(coarse[sample.name], image.shape[2:])
            logits = refining.refine(unary, image)
        plain.update(sample.name, unary.argmax(1)[0], sample.mask)
        crf.update(sample.name, logits.argmax(1)[0], sample.mask)
        labelled = (sample.mask != VOID).flatten().nonzero()[::LIKELIHOOD_STRIDE, 0]
        rows.append(logits[0].flatten(1).t()[labelled].double())
        labels.append(sample.mask.flatten()[labelled])
    measured, expected = total(found, split.scored), scores(crf.counts())
    assert measured.miou == pytest.approx(expected["miou"], abs=1e-12)
    assert measured.trimap_miou == pytest.approx(expected["trimap_miou"]["2"], abs=1e-12)
    of_network = scores(plain.counts())["miou"]
    assert total(alone, split.scored).miou == pytest.approx(of_network, abs=1e-12)
    fitted = minimize_scalar(
        lambda log_scale: F.cross_entropy(
            torch.cat(rows) * math.exp(log_scale), torch.cat(labels)
        ).item(),
        bounds=(-4.8, 0.6),
        method="bounded",
    )
    assert measured.nll == pytest.approx(fitted.fun, abs=1e-4)  # of the spline, see objective.py
    assert measured.output_scale == pytest.approx(math.exp(fitted.x), rel=0.03)  # the top is flat
    assert measured.value("nll") == -measured.nll  # type: ignore[operator]


@pytest.mark.parametrize(("normalization", "resolution"), [("symmetric", 1), ("none", 2)])
def test_labels_left_out_come_back_for_the_likelihood(coarse, normalization, resolution) -> None:
    """Where they are nearly impossible, nothing changes but rounding and their share of q."""
    setting = replace(SETTING, normalization=normalization, resolution=resolution)
    if normalization == "none":  # K 1 counts hundreds of pixels
        setting = replace(setting, bilateral_weight=0.004, spatial_weight=0.1)
    sample = data.build(SCENES, "tune")[0]
    logits = coarse[sample.name].clone()
    logits[:, 3:] -= 25.0  # q of these labels is about e-25
    whole, part = (picture_of(sample, logits, floor, resolution) for floor in (0.0, 1e-4))
    assert (len(whole.rest), len(part.rest)) == (0, logits.shape[1] - 3)
    ((_, a),), ((_, b),) = (measure(network(), one, [setting]) for one in (whole, part))
    np.testing.assert_array_equal(a.counts, b.counts)
    # float32 logits of up to about 50: rounding of 4e-6 in each.
    np.testing.assert_allclose(b.curve, a.curve, rtol=1e-4, atol=1e-3)


def quiet() -> Console:
    return Console(quiet=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[TuneOptions, dict[str, Any]]:
    given = options(tmp_path_factory.mktemp("tune"), label_floor=0.0)
    return given, tune(given, quiet())


def test_the_command_finds_what_training_finds(finished, coarse) -> None:
    given, result = finished
    assert result["best"]["miou"] > result["network"]["miou"]
    first, *rows = journal(given.out)
    assert (first["stage"], first["setting"]) == ("network", None)
    best, expected = search(network(), FORM, data.build(SCENES, "tune"), coarse, GRID.config(None))
    assert best.output_scale != 1.0  # calibrated
    assert CrfConfig(**result["setting"]) == replace(
        best, output_scale=result["setting"]["output_scale"]
    )
    by_setting = {tuple(r["setting"][n] for n in SEARCHED): r["scores"]["miou"] for r in rows}
    assert by_setting == {tuple(r[n] for n in SEARCHED): r["miou"] for r in expected}


def test_a_run_that_was_killed_goes_on_to_the_same_end(finished, tmp_path, monkeypatch) -> None:
    given, result = finished
    part = options(tmp_path, label_floor=0.0, resume=True)
    lines = (given.out / "settings.jsonl").read_text().splitlines()
    (part.out / "settings.jsonl").write_text("\n".join(lines[:4]) + '\n{"stage": "coa')
    config = (given.out / "config.json").read_text()
    (part.out / "config.json").write_text(config)
    assert tune(part, quiet())["setting"] == result["setting"]
    assert journal(part.out) == journal(given.out)
    # Now it is finished: nothing is measured again.
    monkeypatch.setattr("eval.tuning.crew.Crew.rounds", lambda *a, **k: pytest.fail("again"))
    assert tune(part, quiet())["setting"] == result["setting"]


def test_a_folder_of_another_tuning_or_a_damaged_one_is_refused(finished, tmp_path) -> None:
    given, _ = finished
    with pytest.raises(ValueError, match=r"another configuration: objective was 'miou', now 'nll'"):
        tune(replace(given, objective="nll", resume=True), quiet())
    with pytest.raises(FileExistsError, match="holds a tuning already: --resume"):
        tune(given, quiet())
    damaged = options(tmp_path)
    (damaged.out / "settings.jsonl").write_text('{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(ValueError, match=r"settings.jsonl, line 2 is no JSON .*delete the folder"):
        tune(damaged, quiet())


def test_logits_that_are_damaged_or_of_something_else_are_computed_again(tmp_path: Path) -> None:
    sample = data.build(SCENES, "tune")[0]

    def logits(network: str, value: float, of=sample) -> tuple[float, str]:
        made = torch.full((1, 2, 3, 3), value)
        found, remark = LogitsFolder(tmp_path, network).of(of, lambda: made)
        return float(found.max()), remark or ""

    assert logits("abc", 1.0) == logits("abc", 2.0) == (1.0, "")
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for damaged in (whole[:-8], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(damaged)
        value, remark = logits("abc", 2.0)
        assert value == 2.0
        assert f"{path} is computed again" in remark
    assert logits("abd", 3.0) == (
        3.0,
        f"{path} is computed again: it was made by another checkpoint",
    )
    other = replace(sample, image=255 - sample.image)
    assert logits("abd", 4.0, other)[0] == 4.0


def test_the_command_tunes_and_scores_the_report_split(tmp_path: Path, capsys) -> None:
    given = options(tmp_path)
    words = f"tune {given.checkpoint} --out {given.out} --workers 1 --num-images 2 --score-report"
    grid = "--grid.theta-alpha 8 --grid.theta-beta 10 --grid.bilateral-weight 2 --grid.rounds 0"
    main([*words.split(), *grid.split(), "--crf.num-iterations-eval", "2"])
    said = capsys.readouterr().out
    assert "1 settings x 2 images in " in said
    assert "report split, miou" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workers": 0}, "--workers must be at least 1, got 0"),
        ({"label_floor": 1.0}, "--label-floor is a probability .*got 1.0"),
        ({"crf": CrfForm()}, "--crf.kernel-weights class: tune finds one weight per kernel"),
        ({"crf": replace(FORM, damping=0.5)}, "leaves labels out of undamped mean field alone"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TuneOptions(Path("checkpoint.pt"), **changes)


def test_a_search_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"search\.theta_alpha must hold values above 0, got \(\)"):
        SearchConfig(theta_alpha=())
    with pytest.raises(ValueError, match=r"search\.num_images must be at least 1"):
        SearchConfig(num_images=0)
