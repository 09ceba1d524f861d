"""The search of the post-hoc CRF: it scores what the layer computes, finds the best, goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

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
from eval.tuning.grid import Grid, SearchConfig, evenly_spaced
from eval.tuning.logits import LogitsFolder
from eval.tuning.method import SEARCHED
from eval.tuning.options import TuneOptions
from eval.tuning.picture import LIKELIHOOD_STRIDE
from eval.tuning.search import calibrate, refined, score_image, search
from eval.tuning.tune import tune
from models import CrfConfig, CrfForm
from tests.eval.tuning_case import FORM, GRID, SCENES, hint, journal, network, options

BASE = CrfConfig(**{**asdict(FORM), "theta_gamma": 1.0, "spatial_weight": 1.0})
SETTING = replace(BASE, theta_alpha=10.0, theta_beta=10.0, bilateral_weight=2.0)


def test_the_grid_closes_in_on_the_maximum() -> None:
    peak = {"theta_alpha": 48.0, "theta_beta": 4.2, "bilateral_weight": 5.0}
    seen: dict[CrfConfig, float] = {}
    stages = []

    def height(stage: str, settings: Sequence[CrfConfig]) -> list[float]:
        assert not set(settings) & set(seen)  # nothing twice
        stages.append(stage)
        for setting in settings:
            off = [math.log(getattr(setting, name) / top) for name, top in peak.items()]
            seen[setting] = -sum(o**2 for o in (off[0], 2 * off[1], off[2]))
        return [seen[setting] for setting in settings]

    grid = {
        "theta_alpha": (30.0, 60.0, 90.0),
        "theta_beta": (3.0, 6.0),
        "bilateral_weight": (3.0, 6.0),
    }
    Grid(SearchConfig(**grid, rounds=4), BASE).run(height)  # type: ignore[arg-type]
    best = max(seen, key=seen.__getitem__)
    # Steps of the grid are 30, 3 and 3, and a round moves one value: a quarter of each is left.
    for (name, top), step in zip(peak.items(), (30, 3, 3), strict=True):
        assert getattr(best, name) == pytest.approx(top, abs=step / 4)
    assert stages == ["coarse", "fine 1", "fine 2", "fine 3", "fine 4"]
    assert evenly_spaced(3, 11) == [0, 5, 10]  # the images that are searched on


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


def test_rows_and_temperature_stay_what_they_were(coarse) -> None:
    best, rows = search(network(), FORM, data.build(SCENES, "tune"), coarse, GRID.config(None))
    found = [(r["theta_alpha"], r["bilateral_weight"], r["miou"]) for r in rows]
    assert found == [
        (5.0, 1.0, pytest.approx(0.23973060226317314, abs=1e-12)),
        (5.0, 4.0, pytest.approx(0.26280278133185775, abs=1e-12)),
        (10.0, 1.0, pytest.approx(0.24670500671666698, abs=1e-12)),
        (10.0, 4.0, pytest.approx(0.29967471201818974, abs=1e-12)),
        (7.5, 4.0, pytest.approx(0.2825591042885016, abs=1e-12)),
        (12.5, 4.0, pytest.approx(0.3153887193276359, abs=1e-12)),
        (10.0, 2.5, pytest.approx(0.27478999032152723, abs=1e-12)),
        (10.0, 5.5, pytest.approx(0.31592348460734887, abs=1e-12)),
    ]
    assert best.output_scale == pytest.approx(0.4580459932851214, rel=1e-6)


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
    assert all(result["setting"][name] == getattr(best, name) for name in SEARCHED)
    by_setting = {tuple(r["setting"][n] for n in SEARCHED): r["scores"]["miou"] for r in rows}
    assert by_setting == {tuple(r[n] for n in SEARCHED): r["miou"] for r in expected}


def test_scores_of_the_best_are_those_of_the_segmenter_with_that_crf(coarse, tmp_path) -> None:
    form = replace(FORM, resolution=2, normalization="symmetric")
    # Labels are left out while it searches; the best is scored again with all.
    given = options(tmp_path, trimap_width=2, label_floor=1e-2, crf=form)
    result = tune(given, quiet())
    setting = replace(CrfConfig(**result["setting"]), output_scale=1.0)
    split, segmenter = data.build(SCENES, "tune"), network().with_crf(setting).eval()
    scorer, rows, labels = Scorer(split.classes, split.scored, [2], band="edge"), [], []
    for sample in (split[k] for k in range(len(split))):
        image = sample.image[None].float()
        with torch.no_grad():
            unary = segmenter.enlarge(coarse[sample.name], image.shape[2:])
            (logits,) = segmenter.refine(unary, image)
        scorer.update(sample.name, logits.argmax(0), sample.mask)
        labelled = (sample.mask != VOID).flatten().nonzero()[::LIKELIHOOD_STRIDE, 0]
        rows.append(logits.flatten(1).t()[labelled].double())
        labels.append(sample.mask.flatten()[labelled])
    found, expected = result["best"], scores(scorer.counts())
    assert found["miou"] == pytest.approx(expected["miou"], abs=1e-12)
    assert found["trimap_miou"] == pytest.approx(expected["trimap_miou"]["2"], abs=1e-12)
    z, y = torch.cat(rows), torch.cat(labels)
    fitted = minimize_scalar(
        lambda log_scale: F.cross_entropy(z * math.exp(log_scale), y).item(),
        bounds=(-4.8, 0.6),
        method="bounded",
    )
    assert found["nll"] == pytest.approx(fitted.fun, abs=1e-4)  # of the spline, see objective.py
    # The top is flat.
    assert result["setting"]["output_scale"] == pytest.approx(math.exp(fitted.x), rel=0.03)


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

    def logits(network: str, value: float, of=sample) -> float:
        made = torch.full((1, 2, 3, 3), value)
        found, remark = LogitsFolder(tmp_path, network).of(of, lambda: made)
        assert ("is computed again" in (remark or "")) == (value > 2)
        return float(found.max())

    assert logits("abc", 1.0) == logits("abc", 2.0) == 1.0
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for damaged in (whole[:-8], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(damaged)
        assert logits("abc", 3.0) == 3.0
    assert logits("abd", 4.0) == 4.0
    assert logits("abd", 5.0, replace(sample, image=255 - sample.image)) == 5.0


@pytest.mark.parametrize(
    "method", ["sobol --sobol.points 2 --sobol.local 1", "gradient --descent.steps 2"]
)
def test_the_command_tunes_and_scores_the_report_split(method: str, tmp_path: Path, capsys) -> None:
    given = options(tmp_path)
    words = f"tune {given.checkpoint} --out {given.out} --workers 1 --num-images 2 --score-report"
    main([*words.split(), "--crf.num-iterations-eval", "2", "--method", *method.split()])
    result = json.loads((given.out / "best.json").read_text())
    assert "report split, miou" in capsys.readouterr().out
    rows = [row for row in journal(given.out) if row["stage"] not in ("network", "all labels")]
    found = [row["scores"]["miou"] for row in rows]
    assert (result["settings"], result["best_with_label_floor"]["miou"]) == (len(rows), max(found))


def test_options_that_do_not_fit_are_refused() -> None:
    for changes, message in (
        ({"workers": 0}, "--workers must be at least 1, got 0"),
        ({"label_floor": 1.0}, "--label-floor is a probability .*got 1.0"),
        ({"crf": CrfForm()}, "--crf.kernel-weights class: tune finds one weight per kernel"),
        ({"crf": replace(FORM, damping=0.5)}, "leaves labels out of undamped mean field alone"),
    ):
        with pytest.raises(ValueError, match=message):
            TuneOptions(Path("checkpoint.pt"), **changes)
    with pytest.raises(ValueError, match=r"search\.theta_alpha must hold values above 0, got \(\)"):
        SearchConfig(theta_alpha=())
    with pytest.raises(ValueError, match=r"search\.num_images must be at least 1"):
        SearchConfig(num_images=0)
